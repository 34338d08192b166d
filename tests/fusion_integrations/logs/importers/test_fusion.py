import polars as pl
import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.frame import write_parquet
from fusion_integrations.logs.importers import import_logs
from fusion_integrations.logs.store import LogStore


def test_import_when_stores_overlap_then_they_merge(tmp_path, make_record, make_score):
    path = tmp_path / "theirs.parquet"
    with LogStore.open(":memory:") as theirs:
        theirs.add([make_record(0), make_record(1)], [make_score("r0"), make_score("r1", value=0.5)])
        write_parquet(theirs.to_frame(), path)

    with LogStore.open(":memory:") as ours:
        ours.add([make_record(0)], [make_score("r0", value=0.25)])
        report = import_logs("fusion", path, ours)

        assert (report.n_added, report.n_known, report.n_quarantined) == (1, 1, 0)
        assert list(ours.records()) == [make_record(0), make_record(1)]
        assert ours.to_frame()["performance"].to_list() == [0.25, 0.5]


def test_import_when_a_row_is_no_record_then_it_is_quarantined(tmp_path, make_record):
    path = tmp_path / "theirs.parquet"
    with LogStore.open(":memory:") as store:
        store.add([make_record(0), make_record(1)])
        frame = store.to_frame()
    write_parquet(frame.with_columns(propensity=pl.Series([2.0, 0.5])), path)

    with LogStore.open(":memory:") as store:
        report = import_logs("fusion", path, store)

    assert (report.n_added, report.n_quarantined) == (1, 1)
    assert "propensity" in (tmp_path / "theirs.parquet.quarantine.jsonl").read_text()


@pytest.mark.parametrize(
    ("columns", "reason"), [({"a": [1]}, "has no column 'record_id'"), ({}, "has no column 'record_id'")]
)
def test_import_when_the_file_is_another_table_then_raises(tmp_path, columns, reason):
    path = tmp_path / "theirs.parquet"
    pl.DataFrame(columns).write_parquet(path)

    with LogStore.open(":memory:") as store, pytest.raises(LogSchemaError, match=reason):
        import_logs("fusion", path, store)
