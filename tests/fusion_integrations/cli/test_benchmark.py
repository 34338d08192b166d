"""`benchmark router`: every head on every table of a folder."""

from __future__ import annotations

import json

import polars as pl
import pytest

FRUITS = ("apple", "pear", "plum", "fig", "lime", "date", "nut", "grape", "kiwi", "melon")


def scores(n, *, llms=("a", "b"), word="plain"):
    """Sums that the first LLM solves and prose that the second does."""
    rows = []
    for i in range(n):
        fruit = FRUITS[i % 10] + FRUITS[i // 10]
        for task, text in (("sums", f"add {fruit} sum {word}"), ("prose", f"write {fruit} story {word}")):
            for llm in llms:
                solved = (task == "sums") == (llm == llms[0])
                rows.append(
                    {
                        "query_id": f"{task}{i}",
                        "query": text,
                        "llm": llm,
                        "task": task,
                        "performance": float(solved),
                        "cost": 1.0 if llm == llms[0] else 2.0,
                        "ignored": "x",
                    }
                )
    return pl.DataFrame(rows)


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    scores(20).write_parquet(data / "first.parquet")
    scores(20, llms=("c", "d")).write_parquet(data / "second.parquet")
    return data


@pytest.fixture
def measure(fusion):
    def run(*more):
        command = ("benchmark", "router", "--embedder", "hash", "--head", "cluster", "--folds", "2")
        return fusion(*command, "--threads", "1", *more)

    return run


def test_benchmark_measures_every_file_and_writes_what_it_shows(measure, folder, tmp_path):
    out = tmp_path / "results.json"
    result = measure("--data", folder, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert json.loads(out.read_text()) == document
    assert [report["name"] for report in document["reports"]] == ["first", "second"]
    for report in document["reports"]:
        assert [row["strategy"] for row in report["rows"]][-1] == "cluster"
        assert report["n_queries"] == 40
        assert report["queries"] == []


def test_benchmark_shows_tables_for_people(measure, folder):
    shown = measure("--data", folder / "first.parquet").stdout
    assert "Routers that learned from other queries" in shown
    assert "first: what performance costs" in shown
    assert "2 folds, near-duplicates together" in " ".join(shown.split())


def test_benchmark_when_shares_are_asked_for_measures_each(measure, folder):
    scores(40).write_parquet(folder / "first.parquet")
    result = measure("--data", folder / "first.parquet", "--answers", "one", "--answers", "0.5", "--json")
    reports = json.loads(result.stdout)["reports"]
    assert [report["name"] for report in reports] == ["first, answers one", "first, answers 0.5"]
    assert [report["answers"] for report in reports] == ["one a query", "50%"]


def test_benchmark_when_told_splits_by_task(measure, folder):
    reports = json.loads(measure("--data", folder, "--split", "tasks", "--json").stdout)["reports"]
    assert {report["split"] for report in reports} == {"each task predicted from all others"}


def test_benchmark_on_other_files_learns_from_those_with_common_llms(measure, folder, tmp_path):
    test = tmp_path / "test"
    test.mkdir()
    scores(10, word="unseen").write_parquet(test / "new.parquet")
    (report,) = json.loads(measure("--data", folder, "--test", test, "--json").stdout)["reports"]
    assert (report["name"], report["split"], report["n_queries"]) == ("new", "trained on another log", 20)
    assert list(report["candidates"]) == ["a", "b"]


def test_benchmark_on_a_file_of_strange_llms_refuses(measure, folder, tmp_path):
    scores(10, llms=("a", "z")).write_parquet(tmp_path / "strange.parquet")
    result = measure("--data", folder, "--test", tmp_path / "strange.parquet")
    assert result.exit_code == 1
    assert "has two LLMs in common" in result.stderr
    assert "['a', 'z']" in result.stderr


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "two"])
def test_benchmark_when_a_share_is_none_refuses(share, measure, folder):
    result = measure("--data", folder, "--answers", share)
    assert result.exit_code == 1
    assert f"got '{share}'" in result.stderr


def test_benchmark_cross_validates_own_logs_from_a_store_and_its_export(measure, fusion, tmp_path):
    store, export, folder = tmp_path / "calls.sqlite", tmp_path / "all" / "calls.parquet", tmp_path / "all"
    folder.mkdir()
    scores(20).write_parquet(tmp_path / "table.parquet")
    fields = ("query=query", "candidate=llm", "performance=performance", "cost_usd=cost", "task=task")
    mapped = [part for field in fields for part in ("--map", field)]
    imported = fusion("logs", "import", "table", tmp_path / "table.parquet", "--store", store, *mapped)
    assert imported.exit_code == 0, imported.stderr
    assert fusion("logs", "export", store, export).exit_code == 0
    rows = []
    for source in (store, export, folder):
        result = measure("--data", source, "--json")
        assert result.exit_code == 0, result.stderr
        (report,) = json.loads(result.stdout)["reports"]
        assert (report["name"], report["n_queries"]) == ("calls", 40)
        rows.append([row["scenarios"] for row in report["rows"]])
    assert rows[0] == rows[1] == rows[2]
    assert measure("--data", store, "--test", export).exit_code == 1  # the same queries on both sides


def test_benchmark_of_the_demo_learns_from_its_training_part_if_measured_on_the_other(measure):
    result = measure("--data", "demo", "--test", "demo", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["reports"][0]["split"] == "trained on another log"


def test_benchmark_when_there_are_no_files_refuses(measure, tmp_path):
    result = measure("--data", tmp_path)
    assert result.exit_code == 1
    assert "holds no .parquet file" in result.stderr


def test_benchmark_when_results_cannot_be_written_refuses(measure, folder, tmp_path):
    result = measure("--data", folder / "first.parquet", "--out", tmp_path / "none" / "results.json")
    assert result.exit_code == 1
    assert "cannot be written: it is a folder, or its folder does not exist" in result.stderr


def test_benchmark_measures_the_other_files_when_one_cannot_be(measure, folder, tmp_path):
    (folder / "broken.parquet").write_bytes(b"PAR1 junk")
    (folder / "._first.parquet").write_bytes(b"a file system's own")
    pl.DataFrame({"price": [1]}).write_parquet(folder / "prices.parquet")
    scores(3).write_parquet(folder / "small.parquet")
    result = measure("--data", folder, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [report["name"] for report in document["reports"]] == ["first", "second"]
    broken, prices, small = sorted(document["skipped"].items())
    assert "cannot be read as Parquet" in broken[1]
    assert "lacks the columns" in prices[1]
    assert small[0] == "small"
    page = tmp_path / "page.html"
    shown = " ".join(measure("--data", folder, "--html", page).stdout.split())
    assert "Not measured: small: The logs hold" in shown
    assert f"Not measured: '{folder / 'prices.parquet'}' lacks the columns" in shown
    assert "Not measured: small: The logs hold" in page.read_text()


def test_benchmark_when_no_file_can_be_measured_gives_every_reason(measure, tmp_path):
    scores(3).write_parquet(tmp_path / "small.parquet")
    pl.DataFrame({"price": [1]}).write_parquet(tmp_path / "prices.parquet")
    result = measure("--data", tmp_path)
    assert result.exit_code == 1
    assert "None of the logs could be measured on." in result.stderr
    assert "lacks the columns" in result.stderr
    assert "small: The logs hold" in result.stderr


@pytest.mark.parametrize("side", ["data", "test"])
def test_benchmark_when_one_side_has_no_costs_measures_performance_alone(side, measure, tmp_path):
    for name in ("data", "test"):
        (tmp_path / name).mkdir()
        logs = scores(20 if name == "data" else 10, word=name)
        (logs.drop("cost") if name == side else logs).write_parquet(tmp_path / name / "log.parquet")
    result = measure("--data", tmp_path / "data", "--test", tmp_path / "test", "--json")
    assert result.exit_code == 0, result.stderr
    [report] = json.loads(result.stdout)["reports"]
    assert list(report["policies"]) == ["performance-first"]
    assert (report["n_queries"], report["is_estimated"]) == (20, False)


def test_benchmark_when_test_ids_look_like_training_ids_measures_them_all(measure, tmp_path):
    for name in ("data", "test"):
        (tmp_path / name).mkdir()
        logs = scores(20 if name == "data" else 10, word=name)
        logs = logs.with_columns(query_id="train:" + pl.col("query_id")) if name == "test" else logs
        logs.write_parquet(tmp_path / name / "log.parquet")
    result = measure("--data", tmp_path / "data", "--test", tmp_path / "test", "--json")
    assert result.exit_code == 0, result.stderr
    [report] = json.loads(result.stdout)["reports"]
    assert (report["n_queries"], report["n_left_out"]) == (20, 0)
