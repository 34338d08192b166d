import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    InvalidPolicyError,
    LogSchemaError,
    NoEligibleCandidateError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.evaluation import evaluate_routers
from fusion_integrations.evaluation.baselines import BASELINES
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.splits import duplicate_key, holdout_mask
from fusion_integrations.query_level.policy import BALANCE, PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.statistics import Interval
from fusion_integrations.types import Price, PriceTable

NOTHING = Interval(mean=0.0, low=0.0, high=0.0)
POLICIES = {"performance-first": PERFORMANCE_FIRST, "balance": dataclasses.replace(BALANCE, margin_z=0.0)}


@pytest.fixture
def evaluate(make_logs, make_router, train_rows, test_rows):
    """Evaluate the hand-made router on the worked example, or on what a test replaces in it."""

    def run(*, rows=test_rows, train=train_rows, routers=None, policies=POLICIES, **settings):
        return evaluate_routers(
            routers or {"ours": make_router()},
            logs=rows if isinstance(rows, pl.DataFrame) else make_logs(rows),
            train_logs=train if isinstance(train, pl.DataFrame) else make_logs(train),
            policies=policies,
            **settings,
        )

    return run


def cells(report, policy):
    return {row.strategy: row for row in report.rows if row.policy == policy}


# The example (conftest): test performance small (0, 1, 1, 0.5), large (1, 1, 0, 0); cost 0.25 and 1 USD.
# The router sends queries 1, 2 and 4 to large, 3 to small.


def test_performance_first_gives_the_numbers_worked_by_hand(evaluate):
    rows = cells(evaluate(), "performance-first")
    found = {name: (row.performance, row.cost_usd, row.reward) for name, row in rows.items()}
    assert found == {
        # (0.5 + 1 + 0.5 + 0.25) / 4; (0.25 + 1) / 2
        "Random": (0.5625, 0.625, 0.5625),
        # large, best in training (3/4 against 1/3), though small is better on the test queries
        "Best Single": (0.5, 1.0, 0.5),
        # large on math, small on prose: (1 + 1 + 1 + 0.5) / 4; (1 + 1 + 0.25 + 0.25) / 4
        "Best per Task": (0.875, 0.625, 0.875),
        # small where both are right: (1 + 0.25 + 0.25 + 0.25) / 4
        "Oracle": (0.875, 0.4375, 0.875),
        # (1 + 1 + 1 + 0) / 4; (1 + 1 + 0.25 + 1) / 4
        "ours": (0.75, 0.8125, 0.75),
    }


def test_balance_gives_the_numbers_worked_by_hand(evaluate):
    # Rewards 0.5 p - 0.5 c / 1 USD: small (-0.125, 0.375, 0.375, 0.125), large (0, 0, -0.5, -0.5).
    rows = cells(evaluate(), "balance")
    assert {name: row.reward for name, row in rows.items()} == {
        "Random": -0.03125,  # (-0.0625 + 0.1875 - 0.0625 - 0.1875) / 4
        "Best Single": 0.1875,  # small: training 1/6 - 1/8 = 1/24, large 3/8 - 1/2 = -1/8; 0.75 / 4
        "Best per Task": 0.125,  # large on math (small 1/16 - 1/8, large 0), small on prose; 0.5 / 4
        "Oracle": 0.21875,  # (0 + 0.375 + 0.375 + 0.125) / 4
        "ours": -0.03125,  # (0 + 0 + 0.375 - 0.5) / 4
    }
    assert rows["ours"].reward_gain.mean == -0.21875


def test_router_row_when_it_switches_says_how_often_and_to_whom(evaluate):
    report = evaluate()
    by_performance, by_balance = cells(report, "performance-first")["ours"], cells(report, "balance")["ours"]
    assert by_performance.switch_share == 0.25  # its default is large
    assert by_balance.switch_share == 0.75  # its default is small
    assert by_performance.candidate_shares == {"small": 0.25, "large": 0.75}
    assert by_performance.per_task == {"math": 1.0, "prose": 0.5}
    assert by_performance.performance_gain.mean == 0.25  # (0 + 0 + 1 + 0) / 4


def test_report_describes_the_replay(evaluate):
    report = evaluate()
    assert (report.n_queries, report.n_groups, report.n_left_out, report.n_leaked) == (4, 4, 0, 0)
    assert report.tasks == {"math": 2, "prose": 2}
    assert report.candidates == ("small", "large")
    assert report.cost_scale_usd == {"performance-first": None, "balance": 1.0}
    assert [row.strategy for row in report.rows] == [*BASELINES, "ours"] * 2


def test_best_single_gains_exactly_nothing_over_itself(evaluate):
    for row in evaluate().rows:
        if row.strategy == "Best Single":
            assert row.reward_gain == row.performance_gain == NOTHING


def test_cost_scale_when_the_policy_states_one_is_used_for_all(evaluate):
    policy = RoutingPolicy(cost_weight=0.5, cost_scale_usd=2.0, margin_z=0.0)
    report = evaluate(policies={"stated": policy})
    # small (-0.0625, 0.4375, 0.4375, 0.1875), large (0.25, 0.25, -0.25, -0.25):
    # best 0.25 + 0.4375 + 0.4375 + 0.1875
    assert report.cost_scale_usd == {"stated": 2.0}
    assert cells(report, "stated")["Oracle"].reward == 1.3125 / 4


def test_intervals_when_queries_are_near_duplicates_resample_them_together(evaluate, make_row):
    # One group only: every resample is the whole, gains 1 and 0 (the router leaves large for small).
    rows = [make_row("tell story 1", None, 1.0, 0.0), make_row("Tell story 2!", None, 1.0, 1.0)]
    report = evaluate(rows=rows)
    gain = cells(report, "performance-first")["ours"].performance_gain
    assert report.n_groups == 1
    assert gain == Interval(mean=0.5, low=0.5, high=0.5)


# What is left out


def test_queries_when_an_answer_is_missing_are_left_out_and_counted(evaluate, test_rows):
    text, task, outcomes = test_rows[3]
    partial = (*test_rows[:3], (text, task, {"small": outcomes["small"]}), ("a failed call", "prose", {}))
    failed = ("nobody scored this", "prose", {"small": (None, 0.25), "large": (None, 1.0)})
    report = evaluate(rows=(*partial, failed))
    assert (report.n_queries, report.n_left_out) == (3, 2)  # a query without any log row is none
    assert "scored answer: 2 of 5 queries" in report.warnings[0]


def test_queries_when_a_cost_is_missing_are_left_out_only_if_cost_counts(evaluate, test_rows):
    text, task, _ = test_rows[3]
    rows = (*test_rows[:3], (text, task, {"small": (0.5, None), "large": (0.0, 1.0)}))
    assert evaluate(rows=rows).n_left_out == 1
    report = evaluate(rows=rows, policies={"performance-first": PERFORMANCE_FIRST})
    assert report.n_left_out == 0
    assert cells(report, "performance-first")["Best Single"].cost_usd == 1.0
    assert cells(report, "performance-first")["Random"].cost_usd is None


def test_queries_when_seen_in_training_are_left_out_and_counted(evaluate, make_row, test_rows, train_rows):
    same, alike = train_rows[2], make_row("TWO apples, and a sum!", "math", 1.0, 0.0)
    report = evaluate(rows=(*test_rows, same, alike))
    assert (report.n_queries, report.n_leaked, report.n_left_out) == (4, 2, 0)
    assert report.rows == evaluate().rows
    assert any("near-duplicates: 2 of 6 queries" in warning for warning in report.warnings)


def test_queries_when_seen_unscored_in_training_count_as_seen(evaluate, test_rows, train_rows):
    text, task, _ = test_rows[0]
    unscored = (text, task, {"small": (None, 0.25)})
    assert evaluate(train=(*train_rows, unscored)).n_leaked == 1


def test_evaluation_when_every_query_was_seen_refuses(evaluate, train_rows):
    with pytest.raises(NotEnoughLogsError, match="All 3 held-out queries also occur"):
        evaluate(rows=train_rows)


def test_evaluation_when_no_query_is_complete_estimates_on_all(evaluate, test_rows):
    rows = [
        (text, task, {name: outcomes[name]})
        for (text, task, outcomes), name in zip(test_rows, ["small", "large", "small", "small"], strict=True)
    ]
    report = evaluate(rows=rows)
    assert (report.n_queries, report.n_left_out) == (4, 0)
    assert report.estimation.n_answers == {"small": 3, "large": 1}
    assert [row.strategy for row in report.rows[:4]] == ["Random", "Best Single", "Best per Task", "ours"]
    assert "Only 0 of 4 queries have an answer of every candidate" in report.warnings[0]


def test_evaluation_when_no_held_out_query_is_scored_refuses(evaluate, test_rows, train_rows):
    text, task, _ = test_rows[0]
    unscored = (text, task, {"small": (None, 0.25), "large": (None, 1.0)})
    with pytest.raises(NotEnoughLogsError, match="None of the 0 held-out queries"):
        evaluate(rows=(train_rows[0], unscored))


def test_tasks_when_unknown_are_counted_and_fall_back(evaluate, make_row, test_rows):
    rows = (
        *test_rows,
        make_row("open with the queen", "chess", 0.0, 1.0),
        make_row("no label", None, 0.0, 1.0),
    )
    report = evaluate(rows=rows)
    assert report.n_unseen_task == 2
    assert report.tasks == {"chess": 1, "math": 2, "prose": 2}
    assert cells(report, "performance-first")["Best per Task"].per_task["chess"] == 1.0


def test_router_when_trained_on_other_logs_is_named(evaluate, make_logs, make_router, train_rows):
    routers = {
        "same": make_router(log_fingerprint=log_fingerprint(make_logs(train_rows))),
        "other": make_router(log_fingerprint="0" * 64),
    }
    assert evaluate(routers=routers).trained_elsewhere == ("other",)


# Policies with limits


def test_baselines_when_a_policy_allows_one_candidate_keep_to_it(evaluate):
    rows = cells(evaluate(policies={"only": RoutingPolicy(allowed=frozenset({"small"}))}), "only")
    assert {row.performance for row in rows.values()} == {0.625}


def test_best_single_when_the_policy_has_a_budget_keeps_to_it(evaluate):
    rows = cells(evaluate(policies={"cheap": RoutingPolicy(max_cost_usd=0.5)}), "cheap")
    assert (
        rows["Best Single"].candidate_shares == rows["ours"].candidate_shares == {"small": 1.0, "large": 0.0}
    )
    assert rows["Oracle"].performance == 0.875  # hindsight is not bound by it


def test_evaluation_when_a_policy_excludes_all_refuses(evaluate):
    with pytest.raises(NoEligibleCandidateError, match="over the budget"):
        evaluate(policies={"free": RoutingPolicy(max_cost_usd=0.0)})


def test_evaluation_when_cost_counts_and_test_logs_have_none_refuses(evaluate, test_rows):
    rows = [(text, task, {name: (s, None) for name, (s, _) in o.items()}) for text, task, o in test_rows]
    with pytest.raises(NoEligibleCandidateError, match="Pass prices"):
        evaluate(rows=rows)


def test_evaluation_when_a_router_chooses_unknown_cost_refuses(evaluate, test_rows):
    rows = [(t, task, {"small": o["small"], "large": (o["large"][0], None)}) for t, task, o in test_rows]
    with pytest.raises(NotEnoughLogsError, match="'ours' under policy 'balance' chose candidates whose cost"):
        evaluate(rows=rows)


def test_evaluation_when_prices_are_given_prices_the_logged_tokens(evaluate):
    # 10 input and 5 output tokens a call; small 10 * 1 + 5 * 2 = 20 USD a million calls, large twice that.
    prices = PriceTable(
        prices={
            "small": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0),
            "large": Price(input_usd_per_mtok=2.0, output_usd_per_mtok=4.0),
        }
    )
    rows = cells(
        evaluate(policies={"performance-first": PERFORMANCE_FIRST}, prices=prices), "performance-first"
    )
    assert rows["Best Single"].cost_usd == pytest.approx(40e-6)


def test_evaluation_when_another_label_is_asked_for_reads_it(evaluate, make_logs, train_rows, test_rows):
    judged = evaluate(
        rows=make_logs(test_rows, label="judge_score"),
        train=make_logs(train_rows, label="judge_score"),
        label="judge_score",
    )
    assert judged.rows == evaluate().rows
    assert judged.label == "judge_score"


# Arguments


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"policies": {}}, InvalidPolicyError, "got 1 and 0"),
        ({"level": 1.0}, InvalidPolicyError, "level must lie"),
        ({"rows": pl.DataFrame({"query_id": ["a"]})}, LogSchemaError, "lack the columns"),
    ],
)
def test_evaluation_when_an_argument_is_wrong_refuses(evaluate, settings, error, match):
    with pytest.raises(error, match=match):
        evaluate(**settings)


def test_evaluation_when_a_router_is_named_like_a_baseline_refuses(evaluate, make_router):
    with pytest.raises(InvalidPolicyError, match="names of baselines"):
        evaluate(routers={"Oracle": make_router()})


def test_evaluation_when_routers_differ_in_candidates_refuses(evaluate, make_router, candidates):
    small, large = candidates
    other = make_router((small, dataclasses.replace(large, revision="v2")))
    with pytest.raises(UnknownCandidateError, match="Router 'b' chooses among"):
        evaluate(routers={"a": make_router(), "b": other})


# Properties

_EIGHTHS = st.integers(min_value=0, max_value=8).map(lambda eighth: eighth / 8)
_WORDS = ("apple", "bread", "cloud", "dance", "eagle", "flame", "grape", "horse")


@st.composite
def outcome_rows(draw):
    n_rows = draw(st.integers(min_value=1, max_value=len(_WORDS)))
    rows = []
    for word in _WORDS[:n_rows]:
        text = f"{word} sum" if draw(st.booleans()) else word
        outcomes = {name: (draw(_EIGHTHS), draw(_EIGHTHS)) for name in ("small", "large")}
        rows.append((text, draw(st.sampled_from(["math", "prose", None])), outcomes))
    return rows


properties = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@properties
@given(rows=outcome_rows())
def test_oracle_is_never_below_any_strategy(evaluate, rows):
    report = evaluate(rows=rows)
    for policy in POLICIES:
        found = cells(report, policy)
        assert all(found["Oracle"].reward >= row.reward - 1e-7 for row in found.values())


@properties
@given(rows=outcome_rows(), seed=st.integers(min_value=0, max_value=99))
def test_order_of_log_rows_changes_nothing(evaluate, make_logs, rows, seed):
    frame = make_logs(rows)
    shuffled = frame[np.random.default_rng(seed).permutation(frame.height)]
    assert evaluate(rows=shuffled) == evaluate(rows=frame)


@properties
@given(rows=outcome_rows())
def test_order_of_candidates_changes_no_aggregate(evaluate, make_router, candidates, rows):
    # Ties break by the candidates' order, so outcomes are nudged apart: a different cost for each.
    rows = [
        (t, task, {name: (s, c + 0.01 * (name == "large") * (1 + i / 7)) for name, (s, c) in o.items()})
        for i, (t, task, o) in enumerate(rows)
    ]
    forward = evaluate(rows=rows, routers={"ours": make_router(candidates)})
    backward = evaluate(rows=rows, routers={"ours": make_router(candidates[::-1])})
    for one, other in zip(forward.rows, backward.rows, strict=True):
        if one.policy == "balance" and one.strategy == "Oracle":
            assert one.reward == pytest.approx(other.reward)  # equal rewards may differ in performance
        else:
            assert one.performance == pytest.approx(other.performance)
            assert one.cost_usd == pytest.approx(other.cost_usd)
            assert one.reward_gain.low == pytest.approx(other.reward_gain.low)
            assert one.candidate_shares == pytest.approx(other.candidate_shares)


def test_routers_when_their_candidates_are_in_another_order_are_compared_by_id(
    evaluate, make_router, candidates
):
    report = evaluate(routers={"a": make_router(candidates), "b": make_router(candidates[::-1])})
    for policy in POLICIES:
        found = cells(report, policy)
        assert dataclasses.replace(found["b"], strategy="a") == found["a"]


_VERBS = ("find", "check", "write", "read", "show", "give", "send", "draw")
_NOUNS = ("rivers", "coins", "trains", "bread", "harbours", "brothers", "apples", "winters", "roads", "songs")


def trained_and_evaluated(make_logs, make_row, score):
    """Train on 100, evaluate on 60 other queries, half of them sums; score(is_sum) gives both scores."""
    rows = [
        make_row(f"{verb} the {noun} {'as a sum' if is_sum else 'in a poem'}", None, *score(is_sum))
        for verb, noun, is_sum in itertools.product(_VERBS, _NOUNS, (True, False))
    ]
    logs = make_logs(rows)
    is_test = holdout_mask([duplicate_key(text) for text in logs["query_text"]], fraction=60 / 160, seed=0)
    train = logs.filter(~is_test)
    router = RouterTrainer(embedder=HashEmbedder()).train(train)
    report = evaluate_routers({"trained": router}, logs=logs.filter(is_test), train_logs=train)
    assert (report.n_queries, report.n_groups, report.warnings[1:]) == (60, 60, ())
    return {policy: report.verdict(cells(report, policy)["trained"]) for policy in report.policies}


def test_trained_router_when_the_text_tells_who_is_right_is_better(make_logs, make_row):
    verdicts = trained_and_evaluated(make_logs, make_row, lambda is_sum: (float(not is_sum), float(is_sum)))
    assert verdicts["performance-first"] == "better"


def test_trained_router_when_the_text_tells_nothing_is_not_called_better(make_logs, make_row):
    rng = np.random.default_rng(0)
    verdicts = trained_and_evaluated(
        make_logs, make_row, lambda is_sum: rng.integers(0, 2, size=2).astype(float)
    )
    assert set(verdicts.values()) == {"not distinguishable"}
