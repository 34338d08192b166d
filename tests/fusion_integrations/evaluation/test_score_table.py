from datetime import timedelta

import polars as pl
import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.evaluation.score_table import read_score_table, score_tables_in
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.testing import tiny_logs

ROWS = {
    "query_id": [1, 1, 2],
    "query": ["one?", "one?", "two?"],
    "llm": ["a", "b", "a"],
    "performance": [1, 0, 1],
    "cost": [0.5, None, 0.25],
    "split": ["x", "y", "z"],
}


@pytest.fixture
def write(tmp_path):
    def make(**columns):
        path = tmp_path / "scores.parquet"
        data = {name: values for name, values in {**ROWS, **columns}.items() if values is not None}
        pl.DataFrame(data, strict=False).write_parquet(path)
        return path

    return make


def test_table_becomes_logs_whatever_other_columns_it_has(write):
    frame = read_score_table(write())
    assert frame.schema == LOG_SCHEMA
    dataset = RouterDataset.from_logs(frame)
    assert [candidate.model for candidate in dataset.candidates] == ["a", "b"]
    assert dataset.query_ids == ("1", "2")
    assert dataset.performance[0].tolist() == [1.0, 0.0]
    assert dataset.cost_usd[:, 0].tolist() == [0.5, 0.25]


def test_rows_without_a_score_are_left_out(write):
    frame = read_score_table(write(performance=[1.0, None, float("nan")]))
    assert frame["candidate_id"].to_list() == ["a"]


def test_amounts_that_are_no_number_are_unknown(write):
    frame = read_score_table(write(output_tokens=[3.0, float("nan"), None]))
    assert frame["output_tokens"].to_list() == [3, None, None]


@pytest.mark.parametrize(
    ("columns", "remark"),
    [
        ({"judge_score": ["good", "bad", None]}, "'judge_score' is of another type"),
        ({"task": [["a", "b"], ["c"], []]}, "'task' is of another type"),
        ({"latency_s": [timedelta(seconds=1)] * 3}, "'latency_s' is of another type"),
    ],
)
def test_optional_column_of_another_type_is_not_read_and_said_so(columns, remark, write, caplog):
    assert read_score_table(write(**columns)).equals(read_score_table(write()))
    assert remark in caplog.text


def test_cost_in_usd_is_read_rather_than_a_cost_beside_it(write, caplog):
    frame = read_score_table(write(cost_usd=[1.0, 2.0, 3.0]))
    assert frame["cost_usd"].to_list() == [1.0, 2.0, 3.0]
    assert "'cost_usd' is read, 'cost' beside it is not" in caplog.text


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"llm": None}, r"lacks the columns \['llm'\]"),
        ({"performance": ["good", "bad", "bad"]}, "'performance' is of another type"),
        ({"llm": [["a"], ["b"], ["a"]]}, "'llm' is of another type"),
        ({"query": ["one?", None, "two?"]}, "1 scored rows"),
        (
            {"query_id": ["1", "1", "1"], "query": ["one?", "two?", "one?"]},
            "such as '1'. Give each query an id",
        ),
    ],
)
def test_table_when_it_is_wrong_is_refused(columns, match, write):
    with pytest.raises(LogSchemaError, match=match):
        read_score_table(write(**columns))


def test_exported_logs_are_read_as_they_are_but_for_columns_of_others(tmp_path):
    path, logs = tmp_path / "calls.parquet", tiny_logs()
    logs.with_columns(mine=pl.lit("x")).write_parquet(path)
    assert read_score_table(path).equals(logs)
    logs.drop("session_id").write_parquet(path)
    with pytest.raises(LogSchemaError, match="'session_id' is missing"):
        read_score_table(path)


def test_table_when_it_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("no table")
    with pytest.raises(LogSchemaError, match="cannot be read as Parquet"):
        read_score_table(path)


def test_tables_of_a_folder_are_sorted_and_a_file_stands_for_itself(write, tmp_path):
    path = write()
    (tmp_path / "a.parquet").write_bytes(path.read_bytes())
    assert [found.name for found in score_tables_in(tmp_path)] == ["a.parquet", "scores.parquet"]
    assert score_tables_in(path) == [path]
    (tmp_path / "z.PARQUET").write_bytes(path.read_bytes())
    assert score_tables_in(tmp_path)[-1].name == "z.PARQUET"
    with pytest.raises(LogSchemaError, match="does not exist"):
        score_tables_in(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogSchemaError, match=r"holds no \.parquet file"):
        score_tables_in(tmp_path / "empty")
