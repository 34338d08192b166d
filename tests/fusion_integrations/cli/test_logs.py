from __future__ import annotations

import json

import pytest

from fusion_integrations.logs.store import LogStore

TABLE = """question,who,reply,ok,usd
What is 3 + 4?,small,7,1,0.001
What is 3 + 4?,large,seven,0,0.003
Name a fish.,small,cod,,
 ,small,nothing,1,0.001
"""
MAPPING = ("query=question", "candidate=who", "response=reply", "performance=ok", "cost_usd=usd")


def importing(path, store, *mapping):
    return (
        "logs",
        "import",
        "table",
        path,
        "--store",
        store,
        *(x for pair in mapping for x in ("--map", pair)),
    )


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text(TABLE)
    return path


def test_import_table_when_run_twice_adds_rows_once_and_sets_bad_ones_aside(fusion, table, tmp_path):
    command = importing(table, tmp_path / "logs.sqlite", *MAPPING)

    first, second = fusion(*command), fusion(*command, "--json")

    assert "Read 4 rows of source 'calls.csv': 3 added" in first.stdout
    assert f"1 rows could not be used; '{table}.quarantine.jsonl' says why of each." in first.stdout
    document = json.loads(second.stdout)
    assert (document["n_added"], document["n_known"], document["n_quarantined"]) == (0, 3, 1)
    assert document["quarantine"] == f"{table}.quarantine.jsonl"


def test_import_table_when_source_assignment_and_quarantine_are_given_uses_them(fusion, table, tmp_path):
    aside, store = tmp_path / "aside.jsonl", tmp_path / "logs.sqlite"
    command = importing(table, store, *MAPPING)
    fusion(*command, "--source", "app", "--assignment", "user", "--quarantine", aside)
    with LogStore.open(store, create=False) as log_store:
        records = list(log_store.records())
    assert {(record.source, record.assignment) for record in records} == {("app", "user")}
    assert aside.exists()


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (["query=question", "candidate=nobody"], "has no column 'nobody'"),
        (["query=question"], "Map candidate or model"),
        (["query=question", "candidate=who", "answer=reply"], "--map knows no field 'answer'. Known: query"),
        (["query"], "--map needs FIELD=COLUMN, got 'query'."),
        (["query=question", "query=who"], "--map gives two columns for 'query': 'question' and 'who'."),
        (["query=ok", "candidate=who", "performance=reply"], "None of the 4 rows could be used"),
    ],
)
def test_import_table_when_the_mapping_is_wrong_exits_1_and_says_why(mapping, says, fusion, table, tmp_path):
    result = fusion(*importing(table, tmp_path / "logs.sqlite", *mapping))
    assert result.exit_code == 1
    assert says in result.stderr


def test_import_table_when_the_file_is_missing_exits_1(fusion, tmp_path):
    result = fusion(*importing(tmp_path / "none.csv", tmp_path / "logs.sqlite", *MAPPING))
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


def test_import_when_rows_are_dropped_or_malformed_then_the_report_counts_each_kind(fusion, tmp_path):
    path = tmp_path / "log.jsonl"
    payload = {
        "id": "1",
        "call_type": "completion",
        "model": "small",
        "messages": [{"role": "user", "content": "Hi"}],
        "response": "Hello.",
    }
    rows = [payload, payload, payload | {"id": "2", "cache_hit": True}, payload | {"id": "3", "model": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("logs", "import", "litellm", path, "--store", tmp_path / "logs.sqlite")

    text = fusion(*command).stdout
    document = json.loads(fusion(*command, "--json").stdout)

    assert "Read 4 rows of source 'litellm': 1 added" in text
    assert "1 rows dropped: answered from a cache." in text
    assert "1 rows dropped: duplicate row." in text
    assert f"1 rows could not be used; '{path}.quarantine.jsonl' says why of each." in text
    assert (document["n_added"], document["n_known"]) == (0, 1)
    assert document["n_dropped"] == {"answered from a cache": 1, "duplicate row": 1}


def test_import_when_strict_then_stops_at_the_first_malformed_row_and_keeps_those_before(fusion, tmp_path):
    path, store = tmp_path / "calls.csv", tmp_path / "logs.sqlite"
    path.write_text("q,m\nHi,small\n ,small\nBye,small\n")

    result = fusion(*importing(path, store, "query=q", "model=m"), "--strict")

    assert result.exit_code == 1
    assert "Row 2 cannot be used: The query has no text" in " ".join(result.stderr.split())
    assert not (tmp_path / "calls.csv.quarantine.jsonl").exists()
    with LogStore.open(store, create=False) as log_store:
        assert log_store.stats().n_records == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("langsmith", "--map", "query=q", "--map", "model=m"), "takes no mapping of columns"),
        (("table",), "needs a mapping of columns"),
        (("langsmith", "--join", "x"), "takes no second file"),
        (("openai-batch",), "needs the input file of the batch as second file"),
    ],
)
def test_import_when_an_option_does_not_fit_the_format_then_exits_1_and_says_so(
    arguments, says, fusion, table, tmp_path
):
    name, *options = arguments

    result = fusion("logs", "import", name, table, "--store", tmp_path / "logs.sqlite", *options)

    assert result.exit_code == 1
    assert says in " ".join(result.stderr.split())


def test_stats_when_logs_are_partial_counts_and_averages_what_is_known(fusion, table, tmp_path):
    store = tmp_path / "logs.sqlite"
    fusion(*importing(table, store, *MAPPING))

    document = json.loads(fusion("logs", "stats", store, "--json").stdout)

    small = next(row for row in document["candidates"] if row["candidate_id"] == "small")
    assert (small["n_records"], small["n_performance"], small["mean_performance"]) == (2, 1, 1.0)
    assert (document["n_records"], document["n_queries"], document["n_scored"]) == (3, 2, 2)
    assert (document["cost_usd"], document["n_unknown_cost"]) == (0.004, 1)
    text = fusion("logs", "stats", store).stdout
    assert "3 records: 2 queries, 0 named tasks, 2 candidates; 2 scored, 0 failed." in text
    assert "0.004000 USD and 1 answers of unknown cost" in text
    assert "judge score" not in text


def test_stats_when_logs_are_exported_reads_the_file(fusion, logs_path):
    document = json.loads(fusion("logs", "stats", logs_path, "--json").stdout)
    assert (document["n_records"], document["n_tasks"], document["n_candidates"]) == (120, 2, 3)


def test_stats_when_the_demo_is_named_reads_its_whole_log(fusion):
    document = json.loads(fusion("logs", "stats", "demo", "--json").stdout)
    assert document["n_queries"] == 1280


def test_stats_when_the_store_is_empty_shows_zeros(fusion, tmp_path):
    LogStore.open(tmp_path / "logs.sqlite").close()
    result = fusion("logs", "stats", tmp_path / "logs.sqlite")
    assert result.exit_code == 0
    assert result.stdout.startswith("0 records: 0 queries")


def test_stats_when_there_is_no_store_exits_1_and_makes_none(fusion, tmp_path):
    result = fusion("logs", "stats", tmp_path / "none.sqlite")
    assert result.exit_code == 1
    assert "There is no log store" in result.stderr
    assert not list(tmp_path.iterdir())
