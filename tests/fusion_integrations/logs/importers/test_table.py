import csv
import json
import math
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.importers.table import ColumnMapping, import_table
from fusion_integrations.logs.store import LogStore

NOW = datetime(2026, 5, 6, tzinfo=UTC)
ASKED = ColumnMapping(query="q", model="m", performance="p", response="r")


@pytest.fixture
def store():
    with LogStore.open(":memory:") as opened:
        yield opened


def _write(path, rows):
    """Write rows as the kind of file the suffix says."""
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _quarantined(report):
    return [json.loads(line) for line in report.quarantine.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_import_when_columns_are_mapped_then_every_field_arrives(tmp_path, store, suffix):
    row = {
        "q": 'Say "hi",\nthen stop',
        "m": "small",
        "mode": "reasoning",
        "r": "hi",
        "p": 0.5,
        "j": 0.25,
        "t": "greeting",
        "ref": "hi",
        "metric": "exact_match",
        "in": 3,
        "out": 1,
        "usd": 0.125,
        "s": 1.5,
        "prop": 0.2,
        "session": "ann",
        "at": "2026-01-02T03:04:05+01:00",
        "id": "row-1",
        "ignored": "x",
    }
    columns = ColumnMapping(
        query="q",
        model="m",
        prompt_mode="mode",
        response="r",
        performance="p",
        judge_score="j",
        task="t",
        reference="ref",
        metric="metric",
        input_tokens="in",
        output_tokens="out",
        cost_usd="usd",
        latency_s="s",
        propensity="prop",
        session_id="session",
        created_at="at",
        source_id="id",
    )

    report = import_table(
        _write(tmp_path / f"log{suffix}", [row]),
        store,
        columns=columns,
        assignment="policy",
        source="app",
        now=NOW,
    )

    assert (report.n_rows, report.n_added, report.n_known, report.n_quarantined) == (1, 1, 0, 0)
    assert report.quarantine is None
    found = store.to_frame().drop("record_id", "query_id", "messages").row(0, named=True)
    assert found == {
        "task": "greeting",
        "reference": "hi",
        "metric": "exact_match",
        "candidate_id": "small:reasoning",
        "candidate_revision": "",
        "model": "small",
        "prompt_mode": "reasoning",
        "planned_candidate_id": None,
        "response": "hi",
        "error": None,
        "finish_reason": None,
        "input_tokens": 3,
        "output_tokens": 1,
        "cost_usd": 0.125,
        "latency_s": 1.5,
        "assignment": "policy",
        "propensity": 0.2,
        "eligible": [],
        "session_id": "ann",
        "created_at": datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
        "source": "app",
        "source_id": "row-1",
        "sample": 0,
        "query_text": 'Say "hi",\nthen stop',
        "performance": 0.5,
        "judge_score": 0.25,
        "feedback": None,
    }
    assert {(score.scorer, score.created_at) for score in store.scores()} == {("import:app", NOW)}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_repeated_then_adds_nothing(tmp_path, store, suffix):
    rows = [{"q": f"Question {i % 5}", "m": "small", "p": 1.0, "r": "yes"} for i in range(12)]
    path = _write(tmp_path / f"log{suffix}", rows)

    first = import_table(path, store, columns=ASKED)
    before = store.to_frame()
    second = import_table(path, store, columns=ASKED)

    assert (first.n_added, first.n_known) == (12, 0)
    assert (second.n_added, second.n_known) == (0, 12)
    assert store.to_frame().equals(before)


def test_import_when_equal_calls_repeat_in_a_file_then_each_is_a_sample(tmp_path, store):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": "small", "p": p, "r": "yes"} for p in (1, 0, 1)])

    import_table(path, store, columns=ASKED)

    assert [record.sample for record in store.records()] == [0, 1, 2]
    assert store.to_frame()["performance"].to_list() == [1.0, 0.0, 1.0]


def test_import_when_rows_were_reordered_and_added_then_adds_the_new_alone(tmp_path, store):
    rows = [{"q": "Q", "m": model, "p": 1, "r": text} for model in ("a", "b") for text in ("x", "y")]
    import_table(_write(tmp_path / "log.jsonl", rows[:3]), store, columns=ASKED)

    report = import_table(_write(tmp_path / "log.jsonl", rows[::-1]), store, columns=ASKED)

    assert (report.n_added, report.n_known) == (1, 3)


def test_import_when_files_differ_in_name_then_are_different_sources(tmp_path, store):
    for name in ("monday.jsonl", "tuesday.jsonl"):
        import_table(_write(tmp_path / name, [{"q": "Q", "m": "a", "p": 1, "r": "x"}]), store, columns=ASKED)

    assert [record.source for record in store.records()] == ["monday.jsonl", "tuesday.jsonl"]


@pytest.mark.parametrize("n_between", [0, 1500])
def test_import_when_a_source_id_is_not_unique_then_the_second_call_is_quarantined(
    tmp_path, store, n_between
):
    rows = [
        {"q": "Q", "m": "a", "p": 1, "r": "x", "id": "7"},
        *({"q": "Q", "m": "a", "p": 1, "r": "x", "id": f"other {i}"} for i in range(n_between)),
        {"q": "Q", "m": "b", "p": 1, "r": "x", "id": "7"},
    ]
    columns = ASKED.model_copy(update={"source_id": "id"})

    report = import_table(_write(tmp_path / "log.jsonl", rows), store, columns=columns)

    assert (report.n_added, report.n_quarantined) == (1 + n_between, 1)
    (refused,) = _quarantined(report)
    assert refused["row"] == n_between + 2
    assert "source id '7' of source 'log.jsonl' already belongs to another call" in refused["reason"]


def test_import_when_rows_are_malformed_then_they_are_set_aside_and_the_rest_goes_on(tmp_path, store):
    good = {"q": "Q", "m": "small", "p": 1, "r": "yes"}
    lines = [
        json.dumps(good),
        '{"q": "cut off',
        '["a list"]',
        json.dumps(good | {"p": 1.5}),
        json.dumps(good | {"q": "  "}),
        json.dumps(good | {"m": None}),
        json.dumps(good | {"r": {"text": "nested"}}),
        json.dumps({"m": "small"}),
        "",
        json.dumps(good | {"r": "\ud800"}),
        "[" * 100_000,
        json.dumps(good | {"r": "no"}),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")

    report = import_table(path, store, columns=ASKED)

    assert (report.n_rows, report.n_added, report.n_quarantined) == (11, 2, 9)
    assert report.quarantine == tmp_path / "log.jsonl.quarantine.jsonl"
    reasons = {entry["row"]: entry["reason"] for entry in _quarantined(report)}
    expected = {
        2: "not JSON",
        3: "not a JSON object",
        4: "performance: not a number between 0 and 1, got 1.5",
        5: "no text",
        6: "candidate_id: Input should be a valid string",
        7: "response: Input should be a valid string",
        8: "messages",
        10: "surrogates",
        11: "not JSON",
    }
    assert reasons.keys() == expected.keys()
    assert all(part in reasons[row] for row, part in expected.items()), reasons
    assert [record.response for record in store.records()] == ["yes", "no"]


def test_import_when_csv_is_malformed_then_only_its_bad_records_are_set_aside(tmp_path, store):
    path = tmp_path / "log.csv"
    long_answer = "x" * 200_000  # more than the csv module takes unasked
    path.write_bytes(
        b"\xef\xbb\xbfq,m,p,r\n"
        b"Q1,small,1,yes\n"
        b"Q2,small\n"
        b"\n"
        b"Q3,small,1,yes,more\n"
        b"Q4,small,one,yes\n"
        b"Q5,small,1,\xff\n"
        b'Q6,small,1,"yes" no\n'
        b"Q7,small,,\n" + f"Q8,small,True,{long_answer}\n".encode() + b'Q9,small,1,"never closed\n'
    )

    report = import_table(path, store, columns=ASKED)

    reasons = {entry["row"]: entry["reason"] for entry in _quarantined(report)}
    expected = {
        2: "2 fields where the header has 4",
        3: "5 fields where the header has 4",
        4: "performance: not a number between 0 and 1, got 'one'",
        5: "surrogates",
        6: "not CSV: ',' expected after '\"', lines 8-8",
        9: "not CSV: unexpected end of data, lines 11-11",
    }
    assert reasons.keys() == expected.keys()
    assert all(part in reasons[row] for row, part in expected.items()), reasons
    frame = store.to_frame().select("query_text", "performance", pl.col("response").str.len_chars())
    assert frame.rows() == [("Q1", 1.0, 3), ("Q7", None, None), ("Q8", 1.0, 200_000)]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_import_when_a_number_is_missing_then_the_record_has_none(tmp_path, store, missing):
    rows = [{"q": "Q", "m": "a", "p": missing, "usd": missing, "in": missing}]
    rows.append({"q": "Q", "m": "b", "p": 1.0, "usd": 0.5, "in": 4.0})
    columns = ColumnMapping(query="q", model="m", performance="p", cost_usd="usd", input_tokens="in")

    report = import_table(_write(tmp_path / "log.parquet", rows), store, columns=columns)

    assert report.n_added == 2
    frame = store.to_frame().select("performance", "cost_usd", "input_tokens", "response")
    assert frame.rows() == [(None, None, None, None), (1.0, 0.5, 4, None)]


def test_import_when_a_call_failed_then_the_record_has_its_error(tmp_path, store):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "e": "timeout"}])

    import_table(path, store, columns=ColumnMapping(query="q", model="m", error="e"))

    assert store.stats().n_failed == 1


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("suffix", "value"), [(".jsonl", MESSAGES), (".parquet", MESSAGES), (".csv", json.dumps(MESSAGES))]
)
def test_import_when_messages_are_mapped_then_the_conversation_arrives(tmp_path, store, suffix, value):
    path = _write(tmp_path / f"log{suffix}", [{"msgs": value, "m": "a"}])

    import_table(path, store, columns=ColumnMapping(messages="msgs", model="m"))

    (record,) = store.records()
    assert [(message.role, message.content) for message in record.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


@pytest.mark.parametrize(
    "value", ["not JSON", "7", "[" * 100_000, [7], [{"role": "user"}], {"role": "user"}, None]
)
def test_import_when_messages_are_malformed_then_the_row_is_quarantined(tmp_path, store, value):
    path = _write(tmp_path / "log.jsonl", [{"msgs": value, "m": "a"}])

    report = import_table(path, store, columns=ColumnMapping(messages="msgs", model="m"))

    assert report.n_quarantined == 1


@pytest.mark.parametrize(
    ("mapping", "row", "candidate_id", "model"),
    [
        ({"model": "m"}, {"m": "small"}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": "direct"}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": None}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": "thought"}, "small:thought", "small"),
        ({"candidate": "c"}, {"c": "router-a"}, "router-a", ""),
        ({"candidate": "c", "model": "m"}, {"c": "router-a", "m": "small"}, "router-a", "small"),
    ],
)
def test_import_when_answerer_is_given_then_candidate_and_model_are(
    tmp_path, store, mapping, row, candidate_id, model
):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q"} | row])

    import_table(path, store, columns=ColumnMapping(query="q", **mapping))

    (record,) = store.records()
    assert (record.candidate_id, record.model) == (candidate_id, model)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),  # no zone: read as UTC
        ("2026-01-02T03:04:05-01:00", datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)),
        (1_767_322_800, datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (None, NOW),
    ],
)
def test_import_when_moment_has_a_known_form_then_is_read(tmp_path, store, value, expected):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "at": value}])

    import_table(path, store, columns=ColumnMapping(query="q", model="m", created_at="at"), now=NOW)

    (record,) = store.records()
    assert record.created_at == expected


@pytest.mark.parametrize(
    ("value", "text"), [(42, "42"), (["Paris", "paris"], '["Paris", "paris"]'), (True, "true")]
)
def test_import_when_reference_is_no_text_then_is_kept_as_json(tmp_path, store, value, text):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "ref": value}])

    import_table(path, store, columns=ColumnMapping(query="q", model="m", reference="ref"))

    (record,) = store.records()
    assert record.reference == text


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_a_mapped_column_is_absent_then_lists_those_there_are(tmp_path, store, suffix):
    path = _write(tmp_path / f"log{suffix}", [{"query": "Q", "model": "a"}])

    with pytest.raises(LogSchemaError, match=r"has no column 'm', 'q'.*has: 'query', 'model'"):
        import_table(path, store, columns=ColumnMapping(query="q", model="m"))


def test_import_when_a_json_column_comes_late_then_is_found(tmp_path, store):
    rows = [{"q": f"Q{i}", "m": "a"} for i in range(1200)] + [{"q": "Q", "m": "a", "e": "timeout"}]

    import_table(
        _write(tmp_path / "log.jsonl", rows), store, columns=ColumnMapping(query="q", model="m", error="e")
    )

    assert store.stats().n_failed == 1


def test_import_when_a_csv_header_repeats_then_raises(tmp_path, store):
    path = tmp_path / "log.csv"
    path.write_text("q,m,q\nA,small,B\n")

    with pytest.raises(LogSchemaError, match="has several columns 'q'"):
        import_table(path, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("log.xlsx", b"", "of no known kind. Known suffixes: .csv"),
        ("log.parquet", b"not parquet", "cannot be read"),
        ("log.csv", b"", "has no column 'm', 'q'.*has: none"),
        ("log.jsonl", b"", "has no column"),
    ],
)
def test_import_when_the_file_is_unusable_then_says_why(tmp_path, store, name, content, reason):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LogSchemaError, match=reason):
        import_table(tmp_path / name, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_import_when_the_file_is_absent_then_raises(tmp_path, store, name):
    with pytest.raises(LogSchemaError, match=f"{name}' cannot be read: No such file"):
        import_table(tmp_path / name, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize(
    ("arguments", "reason"), [({"source": " "}, "non-blank name"), ({"assignment": "dice"}, "got 'dice'")]
)
def test_import_when_an_argument_is_wrong_then_raises(tmp_path, store, arguments, reason):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": "a"}])

    with pytest.raises(LogSchemaError, match=reason):
        import_table(path, store, columns=ColumnMapping(query="q", model="m"), **arguments)


def test_import_when_the_quarantine_cannot_be_written_then_says_so(tmp_path, store):
    path = _write(tmp_path / "log.jsonl", [{"q": "Q", "m": None}])

    with pytest.raises(LogStoreError, match=r"quarantine file '.*x.jsonl' cannot be written: No such file"):
        import_table(
            path, store, columns=ColumnMapping(query="q", model="m"), quarantine=tmp_path / "no" / "x.jsonl"
        )


def test_import_when_there_are_several_batches_then_reports_progress(tmp_path, store):
    path = _write(tmp_path / "log.jsonl", [{"q": f"Q{i}", "m": "a"} for i in range(2100)])
    seen = []

    import_table(path, store, columns=ColumnMapping(query="q", model="m"), on_progress=seen.append)

    assert seen == [1000, 2000, 2100]


def test_import_when_parquet_has_more_rows_than_a_slice_then_all_arrive(tmp_path, store):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"q": [f"Q{i}" for i in range(10_000)], "m": ["a"] * 10_000}).write_parquet(path)

    report = import_table(path, store, columns=ColumnMapping(query="q", model="m"))

    assert (report.n_rows, report.n_added) == (10_000, 10_000)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "Hi"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
EVERY_COLUMN = ColumnMapping(**{name: name for name in ColumnMapping.model_fields if name != "messages"})


@settings(deadline=None, max_examples=75)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"query": JSON_VALUES, "model": JSON_VALUES},
            optional={
                name: JSON_VALUES for name in ColumnMapping.model_fields if name not in ("query", "model")
            },
        ),
        max_size=3,
    )
)
def test_import_when_values_are_anything_then_every_row_is_added_known_or_quarantined(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "log.jsonl"
    everything = dict.fromkeys(ColumnMapping.model_fields)  # so that all columns exist; itself refused
    _write(path, [everything, *rows])

    with LogStore.open(":memory:") as store:
        report = import_table(path, store, columns=EVERY_COLUMN)

        assert report.n_rows == report.n_added + report.n_known + report.n_quarantined == len(rows) + 1
        assert store.to_frame().height == report.n_added


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "m"}, "exactly one of query and messages"),
        ({"query": "q", "messages": "q", "model": "m"}, "exactly one of query and messages"),
        ({"query": "q"}, "Map candidate or model"),
        ({"query": "q", "model": "m", "prize": "p"}, "prize"),
    ],
)
def test_mapping_when_incomplete_then_says_what_is_missing(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        ColumnMapping(**fields)
