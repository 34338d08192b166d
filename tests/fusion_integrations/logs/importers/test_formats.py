"""What holds for every format: facts arrive, importing again adds nothing, and nothing but named errors."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import FusionError, LogSchemaError
from fusion_integrations.logs.frame import write_parquet
from fusion_integrations.logs.importers import FORMATS, ColumnMapping, import_logs
from fusion_integrations.logs.store import LogStore

ALL = sorted(set(FORMATS) - {"fusion"})
COLUMNS = ColumnMapping(
    **{
        name: name
        for name in (
            "messages",
            "model",
            "response",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "latency_s",
            "created_at",
            "performance",
            "source_id",
        )
    }
)


def options_of(name, path, samples):
    sample = samples.SAMPLES[name]
    folder = path if path.is_dir() else path.parent
    join = {"join": folder / sample.join} if sample.join else {}
    return join | ({"columns": COLUMNS} if name == "table" else {})


def run(name, path, store, samples, **options):
    aside = path.parent / "aside.jsonl"
    return import_logs(name, path, store, **{"quarantine": aside} | options_of(name, path, samples) | options)


def test_formats_when_counted_then_each_has_a_sample(samples):
    assert sorted(samples.SAMPLES) == ALL


@pytest.mark.parametrize("name", ALL)
def test_import_when_the_log_is_as_documented_then_its_facts_arrive(name, tmp_path, store, samples):
    facts = [samples.Fact(), samples.Fact(number=2, query="And of Peru?", answer="Lima.", model="large-1")]
    folder = tmp_path / "log"
    folder.mkdir()
    path = samples.SAMPLES[name].write(folder, facts)

    first = run(name, path, store, samples)
    again = run(name, path, store, samples)

    assert (first.n_rows, first.n_added, first.n_quarantined, first.n_dropped) == (2, 2, 0, {})
    assert (again.n_added, again.n_known, again.n_quarantined, again.n_dropped) == (0, 2, 0, {})
    check_facts(store, facts, samples.SAMPLES[name].keeps)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
VISIBLE = TEXT.filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=8)
@given(data=st.data())
def test_import_when_facts_are_written_in_a_format_then_reading_gives_them_back(name, samples, data):
    drawn = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "query": VISIBLE,
                    "system": TEXT,
                    "answer": VISIBLE,
                    "model": st.sampled_from(["small-1", "large-1"]),
                    "input_tokens": st.integers(0, 10**9),
                    "output_tokens": st.integers(0, 10**9),
                    "cost_usd": st.floats(0, 10, allow_subnormal=False),
                    "latency_s": st.integers(0, 10**6).map(lambda number: number / 1000),
                    "score": st.floats(0, 1, allow_subnormal=False),
                }
            ),
            min_size=1,
            max_size=4,
        )
    )
    facts = [samples.Fact(number=number, **fields) for number, fields in enumerate(drawn, start=1)]
    sample = samples.SAMPLES[name]
    with TemporaryDirectory() as place, LogStore.open(":memory:") as store:
        folder = Path(place) / "log"
        folder.mkdir()
        report = run(name, sample.write(folder, facts), store, samples)
        assert report.n_quarantined == 0
        # Benchmarks know rows by what they say: those that say the same are one.
        assert report.n_added + report.n_dropped.get("duplicate row", 0) == len(facts)
        if not report.n_dropped:
            check_facts(store, facts, sample.keeps)


def check_facts(store, facts, keeps):
    def key(pair):
        return pair["query"], pair["answer"], pair["model"], pair["system"] or ""

    scores = {
        score.record_id: score.value for score in store.scores() if score.scorer != "fusionbench:llm_judge"
    }
    found = [
        {
            "system": record.messages[0].content if record.messages[0].role == "system" else None,
            "query": record.messages[-1].content,
            "answer": record.response,
            "model": record.model,
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "cost_usd": None if record.cost_usd is None else pytest.approx(record.cost_usd),
            "latency_s": None if record.latency_s is None else pytest.approx(record.latency_s, abs=2e-3),
            "start": record.created_at,
            "score": scores.get(record.record_id),
        }
        for record in store.records()
    ]
    told = [
        {name: getattr(fact, name) for name in ("query", "answer", "model", "start", *keeps)}
        for fact in facts
    ]
    told = [{"system": None} | each for each in told]
    for one, other in zip(sorted(found, key=key), sorted(told, key=key), strict=True):
        names = {"query", "answer", "model", "system", *keeps} - {"start"}
        assert {name: one[name] for name in names} == {name: other[name] for name in names}
        if "start" in keeps:
            assert abs(one["start"] - other["start"]) <= timedelta(seconds=1)


@settings(max_examples=25)
@given(data=st.data())
def test_import_when_records_are_exported_then_fusion_gives_them_back(any_record, data):
    records = data.draw(st.lists(any_record, max_size=3, unique_by=lambda record: record.record_id))
    with (
        TemporaryDirectory() as place,
        LogStore.open(":memory:") as ours,
        LogStore.open(":memory:") as theirs,
    ):
        theirs.add(records)
        path = Path(place) / "log.parquet"
        write_parquet(theirs.to_frame(), path)
        report = import_logs("fusion", path, ours)

        assert report.n_added == len(records)
        assert list(ours.records()) == list(theirs.records())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(data=st.data())
def test_import_when_files_are_damaged_then_only_named_errors_come_out(name, samples, data):
    with TemporaryDirectory() as place, LogStore.open(":memory:") as store:
        folder = Path(place) / "log"
        folder.mkdir()
        path = samples.SAMPLES[name].write(folder, [samples.Fact(), samples.Fact(number=2)])
        file = data.draw(st.sampled_from(sorted(file for file in folder.rglob("*") if file.is_file())))
        file.write_bytes(data.draw(damaged(file.read_bytes())))
        try:
            report = run(name, path, store, samples)
        except FusionError:
            return
        dropped = sum(report.n_dropped.values())
        assert report.n_rows == report.n_added + report.n_known + dropped + report.n_quarantined


@st.composite
def damaged(draw, content):
    """Bytes like the given ones: cut, overwritten, or with JSON values of their lines replaced."""
    kind = draw(st.sampled_from(["value", "cut", "bytes"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if kind == "bytes":
        at = draw(st.integers(0, len(content)))
        return content[:at] + draw(st.binary(max_size=8)) + content[at + draw(st.integers(0, 8)) :]
    found = []
    for line in content.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            return content
        found.append(json.dumps(draw(changed(value))).encode())
    return b"\n".join(found)


@st.composite
def changed(draw, value):
    """JSON data with one value in it replaced by another."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(JSON)


@pytest.mark.parametrize("name", ALL)
def test_import_when_the_file_is_absent_then_says_so(name, tmp_path, store, samples):
    path = samples.SAMPLES[name].write(tmp_path, [samples.Fact()])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

    with pytest.raises(LogSchemaError, match=r"cannot be read: No such file|is of no known kind"):
        run(name, path, store, samples)
