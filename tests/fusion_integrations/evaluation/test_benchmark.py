import json

import polars as pl
import pytest
from rich.text import Text

from fusion_integrations.embedders import CachingEmbedder, HashEmbedder
from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.evaluation import benchmark_routers, render_benchmark
from fusion_integrations.evaluation.cross_validation import CURVE_WEIGHTS

EMBEDDER = CachingEmbedder(HashEmbedder(dimensions=64))


def run(frame, **settings):
    return benchmark_routers(
        "sample",
        frame,
        **{"heads": ["cluster"], "embedder": EMBEDDER, "n_threads": 1, "n_folds": 3} | settings,
    )


@pytest.fixture(scope="module")
def report(make_sums_and_prose):
    return run(make_sums_and_prose())


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
        "sample: performance by task",
        "sample: which queries need the stronger model",
    ]
    summary, _, costs, tasks, _ = render_benchmark([report])
    assert summary.row_count == 6  # the log's name, then its rows
    assert costs.row_count == 3 * 6  # each scenario has its name, then the same rows
    assert [*tasks.columns[0].cells] == [Text("prose"), Text("sums")]
    assert [str(column.header) for column in tasks.columns][2:] == [row.strategy for row in report.rows]
    assert "outcomes are looked up; 0 queries left out; 95% intervals" in str(summary.caption)
    assert Text("cost-first", "bold") in [*costs.columns[0].cells]
    assert "Cost weights: performance-first 0, balance 0.5, cost-first 0.8." in str(costs.caption)


def test_logs_without_cost_are_measured_by_performance_alone(make_sums_and_prose):
    report = run(make_sums_and_prose(costs=(None, None)))
    assert list(report.policies) == ["performance-first"]
    assert row_of(report, "cluster").head.cost_quality is None
    assert row_of(report, "Oracle").first.cost_usd is None
    assert len(render_benchmark([report])) == 4


@pytest.mark.parametrize("costs", [(1.0, None), (0.0, 0.0)])
def test_logs_whose_costs_cannot_be_weighed_are_measured_by_performance_alone(costs, make_sums_and_prose):
    report = run(make_sums_and_prose(costs=costs))
    assert list(report.policies) == ["performance-first"]
    json.dumps(report.to_json(), allow_nan=False)
    is_said = "Costs are not weighed" in str(render_benchmark([report])[0].caption)
    assert is_said == (costs == (1.0, None))  # where everything is free there is nothing to say


def test_logs_whose_candidates_cost_the_same_or_nothing_are_measured(make_sums_and_prose):
    assert row_of(run(make_sums_and_prose(costs=(1.0, 1.0))), "cluster").head.cost_quality is None
    free = run(make_sums_and_prose(costs=(0.0, 1.0)))
    assert json.dumps(free.to_json(), allow_nan=False)


def test_label_other_than_performance_is_what_routers_learn_and_reach(make_sums_and_prose):
    frame = make_sums_and_prose(20)
    judged = frame.with_columns(judge_score=0.5 + 0.5 * pl.col("performance"), performance=pl.lit(0.0))
    report = run(judged, label="judge_score")
    assert report.label == "judge_score"
    assert row_of(report, "Best Single").first.performance == pytest.approx(0.75, abs=0.1)
    assert row_of(report, "Oracle").first.performance == 1.0
    assert "performance is judge_score" in str(render_benchmark([report])[0].caption)


def test_partial_logs_are_estimated_without_an_oracle(make_sums_and_prose, keep_one_answer):
    report = run(keep_one_answer(make_sums_and_prose(60)))
    assert report.is_estimated
    assert [row.strategy for row in report.rows] == ["Random", "Best Single", "Best per Task", "cluster"]
    assert report.n_queries == 120
    # Truth 0.5 and 1: one of two random answers, so that single values lie within [-1, 2].
    assert report.candidates["a"] == pytest.approx(0.5, abs=0.15)
    assert row_of(report, "Best per Task").first.performance == pytest.approx(1.0, abs=0.15)
    assert "doubly robust estimates" in str(render_benchmark([report])[0].caption)


@pytest.mark.parametrize("protocol", ["folds", "tasks"])
def test_candidate_that_a_part_has_no_answers_of_is_not_chosen_there(make_sums_and_prose, protocol):
    # A third candidate answered three sums and nothing else, all of which may be in the part to predict.
    frame = make_sums_and_prose(30)
    some = frame.filter((pl.col("candidate_id") == "a") & (pl.col("task") == "sums"))[:3]
    third = some.with_columns(candidate_id=pl.lit("c"), model=pl.lit("c"), record_id="c" + some["record_id"])
    report = run(pl.concat([frame, third]), protocol=protocol, n_shown=None)
    assert report.is_estimated
    assert {query.chosen["cluster"] for query in report.queries} <= {"a", "b"}
    assert json.dumps(report.to_json(), allow_nan=False)


def test_router_that_sees_one_answer_a_query_still_learns(make_sums_and_prose):
    report = run(make_sums_and_prose(60), answers="one")
    assert report.answers == "one a query"
    assert row_of(report, "cluster").first.performance > 0.8


def test_log_to_learn_from_is_not_measured_on_and_shares_no_near_duplicate(make_sums_and_prose):
    train, test = make_sums_and_prose(25), make_sums_and_prose(10)
    other = test.with_columns(query_text=pl.col("query_text") + " unseen")
    report = run(other, train=train)
    assert (report.split, report.n_queries) == ("trained on another log", 20)
    assert row_of(report, "cluster").first.performance > 0.9
    with pytest.raises(NotEnoughLogsError):
        run(test, train=test)  # nothing is left to learn from


@pytest.mark.parametrize(
    ("heads", "match"), [([], "at least one head"), (["oracle"], "There is no head 'oracle'")]
)
def test_benchmark_without_a_known_head_refuses(heads, match, make_sums_and_prose):
    with pytest.raises(InvalidPolicyError, match=match):
        run(make_sums_and_prose(), heads=heads)


def test_benchmark_of_logs_with_one_common_llm_refuses(make_sums_and_prose):
    only = make_sums_and_prose().filter(pl.col("candidate_id") == "a")
    with pytest.raises(NotEnoughLogsError, match="1 LLMs in common"):
        run(make_sums_and_prose(), train=only)
