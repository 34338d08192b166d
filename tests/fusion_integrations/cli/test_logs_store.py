"""The verbs that keep a store in order: export, split, dedupe, prune, migrate."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from fusion_integrations.logs.migrations import migrate_store
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Message


@pytest.fixture
def store(tmp_path):
    """Path of a store: twelve queries of two sources and one month each, every other answer scored."""
    path = tmp_path / "logs.sqlite"
    records = [
        LogRecord(
            record_id=f"r{i}",
            messages=(
                Message(role="user", content=f"Name a {['fish', 'bird', 'tree', 'rock'][i % 4]} like {i}."),
            ),
            candidate_id="small" if i % 2 else "large",
            task="names",
            response=f"Answer {i}",
            session_id=f"s{i % 3}",
            created_at=datetime(2026, 1 + i % 2, 1 + i, tzinfo=UTC),
            source="app" if i < 6 else "trace",
        )
        for i in range(12)
    ]
    scores = [
        Score(
            record_id=f"r{i}",
            kind="judge",
            scorer="j",
            version="1",
            value=0.5,
            reason="so so",
            created_at=records[i].created_at,
        )
        for i in range(0, 12, 2)
    ]
    with LogStore.open(path) as log_store:
        log_store.add(records, scores)
    return path


def _ids(path):
    with LogStore.open(path, create=False) as log_store:
        return [record.record_id for record in log_store.records()]


def test_export_when_options_choose_then_writes_those(fusion, store, tmp_path):
    table, lines = tmp_path / "logs.parquet", tmp_path / "logs.jsonl"

    said = fusion("logs", "export", store, table, "--since", "2026-02-01", "--source", "app").stdout
    document = json.loads(
        fusion("logs", "export", store, lines, "--until", "2026-01-06T00:00:00+00:00", "--json").stdout
    )

    assert said == f"Wrote 3 records to '{table}'.\n"
    assert pl.read_parquet(table)["record_id"].to_list() == ["r1", "r3", "r5"]
    assert document == {"path": str(lines), "n_records": 3}
    exported = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["record_id"] for line in exported] == ["r0", "r2", "r4"]
    assert exported[0]["scores"][0]["reason"] == "so so"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("logs.csv",), "Export to a .parquet or a .jsonl file"),
        (("logs.parquet", "--since", "yesterday"), "--since needs a date or time as in 2026-01-31"),
        (("nowhere/logs.jsonl",), "could not be written"),
    ],
)
def test_export_when_it_cannot_then_says_why(fusion, store, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = fusion("logs", "export", store, *arguments)

    assert says in " ".join(result.stderr.split())


def test_split_when_done_then_parts_share_no_question(fusion, store, tmp_path):
    document = json.loads(
        fusion("logs", "split", store, tmp_path / "parts", "--test-share", "0.4", "--json").stdout
    )

    train, test = (pl.read_parquet(tmp_path / "parts" / f"{name}.parquet") for name in ("train", "test"))
    assert train.height + test.height == 12
    keys = [{duplicate_key(text) for text in part["query_text"]} for part in (train, test)]
    assert not keys[0] & keys[1]
    assert document["test"] == {
        "path": str(tmp_path / "parts" / "test.parquet"),
        "n_records": test.height,
        "n_queries": test.height,
    }
    assert test.height == 3  # of four groups of three queries the one that fits into 0.4 x 12 rows
    assert "judge_score" in test.columns


def test_dedupe_when_two_sources_report_a_call_then_one_record_stays(fusion, store):
    with LogStore.open(store) as log_store:
        first = next(iter(log_store.records()))
        twin = first.model_copy(update={"record_id": "twin", "source": "trace"})
        log_store.add([twin])

    said = fusion("logs", "dedupe", store, "--dry-run").stdout
    assert said == f"1 duplicates would be removed from '{store}'.\n"
    assert "twin" in _ids(store)
    document = json.loads(fusion("logs", "dedupe", store, "--json").stdout)

    assert document == {"store": str(store), "n_removed": 1, "n_duplicates": 1}
    assert _ids(store) == [f"r{i}" for i in range(12)]


def test_prune_when_conditions_are_given_then_removes_those_for_good(fusion, store):
    options = ("--session", "s1", "--session", "s2", "--candidate", "small")
    said = fusion("logs", "prune", store, *options, "--dry-run").stdout
    assert said == f"4 records would be removed from '{store}'.\n"
    assert len(_ids(store)) == 12

    document = json.loads(fusion("logs", "prune", store, *options, "--json").stdout)

    assert document == {"store": str(store), "n_removed": 4, "n_matching": 4}
    assert _ids(store) == ["r0", "r2", "r3", "r4", "r6", "r8", "r9", "r10"]
    assert b"Answer 11" not in store.read_bytes()


def test_prune_when_no_condition_is_given_then_refuses(fusion, store):
    result = fusion("logs", "prune", store)

    assert "Give at least one condition" in result.stderr
    assert len(_ids(store)) == 12


def test_migrate_when_the_store_is_older_then_brings_it_up_to_date(fusion, store):
    migrate_store(store, revision="0001")
    assert "fusion logs migrate" in fusion("logs", "stats", store).stderr

    said = fusion("logs", "migrate", store).stdout
    again = fusion("logs", "migrate", store).stdout
    back = json.loads(fusion("logs", "migrate", store, "--to", "0001", "--json").stdout)

    assert said.startswith(f"'{store}' went from revision 0001 to ")
    assert again.endswith(" already.\n")
    assert back["after"] == "0001"


@pytest.mark.parametrize("verb", ["export", "dedupe", "prune", "migrate"])
def test_verbs_when_there_is_no_store_then_say_so_and_make_none(fusion, tmp_path, verb):
    path = tmp_path / "absent.sqlite"
    arguments = {"export": [tmp_path / "logs.jsonl"], "prune": ["--task", "a"]}.get(verb, [])

    result = fusion("logs", verb, path, *arguments)

    assert "There is no log store at" in result.stderr
    assert not path.exists()


@pytest.mark.parametrize("verb", ["stats", "export", "dedupe", "prune", "migrate"])
def test_verbs_when_the_server_is_away_then_do_not_print_the_password(fusion, tmp_path, verb):
    url = "postgresql://me:s3cret@127.0.0.1:1/logs?sslpassword=s3cret"
    arguments = {"export": [tmp_path / "logs.jsonl"], "prune": ["--task", "a"]}.get(verb, [])

    result = fusion("logs", verb, url, *arguments)

    assert result.exit_code == 1
    assert "me:***@127.0.0.1" in result.stderr
    assert "s3cret" not in result.stdout + result.stderr
