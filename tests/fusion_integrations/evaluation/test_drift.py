import json

import numpy as np
import pytest

from fusion_integrations.evaluation.drift import Drift, best_single_drift, router_drift, validated_gain
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.statistics import Interval

BETTER, NEITHER, WORSE = (Interval(mean=mean, low=mean - 0.05, high=mean + 0.05) for mean in (0.1, 0.0, -0.1))
MARGINS = {
    "validated_margins": [
        {"cost_weight": 0.0, "margin_z": 1.0, "gain": 0.07},
        {"cost_weight": 0.8, "margin_z": None, "gain": 0.0},
    ]
}


@pytest.mark.parametrize(
    ("validated", "gain", "n_groups", "verdict", "says"),
    [
        (0.07, BETTER, 100, "still better", "still better than Best Single"),
        (0.07, NEITHER, 100, "no longer distinguishable", "no longer distinguishable"),
        (0.07, WORSE, 100, "worse", "retrain"),
        (0.07, WORSE, 29, "too few queries", "too few independent queries"),
        (0.0, BETTER, 100, "better", "better than Best Single"),
        (0.0, NEITHER, 100, "not distinguishable", "not distinguishable"),
        (None, NEITHER, 100, "not distinguishable", "not distinguishable"),
    ],
)
def test_verdict_compares_with_what_training_validated(validated, gain, n_groups, verdict, says):
    drift = router_drift("ours", "balance", validated=validated, gain=gain, n_groups=n_groups)
    assert drift.verdict == verdict
    assert says in drift.advice


@pytest.mark.parametrize(
    ("metrics", "policy", "expected"),
    [
        (MARGINS, PERFORMANCE_FIRST, 0.07),
        (MARGINS, RoutingPolicy(cost_weight=0.7), 0.0),  # it never leaves the default there
        (MARGINS, RoutingPolicy(margin_z=0.0), None),
        (MARGINS, RoutingPolicy(quality_of="a"), None),
        ({}, PERFORMANCE_FIRST, None),
    ],
)
def test_validated_gain_is_that_of_the_nearest_cost_weight(metrics, policy, expected):
    assert validated_gain(metrics, policy) == expected


def drifted(rewards, *, trained=0, eligible=(True, True, True), n_groups=None):
    n = len(rewards)
    groups = tuple(str(i % (n_groups or n)) for i in range(n))
    return best_single_drift(
        "performance-first",
        np.array(rewards),
        trained=trained,
        eligible=np.array(eligible),
        ids=("a", "b", "c"),
        groups=groups,
        level=0.95,
        seed=0,
    )


def test_best_single_when_another_is_always_better_changed():
    drift = drifted([[0.0, 1.0, 0.5]] * 40)
    assert (drift.trained, drift.newest, drift.verdict) == ("a", "b", "changed")
    assert drift.gain == Interval(mean=1.0, low=1.0, high=1.0)
    assert "changed, from 'a' in training to 'b' here: +1.000 [+1.000, +1.000]" in drift.words


def test_best_single_when_it_is_still_the_best_or_tied_is_the_same():
    for rewards in ([[1.0, 0.5, 0.0]] * 40, [[1.0, 1.0, 0.0]] * 40):
        drift = drifted(rewards)
        assert (drift.newest, drift.verdict) == ("a", "same")
        assert drift.gain == Interval(mean=0.0, low=0.0, high=0.0)
    assert "still 'a'" in drift.words


def test_best_single_when_the_lead_may_be_luck_is_not_called_changed():
    rewards = [[1.0, 0.0, 0.0]] * 20 + [[0.0, 1.0, 0.0]] * 21
    drift = drifted(rewards)
    assert (drift.newest, drift.verdict) == ("b", "not distinguishable")
    assert "may have changed" in drift.words


def test_best_single_when_groups_are_few_is_not_judged():
    assert drifted([[0.0, 1.0, 0.5]] * 40, n_groups=29).verdict == "too few queries"


def test_best_single_leaves_out_whom_the_policy_excludes_or_nothing_is_known_of():
    assert drifted([[0.0, 1.0, 0.5]] * 40, eligible=(True, False, True)).newest == "c"
    assert drifted([[0.0, np.nan, 0.5]] * 40).newest == "c"


def test_interval_covers_the_choice_among_others():
    # With one rival the level is kept, with two half of the rest goes to each: the interval is wider.
    rng = np.random.default_rng(0)
    rewards = np.stack([rng.random(60), rng.random(60) + 0.2, np.zeros(60)], axis=1)
    one, two = drifted(rewards, eligible=(True, True, False)).gain, drifted(rewards).gain
    assert two.low < one.low < one.high < two.high


def test_report_says_how_many_queries_are_unlike_the_training_logs():
    drift = Drift(
        routers=(router_drift("ours", "p", validated=None, gain=BETTER, n_groups=99),),
        best_single=(drifted([[1.0, 0.5, 0.0]] * 40),),
        novel={"ours": 10, "other": None},
        n_queries=40,
    )
    assert drift.lines[-1] == "ours: 10 of 40 queries (25.0%) are unlike its training logs."
    assert len(drift.lines) == 2  # who cannot tell says nothing
    data = drift.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["routers"][0]["verdict"] == "better"
