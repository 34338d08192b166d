import json
import math

import numpy as np
import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.policy import (
    BALANCE,
    COST_FIRST,
    PERFORMANCE_FIRST,
    POLICY_PRESETS,
    RoutingPolicy,
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost_weight", -0.01),
        ("cost_weight", 1.01),
        ("cost_weight", math.nan),
        ("cost_scale_usd", 0.0),
        ("cost_scale_usd", 1e-45),
        ("cost_weight", "x"),
        ("cost_scale_usd", -1.0),
        ("cost_scale_usd", math.nan),
        ("max_cost_usd", -0.1),
        ("max_cost_usd", math.nan),
        ("min_performance", 1.5),
        ("min_performance", math.nan),
        ("max_latency_s", -1.0),
        ("max_latency_s", math.nan),
        ("max_loss", 1.1),
        ("max_loss", math.nan),
        ("epsilon", -0.1),
        ("epsilon", math.nan),
        ("exploration", "greedy"),
        ("margin_z", -1.0),
        ("margin_z", math.nan),
    ],
)
def test_policy_when_a_value_is_out_of_range_refuses_and_names_it(field, value):
    with pytest.raises(InvalidPolicyError, match=f"RoutingPolicy.{field} must"):
        RoutingPolicy(**{field: value})


def test_policy_takes_the_ends_of_its_ranges():
    RoutingPolicy(cost_weight=1.0, max_cost_usd=0.0, min_performance=0.0, margin_z=math.inf)
    RoutingPolicy(cost_weight=0.0, max_cost_usd=math.inf, min_performance=1.0, margin_z=0.0)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"max_loss": 0.1}, "set that too"),
        ({"quality_of": "a", "cost_weight": 0.1}, "Give one of them"),
        ({"quality_of": "a", "exploration": "thompson"}, "exploration='epsilon'"),
    ],
)
def test_policy_when_two_wishes_exclude_each_other_says_what_to_do(wishes, says):
    with pytest.raises(InvalidPolicyError, match=says):
        RoutingPolicy(**wishes)


def test_presets_are_the_papers_scenarios():
    # alpha = 1 - cost_weight, beta = cost_weight: (1, 0), (0.5, 0.5), (0.2, 0.8).
    assert [policy.cost_weight for policy in (PERFORMANCE_FIRST, BALANCE, COST_FIRST)] == [0.0, 0.5, 0.8]
    assert list(POLICY_PRESETS.values()) == [PERFORMANCE_FIRST, BALANCE, COST_FIRST]


@pytest.mark.parametrize(
    ("policy", "needs_cost"),
    [
        (RoutingPolicy(), False),
        (RoutingPolicy(cost_weight=0.1), True),
        (RoutingPolicy(max_cost_usd=1.0), True),
        (RoutingPolicy(quality_of="a"), True),
        (RoutingPolicy(min_performance=0.5, cost_scale_usd=1.0), False),
    ],
)
def test_needs_cost_when_cost_decides(policy, needs_cost):
    assert policy.needs_cost is needs_cost


def test_json_holds_sets_as_sorted_lists():
    policy = RoutingPolicy(allowed=frozenset("cab"), required_capabilities=frozenset({"tools", "json"}))
    data = json.loads(json.dumps(policy.to_json(), allow_nan=False))
    assert data["allowed"] == ["a", "b", "c"]
    assert data["required_capabilities"] == ["json", "tools"]
    assert RoutingPolicy().to_json()["allowed"] is None


def test_fingerprint_when_any_field_differs_differs():
    policies = [
        RoutingPolicy(),
        RoutingPolicy(cost_weight=0.5),
        RoutingPolicy(cost_scale_usd=1.0),
        RoutingPolicy(max_cost_usd=1.0),
        RoutingPolicy(min_performance=0.0),
        RoutingPolicy(margin_z=math.inf),
        RoutingPolicy(margin_z=0.0),
        RoutingPolicy(allowed=frozenset()),
        RoutingPolicy(allowed=frozenset("a")),
        RoutingPolicy(required_capabilities=frozenset("a")),
        RoutingPolicy(max_latency_s=1.0),
        RoutingPolicy(quality_of="a"),
        RoutingPolicy(quality_of="a", max_loss=0.1),
        RoutingPolicy(exploration="epsilon"),
        RoutingPolicy(exploration="thompson"),
        RoutingPolicy(exploration="epsilon", epsilon=0.5),
    ]
    assert len({policy.fingerprint for policy in policies}) == len(policies)


@pytest.mark.parametrize("value", [1, 1.0, np.float64(1.0), np.int64(1)])
def test_fingerprint_of_equal_policies_is_equal(value):
    policy = RoutingPolicy(cost_weight=value, max_cost_usd=value)
    assert policy == RoutingPolicy(cost_weight=1.0, max_cost_usd=1.0)
    assert policy.fingerprint == RoutingPolicy(cost_weight=1.0, max_cost_usd=1.0).fingerprint


def test_fingerprint_does_not_depend_on_the_order_of_a_set():
    first, second = frozenset(["a", "b", "c", "dd"]), frozenset(["dd", "c", "b", "a"])
    assert RoutingPolicy(allowed=first).fingerprint == RoutingPolicy(allowed=second).fingerprint


def test_names_may_be_any_collection_but_one_text():
    policy = RoutingPolicy(allowed=["b", "a"], required_capabilities={"tools"})
    assert (policy.allowed, policy.required_capabilities) == (frozenset("ab"), frozenset({"tools"}))
    with pytest.raises(InvalidPolicyError, match=r"RoutingPolicy\.allowed holds names, got the text 'ab'"):
        RoutingPolicy(allowed="ab")
