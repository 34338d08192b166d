"""Evaluation on partial logs, on logs of sessions, and what it tells of drift and calibration."""

import dataclasses
import io
import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from fusion_integrations.errors import NotEnoughLogsError, UnknownCandidateError
from fusion_integrations.evaluation import evaluate_routers, render_details, render_table
from fusion_integrations.evaluation.estimation import fit_outcome_model
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST
from fusion_integrations.query_level.router_dataset import RouterDataset

POLICIES = {"performance-first": PERFORMANCE_FIRST}
WORDS = ("apple", "bread", "cloud", "dance", "eagle", "flame", "grape", "horse", "island", "jewel", "knight")
CHANCES = {"math": (0.25, 0.75), "prose": (0.75, 0.25)}  # of small and large: as a fair router would explore
SOLVED = {"math": (0.2, 0.9), "prose": (0.8, 0.3)}


def texts(n, start=0):
    """n texts of two tasks in turn; the words' number, written out, tells them apart."""
    for number in range(start, start + n):
        words = " ".join(WORDS[int(digit)] for digit in str(number))
        yield (f"sum {words}", "math") if number % 2 else (f"tale {words}", "prose")


@pytest.fixture
def make_many(make_logs):
    """Logs of n queries in which each candidate solves its share of each task, at random."""

    def make(n, *, start=0, seed=0):
        rng = np.random.default_rng(seed)
        return make_logs(
            [
                (
                    text,
                    task,
                    {
                        name: (float(rng.random() < chance), cost)
                        for name, chance, cost in zip(
                            ("small", "large"), SOLVED[task], (0.25, 1.0), strict=True
                        )
                    },
                )
                for text, task in texts(n, start)
            ]
        )

    return make


@pytest.fixture
def route_logs():
    """Keep the answer that a policy with the given chances took, and its propensity."""

    def keep(frame, *, chances, seed=0):
        rng = np.random.default_rng(seed)
        queries = frame.select("query_id", "task").unique("query_id", maintain_order=True)
        taken = {query_id: rng.random() < chances[task][0] for query_id, task in queries.iter_rows()}
        is_small = pl.col("query_id").replace_strict(taken)
        chance = {task: pair[0] for task, pair in chances.items()}
        of_small = pl.col("task").replace_strict(chance)
        return frame.filter((pl.col("candidate_id") == "small") == is_small).with_columns(
            assignment=pl.lit("policy"),
            propensity=pl.when(pl.col("candidate_id") == "small").then(of_small).otherwise(1 - of_small),
        )

    return keep


@pytest.fixture
def evaluate(make_many, make_router):
    def run(logs, *, train=None, **settings):
        return evaluate_routers(
            {"ours": make_router()},
            logs=logs,
            train_logs=make_many(300, seed=1) if train is None else train,
            **{"policies": POLICIES} | settings,
        )

    return run


def cells(report):
    return {row.strategy: row for row in report.rows}


def text_of(tables):
    console = Console(width=160, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


# Estimates


def test_estimates_from_one_answer_a_query_are_near_what_all_answers_say(evaluate, make_many, route_logs):
    complete = make_many(1200, start=1000, seed=2)
    truth = cells(evaluate(complete))
    report = evaluate(route_logs(complete, chances=CHANCES))
    assert report.estimation.n_complete == 0
    assert sum(report.estimation.n_answers.values()) == report.n_queries == 1200
    for name, row in cells(report).items():
        # A term's variance is below 0.25 / 0.25 = 1: the standard error of 1,200 is below 0.03.
        assert row.performance == pytest.approx(truth[name].performance, abs=0.08)
        assert row.support.weighted_performance == pytest.approx(truth[name].performance, abs=0.09)
        assert row.performance_gain.low <= truth[name].performance_gain.mean <= row.performance_gain.high
    assert cells(report)["ours"].cost_usd == pytest.approx(truth["ours"].cost_usd, abs=0.02)
    assert report.verdict(cells(report)["ours"]) == "better"
    assert report.warnings[0].startswith("Only 0 of 1200 queries have an answer of every candidate")
    assert len(report.warnings) == 1


def test_estimates_correct_a_model_that_training_logs_misled(evaluate, make_many, route_logs):
    # In training nobody ever solved anything; the evaluated answers say otherwise.
    train = make_many(300, seed=1).with_columns(performance=pl.lit(0.0))
    complete = make_many(1200, start=1000, seed=2)
    report = evaluate(route_logs(complete, chances=CHANCES), train=train)
    truth = cells(evaluate(complete, train=train))
    assert cells(report)["ours"].performance == pytest.approx(truth["ours"].performance, abs=0.1)


def test_support_is_how_many_queries_the_chosen_logged_answers_are_worth(evaluate, make_many, route_logs):
    fair = {"math": (0.5, 0.5), "prose": (0.5, 0.5)}
    report = evaluate(route_logs(make_many(400, start=1000), chances=fair))
    # Any sure choice agrees with the log on about half of the queries, all of one weight.
    assert cells(report)["ours"].support.effective_sample_size == pytest.approx(200, abs=40)
    # Random gives every query the weight 0.5 / 0.5.
    assert cells(report)["Random"].support.effective_sample_size == pytest.approx(400)


def test_logs_of_certain_choices_warn_that_there_is_no_overlap(evaluate, make_many, route_logs):
    certain = {"math": (0.0, 1.0), "prose": (1.0, 0.0)}
    logs = route_logs(make_many(200, start=1000), chances=certain)
    report = evaluate(logs)
    assert "No overlap: 200 of 200 queries were routed with certainty" in " ".join(report.warnings)
    # Who chooses just what was logged gets just what was logged.
    logged = RouterDataset.from_logs(logs).performance
    assert cells(report)["ours"].performance == pytest.approx(float(np.nanmean(logged)), abs=1e-6)


def test_logs_without_propensities_warn_of_what_is_assumed(evaluate, make_many, route_logs):
    logs = route_logs(make_many(200, start=1000), chances=CHANCES)
    unknown = logs.with_columns(propensity=pl.lit(None, dtype=pl.Float64))
    assert "who answered had nothing to do with how well" in " ".join(evaluate(unknown).warnings)


@pytest.mark.parametrize("has_tasks", [True, False])
def test_kinds_of_query_that_a_candidate_was_not_asked_are_named(evaluate, make_many, has_tasks):
    logs = make_many(400, start=1000)
    only_math = logs.filter((pl.col("candidate_id") == "small") | (pl.col("task") == "math"))
    if not has_tasks:
        only_math = only_math.with_columns(task=pl.lit(None, dtype=pl.String))
    partial = only_math.filter((pl.col("candidate_id") == "large") | (pl.int_range(pl.len()) % 4 > 0))
    said = " ".join(evaluate(partial).warnings)
    of_kind = "['prose']" if has_tasks else "of the queries, of no common task']"
    assert "'large' hardly answered" in said
    assert of_kind in said


def test_candidate_that_newer_logs_lack_is_estimated_and_named(evaluate, make_many):
    only = make_many(200, start=1000).filter(pl.col("candidate_id") == "small")
    report = evaluate(only)
    assert report.estimation.n_answers == {"small": 200, "large": 0}
    said = " ".join(report.warnings)
    assert "No answer of ['large']" in said
    assert "fewer than 50 queries for Best Single (0)" in said  # large is the best in training
    assert cells(report)["Best Single"].support.weighted_performance is None
    assert "none" in text_of(render_table(report))


def test_logs_of_other_candidates_alone_are_refused(evaluate, make_many):
    other = make_many(200, start=1000).with_columns(candidate_id=pl.col("candidate_id") + "-2")
    with pytest.raises(UnknownCandidateError):
        evaluate(other)


def test_partial_logs_with_next_to_no_training_logs_are_refused(evaluate, make_many, make_logs, make_row):
    one = make_logs([make_row("tale of one", "prose", 1.0, 0.0)])
    only = make_many(30, start=1000).filter(pl.col("candidate_id") == "small")
    with pytest.raises(NotEnoughLogsError, match="1 training query is too few"):
        evaluate(only, train=one)


def test_queries_when_half_are_complete_are_looked_up_and_the_rest_left_out(evaluate, make_many):
    logs = make_many(100, start=1000)
    ids = logs["query_id"].unique(maintain_order=True)
    partial = logs.filter((pl.col("candidate_id") == "small") | pl.col("query_id").is_in(ids[:50].implode()))
    report = evaluate(partial)
    assert (report.n_queries, report.n_left_out, report.estimation) == (50, 50, None)
    assert cells(report)["Oracle"].support is None
    fewer = logs.filter((pl.col("candidate_id") == "small") | pl.col("query_id").is_in(ids[:49].implode()))
    assert evaluate(fewer).n_queries == 100


def test_best_single_of_partial_training_logs_is_compared_on_the_same_queries(evaluate, make_many):
    # Large was mostly asked prose, which it seldom solves: its own answers have a mean of (0.1 * 0.9 + 0.5 *
    # 0.3) / 0.6 = 0.4, those of small 0.5. Over all queries large reaches (0.9 + 0.3) / 2 = 0.6.
    train = make_many(400, seed=1)
    is_rare = (
        (pl.col("candidate_id") == "large") & (pl.col("task") == "math") & (pl.int_range(pl.len()) % 5 > 0)
    )
    skewed = train.filter(~is_rare)
    answered = skewed.group_by("candidate_id").agg(pl.col("performance").mean()).sort("candidate_id")
    assert answered["performance"][0] < answered["performance"][1]  # what plain means would choose
    report = evaluate(make_many(100, start=1000), train=skewed)
    assert cells(report)["Best Single"].candidate_shares["large"] == 1.0


def test_outcome_model_estimates_training_queries_without_themselves(make_many, make_router, candidates):
    train = RouterDataset.from_logs(make_many(200, seed=1), candidates=candidates)
    holes = np.random.default_rng(0).random(train.performance.shape) < 0.5
    partial = dataclasses.replace(train, performance=np.where(holes, np.float32(np.nan), train.performance))
    model = fit_outcome_model(partial, embedder=make_router().embedder, n_threads=1, seed=0)
    assert not np.isnan(model.train.performance).any()
    assert (model.train.propensity == 1).all()
    np.testing.assert_allclose(
        model.train.performance.mean(axis=0), train.performance.mean(axis=0), atol=0.15
    )
    complete = fit_outcome_model(train, embedder=make_router().embedder, n_threads=1, seed=0)
    np.testing.assert_allclose(complete.train.performance, train.performance, atol=1e-6)


# Sessions


def test_intervals_resample_whole_sessions_where_they_were_logged(evaluate, make_many):
    logs = make_many(120, start=1000)
    ids = logs["query_id"].unique(maintain_order=True).to_list()
    session = {query_id: f"s{number // 4}" for number, query_id in enumerate(ids)}
    together = logs.with_columns(session_id=pl.col("query_id").replace_strict(session))
    assert (evaluate(logs).n_groups, evaluate(together).n_groups) == (120, 30)
    half = together.with_columns(
        session_id=pl.when(pl.col("query_id").is_in(ids[:60])).then(pl.col("session_id"))
    )
    assert evaluate(half).n_groups == 15 + 60
    plain, grouped = (cells(evaluate(each))["ours"] for each in (logs, together))
    assert plain.performance == grouped.performance
    assert plain.performance_gain.low != grouped.performance_gain.low


# What is known beside


def test_report_tells_cost_pairs_calibration_and_drift(evaluate, make_many):
    report = evaluate(make_many(200, start=1000))
    details = report.details["ours"]
    # The router sends sums to large and prose to small, and costs what that costs on average.
    assert details.cost_quality.points[-1] == (0.625, pytest.approx(cells(report)["ours"].performance))
    assert 0 < details.cost_quality.cost_at_best_single < 1
    assert set(details.pairs) == {"all", "math", "prose"}
    assert details.pairs["all"].apgr > 0.6
    # It expects 0.9 and 0.1 of sums, 0.8 and 0.1 of prose; they solve 0.9 and 0.2, 0.8 and 0.3.
    assert {round(each.predicted, 2) for each in details.reliability} == {0.1, 0.8, 0.9}
    assert {each.level for each in details.intervals} == {0.5, 0.8, 0.95}
    (drift,) = report.drift.routers
    assert (drift.validated_gain, drift.verdict) == (None, "better")
    (single,) = report.drift.best_single
    assert (single.trained, single.verdict) == ("large", "same")
    assert report.drift.novel == {"ours": None}  # it was not taught to tell


def test_best_single_that_changed_is_told(evaluate, make_many):
    newer = make_many(200, start=1000).with_columns(
        performance=pl.when(pl.col("candidate_id") == "small").then(1.0).otherwise(pl.col("performance"))
    )
    report = evaluate(newer)
    (single,) = report.drift.best_single
    assert (single.trained, single.newest, single.verdict) == ("large", "small", "changed")
    assert single.gain.low > 0
    assert report.drift.routers[0].verdict == "better"  # it takes small for prose, which is half of that


def test_report_as_json_holds_everything(evaluate, make_many, route_logs):
    report = evaluate(route_logs(make_many(200, start=1000), chances=CHANCES))
    data = report.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["estimation"]["n_complete"] == 0
    assert set(data["rows"][0]["support"]) == {"effective_sample_size", "weighted_performance"}
    assert data["details"]["ours"]["pairs"]["all"]["strong"] == "large"
    assert data["drift"]["best_single"][0]["trained"] == "large"


def test_tables_show_estimates_drift_cost_pairs_and_calibration(evaluate, make_many, route_logs):
    report = evaluate(route_logs(make_many(200, start=1000), chances=CHANCES))
    shown = text_of(render_table(report))
    assert "Numbers are doubly robust estimates." in shown
    assert f"{cells(report)['ours'].support.effective_sample_size:.0f}" in shown
    tables = render_details(report)
    assert [str(table.title) for table in tables] == [
        "Since training",
        "What performance costs",
        "Which queries need the stronger model",
        "ours: does it get what it expects?",
    ]
    shown = text_of(tables)
    for said in ("Best Single is still 'large'", "AIQ", "APGR", "Calibration error", "intervals."):
        assert said in shown
    lookup = text_of(render_table(evaluate(make_many(60, start=1000))))
    assert "doubly robust" not in lookup


def test_tables_when_costs_are_unknown_leave_their_part_out(evaluate, make_many):
    costless = pl.lit(None, dtype=pl.Float64)
    report = evaluate(
        make_many(60, start=1000).with_columns(cost_usd=costless),
        train=make_many(60).with_columns(cost_usd=costless),
    )
    assert report.details["ours"].cost_quality is None
    assert "What performance costs" not in text_of(render_details(report))
