import dataclasses
import math

import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    InvalidPolicyError,
    NoEligibleCandidateError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.evaluation import compare_levels
from fusion_integrations.query_level.policy import BALANCE, RoutingPolicy
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.statistics import Interval
from fusion_integrations.types import Candidate, Price, PriceTable

NAMES = ("small", "large", "small:thought", "student")
COST_USD = (0.25, 1.0, 0.5, 0.25)
STUDENTS = {"student": "small"}


def row(text, task, *scores, costs=COST_USD):
    """A log row of the first candidates that a score is given for."""
    return text, task, {n: (s, c) for n, s, c in zip(NAMES, scores, costs, strict=False)}


# Twenty queries were put to everybody, twenty harder ones, which taught the templates and the student, to the
# zero-shot candidates alone. Raw means: small 0.125, large 0.375, small:thought 0.5, student 0.25. Means over
# the first twenty: 0.25, 0.75, 0.5, 0.25. By task, large is best at math, small:thought at prose.
NOUNS = ("apple", "bread", "cloud", "dance", "eagle", "flame", "grape", "horse", "island", "juice")
TRAIN_ROWS = (
    *(row(f"count every {noun} as a sum", "math", 0.25, 1.0, 0.25, 0.25) for noun in NOUNS),
    *(row(f"praise one {noun}", "prose", 0.25, 0.5, 0.75, 0.25) for noun in NOUNS),
    *(row(f"solve the hard {noun} sum", "math", 0.0, 0.0) for noun in NOUNS),
    *(row(f"write the hard {noun} poem", "prose", 0.0, 0.0) for noun in NOUNS),
)
# The router of two sends sums to large and the rest to small; that of four sends the rest to small:thought.
TEST_ROWS = (
    row("the sum of all coins", "math", 0.0, 1.0, 0.5, 0.25),
    row("find a sum quickly", "math", 1.0, 1.0, 1.0, 0.5),
    row("one more sum to do", "math", 0.0, 1.0, 0.0, 0.0),
    row("tell of the harbour", "prose", 1.0, 0.0, 1.0, 1.0),
    row("a story without rain", "prose", 0.5, 0.0, 1.0, 0.25),
)


@pytest.fixture
def compare(make_logs, make_router, candidates, all_candidates):
    """Compare on the worked example, or on what a test replaces in it."""

    def run(*, rows=TEST_ROWS, train=TRAIN_ROWS, columns=all_candidates, zero_shot=candidates, **settings):
        return compare_levels(
            query_router=make_router(zero_shot),
            all_router=make_router(columns),
            logs=rows if isinstance(rows, pl.DataFrame) else make_logs(rows),
            train_logs=train if isinstance(train, pl.DataFrame) else make_logs(train),
            **({"students": STUDENTS} | settings),
        )

    return run


def cells(report):
    return {(row.level, row.name): row for row in report.rows}


def test_rows_hold_the_numbers_worked_by_hand_in_the_papers_order(compare):
    found = {
        key: (row.performance, row.cost_usd, row.performance_gain.mean)
        for key, row in cells(compare()).items()
    }
    expected = {
        ("zero-shot", "small"): (0.5, 0.25, -0.1),  # (0 + 1 + 0 + 1 + 0.5) / 5
        ("zero-shot", "large"): (0.6, 1.0, 0.0),
        ("query level", "router of 2 candidates"): (0.9, 0.7, 0.3),  # (1 + 1 + 1 + 1 + 0.5) / 5
        ("thought level", "small:thought"): (0.7, 0.5, 0.1),
        ("model level", "student"): (0.4, 0.25, -0.2),
        ("all levels", "router of 4 candidates"): (1.0, 0.8, 0.4),  # costs (3 * 1 + 2 * 0.5) / 5
        ("baseline", "Random"): (0.55, 0.5, -0.05),  # (1.75 + 3.5 + 1 + 3 + 1.75) / 4 / 5; 2 / 4
        ("baseline", "Best Single"): (0.6, 1.0, 0.0),  # large
        ("baseline", "Best per Task"): (1.0, 0.8, 0.4),  # large on math, small:thought on prose
        ("baseline", "Oracle"): (1.0, 0.6, 0.4),  # cheapest of the best: large 2 x, small 2 x, thought 1 x
    }
    assert list(found) == list(expected)
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers), key


def test_rows_by_task_hold_the_numbers_worked_by_hand(compare):
    report = compare()
    small = cells(report)["zero-shot", "small"]
    assert report.tasks == {"math": 3, "prose": 2}
    assert small.per_task == pytest.approx({"math": 1 / 3, "prose": 0.75})
    assert small.task_mean == pytest.approx((1 / 3 + 0.75) / 2)


def test_effects_compare_what_differs_in_one_level_alone(compare):
    found = {
        (effect.level, effect.name, effect.against): (effect.performance_gain.mean, effect.cost_change_usd)
        for effect in compare().effects
    }
    routed = "router of 4 candidates"
    assert found == {
        ("thought level", "small:thought", "small"): pytest.approx((0.2, 0.25)),
        ("model level", "student", "small"): pytest.approx((-0.1, 0.0)),
        ("all levels", routed, "router of 2 candidates"): pytest.approx((0.1, 0.1)),
        ("all levels", routed, "Best Single"): pytest.approx((0.4, -0.2)),
    }


def test_reference_gains_exactly_nothing_over_itself(compare):
    report = compare()
    nothing = Interval(mean=0.0, low=0.0, high=0.0)
    assert report.reference == "large"
    assert cells(report)["zero-shot", "large"].performance_gain == nothing


def test_student_that_thinks_is_of_the_model_level_and_has_both_effects(compare):
    # "large" stands in for a student that is prompted with templates; its base model then is "small".
    report = compare(
        columns=(
            Candidate(id="small", model="small"),
            Candidate(id="small:thought", model="small", prompt_mode="thought"),
            Candidate(id="large", model="student", prompt_mode="thought"),
            Candidate(id="student", model="student"),
        ),
        zero_shot=(Candidate(id="small", model="small"),),
    )
    levels = {row.name: row.level for row in report.rows}
    assert (levels["large"], levels["small:thought"]) == ("model level", "thought level")
    assert [(e.level, e.name, e.against) for e in report.effects[:4]] == [
        ("thought level", "small:thought", "small"),
        ("thought level", "large", "student"),
        ("model level", "large", "small:thought"),
        ("model level", "student", "small"),
    ]


# Partial training logs


def test_baselines_when_training_logs_are_partial_are_chosen_on_shared_queries(compare):
    report = compare()
    assert (report.n_train_queries, report.n_reference_queries) == (20, 40)
    # Raw means would choose small:thought, which was asked the easier queries only.
    assert cells(report)["baseline", "Best Single"].candidate_shares["large"] == 1.0


def test_baselines_when_too_few_training_queries_are_shared_refuse(compare):
    partial = (*TRAIN_ROWS[1:], row("count every apple as a sum", "math", 0.25, 1.0))
    with pytest.raises(NotEnoughLogsError, match=r"Only 19 training .*'small': 40.*'student': 19\}"):
        compare(train=partial)


def test_baselines_when_propensities_are_logged_count_shared_queries_alike(compare, make_logs):
    # Weighed by these, prose would count twenty times: large 11 / 21, small:thought 15.25 / 21.
    is_rare = (pl.col("task") == "prose") & pl.col("candidate_id").is_in(["large", "small:thought"])
    train = make_logs(TRAIN_ROWS).with_columns(propensity=pl.when(is_rare).then(0.05).otherwise(1.0))
    report = compare(train=train)
    assert cells(report)["baseline", "Best Single"].candidate_shares["large"] == 1.0


def test_routers_when_trained_on_the_given_partial_logs_are_not_called_trained_elsewhere(
    make_logs, candidates, all_candidates
):
    train, trainer = make_logs(TRAIN_ROWS), RouterTrainer(embedder=HashEmbedder())
    report = compare_levels(
        query_router=trainer.train(train, candidates=candidates),
        all_router=trainer.train(train, candidates=all_candidates),
        students=STUDENTS,
        logs=make_logs(TEST_ROWS),
        train_logs=train,
    )
    assert report.trained_elsewhere == ()
    assert cells(report)["zero-shot", "small"].performance == pytest.approx(0.5)


# What is missing


@pytest.mark.parametrize(
    ("n_answers", "lacking"),
    [(3, "model level: 'student'"), (2, "thought level: 'small:thought'; model level: 'student'")],
)
def test_comparison_when_a_level_was_not_collected_names_it(compare, n_answers, lacking):
    rows = [
        (text, task, {name: outcomes[name] for name in NAMES[:n_answers]})
        for text, task, outcomes in TEST_ROWS
    ]
    with pytest.raises(NotEnoughLogsError, match=rf"held-out logs .*: {lacking}. Put the held-out queries"):
        compare(rows=rows)


def test_comparison_when_a_level_was_not_trained_on_names_it(compare):
    train = [
        (text, task, {n: o for n, o in outcomes.items() if n != "student"})
        for text, task, outcomes in TRAIN_ROWS
    ]
    with pytest.raises(NotEnoughLogsError, match=r"training logs .*: model level: 'student'"):
        compare(train=train)


def test_comparison_when_answers_are_of_another_revision_names_it(compare, all_candidates):
    *others, student = all_candidates
    with pytest.raises(NotEnoughLogsError, match=r"'student' \(revision v2\)"):
        compare(columns=(*others, dataclasses.replace(student, revision="v2")))


def test_queries_when_a_candidate_did_not_answer_are_left_out_and_counted(compare):
    report = compare(rows=(*TEST_ROWS, row("no student here", "prose", 1.0, 1.0, 1.0)))
    assert (report.n_queries, report.n_left_out) == (5, 1)
    assert report.rows == compare().rows
    assert any("1 of 6 queries" in warning for warning in report.warnings)


def test_comparison_when_no_query_is_complete_refuses(compare):
    rows = (row("no student here", None, 1.0, 1.0, 1.0), ("only the student", None, {"student": (1.0, 0.1)}))
    with pytest.raises(NotEnoughLogsError, match="None of the 2 held-out queries"):
        compare(rows=rows)


def test_queries_when_seen_in_training_are_left_out_and_counted(compare):
    report = compare(rows=(*TEST_ROWS, row("Solve the HARD apple sum!", "math", 0.0, 0.0, 1.0, 1.0)))
    assert (report.n_queries, report.n_leaked) == (5, 1)


def test_level_when_it_has_no_candidate_is_named_in_a_warning(compare, all_candidates):
    report = compare(columns=all_candidates[:3], students={})
    assert {row.level for row in report.rows} == {
        "zero-shot",
        "query level",
        "thought level",
        "all levels",
        "baseline",
    }
    assert report.warnings[0] == "No candidate is of the model level, so it is not compared."


def test_effect_when_there_is_no_counterpart_is_named_in_a_warning(compare):
    report = compare(students={"student": "another model"})
    assert report.without_counterpart == ("student (model level)",)
    assert any("without an effect: student (model level)." in warning for warning in report.warnings)


# Costs, tasks, order


def test_cost_when_unknown_is_none_and_shown_as_unknown(compare):
    rows = [
        (text, task, outcomes | {"student": (outcomes["student"][0], None)})
        for text, task, outcomes in TEST_ROWS
    ]
    report = compare(rows=rows)
    found = cells(report)
    assert found["model level", "student"].cost_usd is None
    assert found["baseline", "Random"].cost_usd is None
    assert found["all levels", "router of 4 candidates"].cost_usd == pytest.approx(0.8)
    assert [effect.cost_change_usd is None for effect in report.effects] == [False, True, False, False]


def test_cost_when_it_counts_but_is_not_logged_refuses(compare):
    rows = [
        (text, task, outcomes | {"student": (outcomes["student"][0], None)})
        for text, task, outcomes in TEST_ROWS
    ]
    with pytest.raises(NotEnoughLogsError, match=r"'student' under policy 'cost_weight=0\.5' chose"):
        compare(rows=rows, policy=BALANCE)


def test_cost_when_it_counts_moves_reference_and_rewards(compare):
    report = compare(policy=dataclasses.replace(BALANCE, margin_z=0.0))
    # Training rewards 0.5 p - 0.5 c over 40 queries: small 0.0625 - 0.125, large 0.1875 - 0.5.
    assert (report.reference, report.cost_scale_usd) == ("small", 1.0)
    large = cells(report)["zero-shot", "large"]
    assert large.reward == pytest.approx(-0.2)  # 0.3 - 0.5
    assert large.reward_gain.mean == pytest.approx(-0.325)  # small: 0.25 - 0.125


def test_cost_when_prices_are_given_is_theirs(compare):
    prices = PriceTable(prices={name: Price(output_usd_per_mtok=2.0) for name in NAMES})  # 5 tokens a call
    assert cells(compare(prices=prices))["model level", "student"].cost_usd == pytest.approx(10e-6)


def test_tasks_when_there_is_one_or_none_leave_the_numbers_as_they_are(compare):
    math_only = compare(rows=TEST_ROWS[:3])
    assert math_only.tasks == {"math": 3}
    assert all(row.task_mean == pytest.approx(row.performance) for row in math_only.rows)
    unlabelled = compare(rows=[(text, None, outcomes) for text, _, outcomes in TEST_ROWS])
    assert {row.task_mean for row in unlabelled.rows} == {None}


def test_order_of_candidates_changes_the_order_of_rows_only(compare, candidates, all_candidates):
    forward = compare()
    backward = compare(columns=all_candidates[::-1], zero_shot=candidates[::-1])
    assert {key: value.performance_gain for key, value in cells(backward).items()} == {
        key: value.performance_gain for key, value in cells(forward).items()
    }
    assert {(e.name, e.against): e for e in backward.effects} == {
        (e.name, e.against): e for e in forward.effects
    }


# Policies


def test_query_level_when_the_policy_allows_other_levels_keeps_to_what_it_knows(compare):
    report = compare(policy=RoutingPolicy(allowed=frozenset({"large", "small:thought"})))
    found = cells(report)
    assert found["query level", "router of 2 candidates"].candidate_shares["large"] == 1.0
    assert found["baseline", "Random"].performance == pytest.approx(0.65)  # (0.6 + 0.7) / 2
    assert found["model level", "student"].performance == pytest.approx(0.4)  # rows of one are not bound


def test_comparison_when_the_policy_allows_no_zero_shot_candidate_refuses(compare):
    with pytest.raises(NoEligibleCandidateError, match="not allowed"):
        compare(policy=RoutingPolicy(allowed=frozenset({"student"})))


# Arguments


def test_comparison_when_the_query_router_has_other_candidates_refuses(compare, candidates):
    with pytest.raises(UnknownCandidateError, match="query_router chooses among"):
        compare(zero_shot=candidates[:1])


def test_comparison_when_a_student_is_nobodys_model_refuses(compare):
    with pytest.raises(UnknownCandidateError, match=r"\['pupil'\]"):
        compare(students=STUDENTS | {"pupil": "small"})


def test_comparison_when_all_candidates_are_zero_shot_refuses(compare, candidates):
    with pytest.raises(InvalidPolicyError, match="All candidates of all_router are zero-shot"):
        compare(columns=candidates, students={})


@pytest.mark.parametrize("coverage", [0.0, 1.0, math.nan])
def test_comparison_when_coverage_is_out_of_range_refuses(compare, coverage):
    with pytest.raises(InvalidPolicyError, match="coverage must lie"):
        compare(coverage=coverage)
