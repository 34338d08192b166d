import json

import numpy as np
import pytest

from fusion_integrations.query_level.overlap import Overlap, measure_overlap
from fusion_integrations.query_level.query_kinds import kinds_by_task
from fusion_integrations.query_level.router_dataset import RouterDataset


def overlap_of(frame, kinds=None):
    dataset = RouterDataset.from_logs(frame)
    return measure_overlap(frame, dataset, kinds=kinds_by_task(dataset.tasks) if kinds is None else kinds)


def rows(n, *, of="a", start=0, **columns):
    return [{"q": f"query {start + i}", "c": of, "performance": 0.5, **columns} for i in range(n)]


def test_overlap_of_complete_logs_has_nothing_to_warn_of(logs):
    found = overlap_of(logs(*rows(30, propensity=1.0), *rows(30, of="b", propensity=1.0)))
    assert (found.n_queries, found.n_complete, found.n_certain) == (30, 30, 0)
    assert found.n_answers == {"a": 30, "b": 30}
    assert found.effective_answers == {"a": 30.0, "b": 30.0}
    assert found.warnings == ()


def test_overlap_of_deterministic_routing_is_none_and_says_what_to_do(logs):
    certain = {"assignment": "policy", "propensity": 1.0}
    found = overlap_of(logs(*rows(30, **certain), *rows(30, of="b", start=30, **certain)))
    assert (found.n_certain, found.n_complete) == (60, 0)
    assert found.certainty == found.warnings[0]
    assert "60 of 60 queries were routed with certainty" in found.certainty
    assert "exploration" in found.certainty


@pytest.mark.parametrize(
    "columns",
    [
        {"assignment": "policy", "propensity": 0.9},  # explored
        {"assignment": "factorial", "propensity": 1.0},  # a collection asked everybody it knew
        {"assignment": "user"},
    ],
)
def test_overlap_when_another_could_have_answered_has_no_certainty(columns, logs):
    found = overlap_of(logs(*rows(30, **columns), *rows(30, of="b", start=30, **columns)))
    assert (found.n_certain, found.certainty) == (0, "")


def test_certain_answers_beside_others_to_the_same_query_are_no_lack_of_overlap(logs):
    certain = {"assignment": "policy", "propensity": 1.0}
    assert overlap_of(logs(*rows(30, **certain), *rows(30, of="b"))).n_certain == 0


def test_overlap_warns_of_candidates_with_few_answers(logs):
    found = overlap_of(logs(*rows(30), *rows(19, of="b")))
    assert found.warnings == ("Fewer than 20 answers of ['b']: they are not chosen before there are more.",)


def test_overlap_warns_of_answers_that_are_worth_little(logs):
    # 29 answers of weight 1 / 0.95 and one of 1 / 0.05: (29 * 1.0526 + 20)^2 / (29 * 1.108 + 400) = 5.9.
    common = {"assignment": "policy"}
    frame = logs(
        *rows(29, propensity=0.95, **common),
        *rows(1, start=29, propensity=0.05, **common),
        *rows(30, of="b", start=50, propensity=0.5, **common),
    )
    found = overlap_of(frame)
    assert found.effective_answers["a"] == pytest.approx(5.9, abs=0.05)
    assert found.effective_answers["b"] == pytest.approx(30.0)
    assert found.warnings == ("Weighted by how unlikely they were, the answers are worth few: a (6).",)


def test_overlap_warns_of_answers_that_count_for_less_than_their_rarity(logs):
    common = {"assignment": "policy"}
    frame = logs(*rows(30, propensity=0.98, **common), *rows(30, of="b", start=50, propensity=0.02, **common))
    found = overlap_of(frame)
    assert found.n_rare == 30
    assert any("30 answers were logged with a probability below 0.05" in each for each in found.warnings)


@pytest.mark.parametrize(("n_hard", "avoided"), [(0, {"a": ["hard"]}), (5, {"a": ["hard"]}), (60, {})])
def test_overlap_warns_of_candidates_that_hardly_answered_a_task(n_hard, avoided, logs):
    found = overlap_of(
        logs(
            *rows(40, task="easy"),
            *rows(n_hard, start=40, task="hard"),
            *rows(40, of="b", task="easy"),
            *rows(60, of="b", start=40, task="hard"),
        )
    )
    assert found.avoided == avoided
    assert [("'a' hardly answered ['hard']" in warning) for warning in found.warnings] == [True] * len(
        avoided
    )


def test_overlap_names_kinds_without_a_task_by_their_share(logs):
    frame = logs(*rows(40), *rows(100, of="b"))
    dataset = RouterDataset.from_logs(frame)
    kinds = np.isnan(dataset.performance).any(axis=1).astype(np.intp)  # 60 of 100, which `a` was not asked
    found = overlap_of(frame, kinds)
    assert found.avoided == {"a": ["60% of the queries, of no common task"]}
    assert "'a' hardly answered ['60% of the queries, of no common task']" in found.assumptions[0]


def test_overlap_as_json_holds_its_warnings():
    found = Overlap(n_queries=2, n_complete=0, n_certain=2, effective_answers={"a": 2.0}, n_answers={"a": 2})
    data = json.loads(json.dumps(found.to_json()))
    assert data["n_certain"] == 2
    assert len(data["warnings"]) == 2
