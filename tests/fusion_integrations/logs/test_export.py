import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.export import export_logs
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.frame import load_logs
from fusion_integrations.logs.importers import import_logs
from fusion_integrations.logs.store import LogStore


def test_export_to_lines_when_imported_again_then_nothing_is_lost(tmp_path, make_record, make_score):
    records = [
        make_record(0),
        make_record(1, response=None, error="timeout", cost_usd=0.5, eligible=("a", "b")),
    ]
    scores = [
        make_score("r0", value=0.5, reason="half", version="3"),
        make_score("r0", kind="judge", scorer="judge-a"),
        make_score("r0", value=1.0),
    ]
    with LogStore.open(":memory:") as store:
        store.add(records, scores)
        assert export_logs(store, tmp_path / "logs.jsonl") == 2

    with LogStore.open(":memory:") as store:
        report = import_logs("fusion", tmp_path / "logs.jsonl", store)
        assert (report.n_added, report.n_quarantined) == (2, 0)
        assert list(store.records()) == records
        assert list(store.scores()) == scores


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_export_to_lines_when_records_are_any_then_they_come_back(tmp_path, any_record, data):
    records = data.draw(st.lists(any_record, max_size=4, unique_by=lambda record: record.record_id))
    with LogStore.open(":memory:") as store:
        store.add(records)
        export_logs(store, tmp_path / "logs.jsonl")
    with LogStore.open(":memory:") as store:
        if records:
            import_logs("fusion", tmp_path / "logs.jsonl", store)
        assert list(store.records()) == records


def test_export_to_lines_when_there_are_more_than_a_page_then_all_have_their_scores(
    tmp_path, make_record, make_score
):
    with LogStore.open(":memory:") as store:
        store.add([make_record(i) for i in range(2_500)], [make_score(f"r{i}") for i in range(0, 2_500, 2)])
        export_logs(store, tmp_path / "logs.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "logs.jsonl").read_text().splitlines()]
    assert [line["record_id"] for line in lines] == [f"r{i}" for i in range(2_500)]
    assert [len(line["scores"]) for line in lines] == [1 - i % 2 for i in range(2_500)]


def test_export_to_parquet_when_filtered_then_is_the_table_of_those(tmp_path, make_record, make_score):
    with LogStore.open(":memory:") as store:
        store.add([make_record(0), make_record(1, source="app")], [make_score("r0"), make_score("r1")])
        assert export_logs(store, tmp_path / "logs.parquet", where=LogFilter(sources=("app",))) == 1

    frame = load_logs(tmp_path / "logs.parquet")
    assert frame.select("record_id", "performance").rows() == [("r1", 1.0)]


def test_export_when_the_suffix_is_unknown_then_says_which_there_are(tmp_path):
    with (
        LogStore.open(":memory:") as store,
        pytest.raises(LogSchemaError, match=r"to a .parquet or a .jsonl"),
    ):
        export_logs(store, tmp_path / "logs.csv")


def test_export_when_the_folder_is_a_file_then_says_so(tmp_path):
    (tmp_path / "file").touch()
    with LogStore.open(":memory:") as store, pytest.raises(LogStoreError, match="could not be written"):
        export_logs(store, tmp_path / "file" / "logs.jsonl")


def test_export_when_there_are_no_records_then_importing_them_adds_none(tmp_path):
    with LogStore.open(":memory:") as store:
        assert export_logs(store, tmp_path / "logs.jsonl") == 0
        assert import_logs("fusion", tmp_path / "logs.jsonl", store).n_rows == 0


def test_import_when_a_store_takes_its_own_export_with_a_key_in_it_then_knows_the_record(
    tmp_path, make_record
):
    with LogStore.open(":memory:") as store:
        store.add([make_record(0, response="Use sk-abcdefghijklmnopqrstuvwx.")])
        export_logs(store, tmp_path / "logs.jsonl")

        report = import_logs("fusion", tmp_path / "logs.jsonl", store)

    assert (report.n_known, report.n_quarantined) == (1, 0)


def test_export_when_it_fails_half_way_then_the_old_file_stays(tmp_path, make_record):
    path = tmp_path / "logs.jsonl"
    path.write_text("old")
    with LogStore.open(tmp_path / "logs.sqlite") as store:
        store.add([make_record(i) for i in range(3)])
        with store._database.write() as connection:
            connection.exec_driver_sql("UPDATE records SET propensity = 7 WHERE record_id = 'r2'")

        with pytest.raises(LogStoreError, match="damaged at record 'r2'"):
            export_logs(store, path)

    assert path.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["logs.jsonl", "logs.sqlite"]


def test_import_of_lines_when_some_are_no_records_then_they_are_set_aside(tmp_path, make_record):
    path = tmp_path / "logs.jsonl"
    with LogStore.open(":memory:") as store:
        store.add([make_record(0)])
        export_logs(store, path)
    good = path.read_text()
    entry = json.loads(good)
    bad = [
        entry | {"record_id": "r1", "propensity": 7},
        entry | {"record_id": "r2", "colour": "red"},
        entry | {"record_id": "r3", "scores": [{"kind": "judge"}]},
        entry | {"record_id": "r4", "scores": "none"},
        {"record_id": "r5"},
    ]
    path.write_text(good + "".join(json.dumps(line) + "\n" for line in bad) + "{half a li")

    with LogStore.open(":memory:") as store:
        report = import_logs("fusion", path, store)

    assert (report.n_added, report.n_quarantined) == (1, 6)
    reasons = [json.loads(line)["reason"] for line in report.quarantine.read_text().splitlines()]
    assert "propensity" in reasons[0]
    assert "colour" in reasons[1]
    assert "scorer" in reasons[2]
    assert reasons[3] == "scores: not a list of objects"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["record_id", "messages", "scores", "created_at", "query_id", "eligible", "propensity"]
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(FIELDS, JSON, max_size=3))
def test_import_of_lines_when_fields_are_anything_then_each_row_is_added_or_set_aside(
    tmp_path, make_record, make_score, changes
):
    path = tmp_path / "logs.jsonl"
    with LogStore.open(":memory:") as store:
        store.add([make_record(0)], [make_score()])
        export_logs(store, path)
    good = path.read_text()
    path.write_text(good + json.dumps(json.loads(good) | changes) + "\n")

    with LogStore.open(":memory:") as store:
        report = import_logs("fusion", path, store)

        assert report.n_rows == 2
        assert report.n_added + report.n_quarantined + sum(report.n_dropped.values()) == 2
        assert "r0" in store.known(["r0"])
