import json

import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import CachingEmbedder, HashEmbedder
from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.evaluation import benchmark_routers, render_benchmark
from fusion_integrations.evaluation.benchmark_arena import measurable, prepare_arena
from fusion_integrations.evaluation.cross_validation import CURVE_WEIGHTS, route_by_others
from fusion_integrations.logs.frame import LOG_SCHEMA

EMBEDDER = CachingEmbedder(HashEmbedder(dimensions=64))
FRUITS = ("apple", "pear", "plum", "fig", "lime", "date", "nut", "grape", "kiwi", "melon")
PLACES = ("river", "harbour", "forest", "desert", "island", "valley", "meadow", "town", "cave", "lake")


def logs_of(n_per_task=25, *, costs=(1.0, 2.0), families=False):
    """Sums that `a` always solves and prose that `b` does; what is not solved scores 0."""
    rows = []
    for i in range(n_per_task):
        fruit, place = FRUITS[i % 10], PLACES[i % 10]
        texts = {
            "sums": f"how many {fruit} plus {FRUITS[(i // 10 + 3) % 10]} sum {'more ' * (i // 10)}",
            "prose": f"write story {place} near {PLACES[(i // 10 + 3) % 10]} gentle {'long ' * (i // 10)}",
        }
        for task, text in texts.items():
            for name, good_at, cost in (("a", "sums", costs[0]), ("b", "prose", costs[1])):
                rows.append(
                    dict.fromkeys(LOG_SCHEMA)
                    | {
                        "record_id": f"{task}{i}{name}",
                        "query_id": f"{task}{i}",
                        "query_text": text,
                        "task": f"{task}/{i % 2}" if families else task,
                        "candidate_id": name,
                        "model": name,
                        "prompt_mode": "direct",
                        "cost_usd": cost,
                        "performance": float(task == good_at),
                    }
                )
    return pl.DataFrame(rows, schema=LOG_SCHEMA)


def hidden(frame, *, seed=0):
    """Keep one random answer a query."""
    return frame.sample(fraction=1.0, shuffle=True, seed=seed).unique(
        "query_id", keep="first", maintain_order=True
    )


def run(frame, **settings):
    return benchmark_routers(
        "sample",
        frame,
        **{"heads": ["cluster"], "embedder": EMBEDDER, "n_threads": 1, "n_folds": 3} | settings,
    )


@pytest.fixture(scope="module")
def report():
    return run(logs_of())


def row_of(report, name):
    return next(row for row in report.rows if row.strategy == name)


def test_report_holds_the_numbers_worked_by_hand(report):
    assert [row.strategy for row in report.rows] == [
        "Random",
        "Best Single",
        "Best per Task",
        "Oracle",
        "cluster",
    ]
    # Each candidate solves half, costs 1 and 2 USD; the right one for each costs 1.5.
    assert report.candidates == {"a": 0.5, "b": 0.5}
    assert report.candidate_costs == {"a": 1.0, "b": 2.0}
    assert (row_of(report, "Random").first.performance, row_of(report, "Random").first.cost_usd) == (0.5, 1.5)
    for name in ("Best per Task", "Oracle"):
        assert (row_of(report, name).first.performance, row_of(report, name).first.cost_usd) == (1.0, 1.5)
    assert (report.n_queries, report.n_left_out, report.is_estimated) == (50, 0, False)
    assert report.tasks == {"prose": 25, "sums": 25}
    # balance: 0.5 p - 0.5 c / 2 USD. Oracle: a on sums 0.25, on prose b has 0, a -0.25: 0.125.
    assert row_of(report, "Oracle").scenarios["balance"].reward == pytest.approx(0.125)


def test_head_that_tells_tasks_apart_is_better_than_best_single(report):
    head = row_of(report, "cluster")
    assert head.first.performance > 0.9
    assert report.verdict(head) == "better"
    assert head.per_task["sums"] > 0.9
    assert head.head.unbounded.performance > 0.9
    assert 0.3 < head.head.switch_share < 0.7
    assert list(head.head.pairs) == ["prose", "sums"]  # over all queries there is no gap
    assert sum(each.n for each in head.head.reliability) == 100
    assert sum(head.candidate_shares.values()) == pytest.approx(1.0)


def test_head_offers_the_performance_of_best_single_for_its_cost_or_less(report):
    curve = row_of(report, "cluster").head.cost_quality
    assert len(curve.points) == len(CURVE_WEIGHTS) + 1
    assert curve.points[len(CURVE_WEIGHTS) - 1] == (1.0, 0.5)  # at a cost weight of 0.99 always the cheap one
    assert 0.5 < curve.aiq <= 1.0
    assert curve.cost_at_best_single <= 1.0


def test_queries_are_told_only_if_asked_for(report):
    data = report.to_json()
    assert data["queries"] == []
    assert json.loads(json.dumps(data, allow_nan=False))["rows"][4]["verdict"] == "better"
    told = report.to_json(with_queries=True)["queries"]
    assert len(told) == 50
    assert set(told[0]["chosen"]) == {"cluster"}
    assert sorted(told[0]["performance"].values()) == [0.0, 1.0]


def test_tables_show_every_row_and_the_facts(report):
    titles = [str(table.title) for table in render_benchmark([report])]
    assert titles == [
        "Routers that learned from other queries",
        "The heads behind them",
        "sample: what performance costs",
        "sample: which queries need the stronger model",
    ]
    summary, _, costs, _ = render_benchmark([report])
    assert summary.row_count == 6  # the log's name, then its rows
    assert "outcomes are looked up; 0 queries left out; 95% intervals" in str(summary.caption)
    assert "Cost weights: balance 0.5, cost-first 0.8." in str(costs.caption)


def test_logs_without_cost_are_measured_by_performance_alone():
    report = run(logs_of(costs=(None, None)))
    assert list(report.policies) == ["performance-first"]
    assert row_of(report, "cluster").head.cost_quality is None
    assert row_of(report, "Oracle").first.cost_usd is None
    assert len(render_benchmark([report])) == 3


@pytest.mark.parametrize("costs", [(1.0, None), (0.0, 0.0)])
def test_logs_whose_costs_cannot_be_weighed_are_measured_by_performance_alone(costs):
    report = run(logs_of(costs=costs))
    assert list(report.policies) == ["performance-first"]
    json.dumps(report.to_json(), allow_nan=False)


def test_logs_whose_candidates_cost_the_same_or_nothing_have_a_curve():
    same = row_of(run(logs_of(costs=(1.0, 1.0))), "cluster").head.cost_quality
    assert same.aiq > 0.9
    free = run(logs_of(costs=(0.0, 1.0)))
    assert json.dumps(free.to_json(), allow_nan=False)


def test_partial_logs_are_estimated_without_an_oracle():
    report = run(hidden(logs_of(60)))
    assert report.is_estimated
    assert [row.strategy for row in report.rows] == ["Random", "Best Single", "Best per Task", "cluster"]
    assert report.n_queries == 120
    # Truth 0.5 and 1: one of two random answers, so that single values lie within [-1, 2].
    assert report.candidates["a"] == pytest.approx(0.5, abs=0.15)
    assert row_of(report, "Best per Task").first.performance == pytest.approx(1.0, abs=0.15)
    assert "doubly robust estimates" in str(render_benchmark([report])[0].caption)


def test_router_that_sees_one_answer_a_query_still_learns():
    report = run(logs_of(60), answers="one")
    assert report.answers == "one a query"
    assert row_of(report, "cluster").first.performance > 0.8


def test_log_to_learn_from_is_not_measured_on_and_shares_no_near_duplicate():
    train, test = logs_of(25), logs_of(10)
    other = test.with_columns(query_text=pl.col("query_text") + " unseen")
    report = run(other, train=train)
    assert (report.split, report.n_queries) == ("trained on another log", 20)
    assert row_of(report, "cluster").first.performance > 0.9
    with pytest.raises(NotEnoughLogsError):
        run(test, train=test)  # nothing is left to learn from


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"heads": []}, InvalidPolicyError, "at least one head"),
        ({"heads": ["oracle"]}, InvalidPolicyError, "There is no head 'oracle'"),
        ({"train": logs_of().filter(pl.col("candidate_id") == "a")}, NotEnoughLogsError, "1 LLMs in common"),
    ],
)
def test_benchmark_when_it_cannot_be_run_refuses(settings, error, match):
    with pytest.raises(error, match=match):
        run(logs_of(), **settings)


# The arena


def test_arena_keeps_near_duplicates_of_measured_queries_out_of_training():
    arena = prepare_arena(logs_of(10), logs_of(25), protocol="folds", n_folds=3, seed=0)
    ((train, test),) = arena.parts
    assert test.sum() == 20
    assert train.sum() == 30  # of 50, the first 20 are the measured ones again
    assert not set(arena.groups[train]) & set(arena.groups[test])


def test_arena_of_tasks_and_families_leaves_each_out_once():
    frame = logs_of(10, families=True)
    by_task = prepare_arena(frame, None, protocol="tasks", n_folds=3, seed=0)
    by_family = prepare_arena(frame, None, protocol="families", n_folds=3, seed=0)
    assert (len(by_task.parts), len(by_family.parts)) == (4, 2)
    assert by_family.split == "each task family predicted from all others"


def test_outcomes_when_half_of_the_queries_are_complete_are_looked_up():
    frame = logs_of(10)
    dropped = frame.filter(~((pl.col("candidate_id") == "a") & (pl.col("task") == "sums")))
    arena = prepare_arena(dropped, None, protocol="folds", n_folds=3, seed=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=np.zeros((20, 2)))
    assert (measured.sum(), is_estimated) == (10, False)
    assert outcomes is arena.dataset


def test_outcomes_of_partial_logs_are_estimated_by_the_share_of_measured_answers():
    # Measured: `a` answered 10 of 20 queries; training answers, complete, must not make that likelier.
    frame = logs_of(10)
    kept = (pl.col("candidate_id") == "a") == (pl.col("task") == "sums")
    other = logs_of(25).with_columns(query_text=pl.col("query_text") + " unseen")
    arena = prepare_arena(frame.filter(kept), other, protocol="folds", n_folds=3, seed=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=np.full((70, 2), 0.5, dtype=np.float32))
    assert (measured.sum(), is_estimated) == (20, True)
    of_a = outcomes.performance[measured][:, 0]
    # Answered (all solved): 0.5 + (1 - 0.5) / 0.5; else as predicted.
    assert sorted(of_a.tolist()) == [0.5] * 10 + [1.5] * 10
    assert outcomes.cost_usd[measured].tolist() == [[1.0, 2.0]] * 20


def test_outcomes_when_a_cost_was_never_logged_stay_unknown():
    frame = logs_of(10, costs=(1.0, None))
    arena = prepare_arena(hidden(frame), None, protocol="folds", n_folds=3, seed=0)
    outcomes, _, _ = measurable(arena, predicted=np.full((20, 2), 0.5, dtype=np.float32))
    assert np.isnan(outcomes.cost_usd).all(axis=0).tolist() == [False, True]


# Cross-validation


def test_queries_are_routed_by_routers_that_have_not_seen_them():
    frame = logs_of(20)
    arena = prepare_arena(frame, None, protocol="folds", n_folds=2, seed=0)
    settings = {
        "frame": arena.frame,
        "dataset": arena.dataset,
        "embedder": EMBEDDER,
        "policies": arena.policies,
        "n_threads": 1,
    }
    both = route_by_others("cluster", parts=arena.parts, **settings)
    assert not np.isnan(both.predicted).any()
    assert (both.se >= 0).all()
    assert {name: set(chosen.tolist()) <= {0, 1} for name, chosen in both.chosen.items()} == {
        "performance-first": True,
        "balance": True,
        "cost-first": True,
    }
    assert both.curve.shape == (len(CURVE_WEIGHTS), 40)
    assert both.curve[0].tolist() == both.predicted.argmax(axis=1).tolist()  # performance alone, no margin
    train, test = arena.parts[0]
    # What the routers are told of the predicted queries does not matter: all of it is changed here.
    changed = frame.with_columns(
        pl.when(pl.col("query_id").is_in(list(np.array(arena.dataset.query_ids)[test])))
        .then(1 - pl.col("performance"))
        .otherwise(pl.col("performance"))
        .alias("performance")
    )
    one = route_by_others("cluster", parts=[(train, test)], **settings | {"frame": changed})
    np.testing.assert_array_equal(one.predicted[test], both.predicted[test])
    assert np.isnan(one.predicted[train]).all()
    assert set(one.chosen["balance"][train].tolist()) == {-1}


def test_routers_that_know_no_cost_have_no_curve():
    arena = prepare_arena(logs_of(20, costs=(None, None)), None, protocol="folds", n_folds=2, seed=0)
    found = route_by_others(
        "cluster",
        frame=arena.frame,
        dataset=arena.dataset,
        parts=arena.parts,
        embedder=EMBEDDER,
        policies=arena.policies,
        n_threads=1,
    )
    assert found.curve.shape == (0, 40)
