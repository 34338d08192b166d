"""The shipped log is what the running models say: rows are generated again and compared."""

from __future__ import annotations

from importlib import resources

import polars as pl
import pytest

from fusion_integrations.demo.candidates import BASE_CANDIDATES, DEMO_CANDIDATES, LEVEL_CANDIDATES
from fusion_integrations.demo.demo_log import (
    DEMO_COLLECTION,
    demo_log_origin,
    load_demo_logs,
    package_demo_log,
    split_demo_logs,
    teaching_logs,
)
from fusion_integrations.demo.models import DEMO_CLIENTS, weight_hashes
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.demo.thoughts import demo_prompter
from fusion_integrations.demo.walkthrough import compare_queries, draw_queries
from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.logs.store import LogStore
from fusion_integrations.scoring import METRICS, score


def test_log_when_loaded_then_levels_were_asked_all_but_the_queries_they_learned_from():
    logs, tasks = load_demo_logs(), generate_tasks()

    cells = set(logs.select("query_id", "candidate_id").iter_rows())

    expected = {(q.query_id, c.id) for q in tasks.train + tasks.test for c in BASE_CANDIDATES}
    expected |= {(q.query_id, c.id) for q in tasks.routing + tasks.test for c in LEVEL_CANDIDATES}
    assert cells == expected
    # 1280 queries x 3 candidates + (388 + 500) queries x 2 candidates
    assert logs.height == len(cells) == 5616
    assert logs["source"].unique().to_list() == [DEMO_COLLECTION]


def test_teaching_logs_when_taken_then_are_base_answers_to_teaching_queries_alone():
    lessons = teaching_logs(load_demo_logs())

    taught = {query.query_id for query in generate_tasks().teaching}
    assert set(lessons["query_id"]) == taught
    assert set(lessons["candidate_id"]) == {candidate.id for candidate in BASE_CANDIDATES}
    level_ids = [candidate.id for candidate in LEVEL_CANDIDATES]
    of_levels = load_demo_logs().filter(pl.col("candidate_id").is_in(level_ids))
    assert not taught & set(of_levels["query_id"])


def test_log_when_loaded_then_revisions_are_those_of_todays_prompts():
    logs = load_demo_logs()

    logged = dict(logs.select("candidate_id", "candidate_revision").unique().iter_rows())

    assert logged == {candidate.id: candidate.revision for candidate in DEMO_CANDIDATES}


def test_log_when_scored_again_then_no_score_changes():
    columns = ("response", "metric", "reference", "performance")

    changed = [
        row
        for row in load_demo_logs().select(columns).iter_rows(named=True)
        if score(row["response"], metric=row["metric"], reference=row["reference"]) != row["performance"]
    ]

    assert changed == []
    assert set(load_demo_logs()["metric"]) <= set(METRICS)


def test_split_when_applied_then_parts_are_disjoint_and_500_queries_are_held_out():
    train_logs, held_out = split_demo_logs(load_demo_logs())

    assert held_out["query_id"].n_unique() == 500
    assert train_logs["query_id"].n_unique() == 780
    assert not set(train_logs["query_id"]) & set(held_out["query_id"])


def test_package_when_answers_are_missing_then_says_how_many(tmp_path):
    with LogStore.open(tmp_path / "demo.sqlite"):
        pass

    with pytest.raises(NotEnoughLogsError, match="0 scored answers of 5616"):
        package_demo_log(tmp_path / "demo.sqlite", folder=tmp_path)


@pytest.mark.real_model
@pytest.mark.slow
def test_origin_when_weights_are_hashed_again_then_they_are_the_logged_ones():
    assert demo_log_origin()["weights_sha256"] == dict(weight_hashes())


@pytest.mark.real_model
@pytest.mark.slow
def test_log_when_random_queries_are_generated_again_then_answers_are_equal():
    logs = load_demo_logs()
    clients = {name: load(2) for name, load in DEMO_CLIENTS.items()}

    with LogStore.open(":memory:") as store:
        comparison = compare_queries(
            logs, clients, queries=draw_queries(5, seed=20), thoughts=demo_prompter(), store=store
        )

    # Greedy decoding repeats itself on one machine. Another processor rounds otherwise, and a near-tie
    # between two tokens can fall to the other side; more than a tenth of those would be something else.
    assert comparison.n_answers == 25
    assert comparison.n_identical >= 22


def test_log_file_when_read_then_small_enough_to_ship():
    content = resources.files("fusion_integrations.demo").joinpath("data", "demo_log.parquet").read_bytes()

    assert len(content) < 4 * 2**20
    assert pl.read_parquet(content).height == 5616
