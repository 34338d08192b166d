import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import import_logs

ROW = {
    "sample_id": "geo.1",
    "prompt": "['Answer in one word.', 'Capital of Norway?']",
    "eval_name": "geography",
    "small": 1.0,
    "large": 0.0,
    "small|model_response": "['Oslo']",
    "large|model_response": "Bergen",
    "small|total_cost": 0.001,
    "large|total_cost": 0.002,
    "oracle_model_to_route_to": "small",
}


def test_import_when_a_row_is_wide_then_every_model_has_a_record(tmp_path, store, samples):
    report = import_logs("routerbench", samples.table(tmp_path / "log.csv", [ROW]), store)

    assert (report.n_rows, report.n_added) == (2, 2)
    columns = ("candidate_id", "query_text", "response", "cost_usd", "performance", "task")
    query = "Answer in one word.\nCapital of Norway?"
    assert sorted(store.to_frame().select(columns).rows()) == [
        ("large", query, "Bergen", 0.002, 0.0, "geography"),
        ("small", query, "Oslo", 0.001, 1.0, "geography"),
    ]


def test_import_when_one_models_cells_are_malformed_then_the_others_arrive(tmp_path, store, samples):
    row = ROW | {"large|total_cost": "cheap"}

    report = import_logs("routerbench", samples.table(tmp_path / "log.csv", [row]), store)

    assert (report.n_added, report.n_quarantined) == (1, 1)
    assert "large: total_cost: not a number, got 'cheap'" in report.quarantine.read_text()


@pytest.mark.parametrize("name", ["routerbench_0shot.pkl", "log.PICKLE"])
def test_import_when_the_file_is_a_pickle_then_it_is_not_opened(tmp_path, store, name):
    with pytest.raises(LogSchemaError, match="runs code when it is read: it is not opened"):
        import_logs("routerbench", tmp_path / name, store)


def test_import_when_the_table_has_no_models_then_the_row_says_so(tmp_path, store, samples):
    report = import_logs("routerbench", samples.table(tmp_path / "log.csv", [{"prompt": "Hi"}]), store)

    assert report.n_quarantined == 1
