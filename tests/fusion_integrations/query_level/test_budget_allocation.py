from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError, NoEligibleCandidateError
from fusion_integrations.query_level.budget_allocation import allocate
from fusion_integrations.query_level.decision import decide
from fusion_integrations.query_level.policy import RoutingPolicy

ALWAYS = RoutingPolicy(margin_z=0.0)


def total(decisions):
    return sum(decision.expected_cost_usd for decision in decisions)


def chosen(decisions):
    return [decision.candidate.id for decision in decisions]


def test_batch_that_costs_just_its_budget_is_not_refused_for_a_rounding_error(predict, basis):
    prediction = predict([[0.5, 0.9]] * 3, cost=[[0.1, 1.0]] * 3)
    learned = basis([0.5, 0.7], cost=[0.1, 1.0], scale=1.0)
    for budget_usd, wanted in ((3 - 1e-7, ["b"] * 3), (0.3 - 1e-8, ["a"] * 3)):
        assert chosen(allocate(prediction, ALWAYS, budget_usd=budget_usd, basis=learned)) == wanted


def test_batch_when_the_budget_is_ample_is_what_the_policy_wants(predict, basis):
    prediction = predict([[0.5, 0.9], [0.5, 0.6]], cost=[[0.1, 1.0]] * 2)
    decisions = allocate(prediction, ALWAYS, budget_usd=2.0, basis=basis([0.5, 0.7], cost=[0.1, 1], scale=1))
    assert chosen(decisions) == ["b", "b"]
    assert "budget" not in decisions[0].reason


def test_batch_when_the_budget_is_short_gives_the_dear_one_to_who_gains_most(predict, basis):
    # One call of b fits beside two of a: the third query gains most by it.
    prediction = predict([[0.5, 0.6], [0.5, 0.7], [0.5, 0.9]], cost=[[0.1, 1.0]] * 3)
    learned = basis([0.5, 0.7], cost=[0.1, 1.0], scale=1.0)
    decisions = allocate(prediction, ALWAYS, budget_usd=1.3, basis=learned)
    assert chosen(decisions) == ["a", "a", "b"]
    assert "The batch's budget forced a cost weight of" in decisions[0].reason


def test_batch_when_queries_are_alike_spends_what_is_left_on_some_of_them(predict, basis):
    # One cost weight moves all four at once; 2.3 USD pay two calls of b and two of a (2.2).
    prediction = predict([[0.5, 0.9]] * 4, cost=[[0.1, 1.0]] * 4)
    learned = basis([0.5, 0.7], cost=[0.1, 1.0], scale=1.0)
    decisions = allocate(prediction, ALWAYS, budget_usd=2.3, basis=learned)
    assert sorted(chosen(decisions)) == ["a", "a", "b", "b"]
    assert total(decisions) == pytest.approx(2.2)


def test_batch_when_even_the_cheapest_cost_more_is_refused_with_both_sums(predict, basis):
    prediction = predict([[0.5, 0.9]] * 4, cost=[[0.1, 1.0]] * 4)
    learned = basis([0.5, 0.7], cost=[0.1, 1.0], scale=1.0)
    with pytest.raises(BudgetExceededError, match=r"0.3 USD cannot be met.* 0.4 USD for these 4 queries"):
        allocate(prediction, ALWAYS, budget_usd=0.3, basis=learned)


def test_batch_when_one_call_alone_is_over_the_budget_leaves_it_out(predict, basis):
    prediction = predict([[0.5, 0.9]], cost=[[0.1, 1.0]])
    decisions = allocate(prediction, ALWAYS, budget_usd=0.5, basis=basis([0.5, 0.7], cost=[0.1, 1.0]))
    assert chosen(decisions) == ["a"]


def test_batch_when_costs_are_unknown_is_refused(predict, basis):
    with pytest.raises(NoEligibleCandidateError, match="cost unknown"):
        allocate(predict([[0.5, 0.9]]), ALWAYS, budget_usd=0.5, basis=basis([0.5, 0.7]))


@pytest.mark.parametrize("policy", [RoutingPolicy(quality_of="a"), RoutingPolicy(exploration="epsilon")])
def test_batch_when_another_cost_weight_would_undo_the_policy_is_refused(predict, basis, policy):
    with pytest.raises(InvalidPolicyError, match="sets the cost weight"):
        allocate(predict([[0.5]], cost=0.1), policy, budget_usd=1.0, basis=basis([0.5], cost=0.1))


@given(st.integers(0, 2**31), st.floats(0.05, 1.5), st.sampled_from([0.0, 1.0]))
def test_batch_keeps_its_budget_and_does_no_worse_than_the_cheapest(predict, basis, seed, share, margin):
    rng = np.random.default_rng(seed)
    n, k = 12, 4
    members, cost = rng.random((3, n, k)), rng.random((n, k)) + 0.01
    prediction = predict(members, cost=cost)
    learned = basis(rng.random(k).tolist(), cost=cost.mean(axis=0), scale=1.0)
    least = float(prediction.logged_cost_usd.min(axis=1).sum())
    budget = least + share * (float(prediction.logged_cost_usd.max(axis=1).sum()) - least)
    decisions = allocate(prediction, RoutingPolicy(margin_z=margin), budget_usd=budget, basis=learned)
    assert total(decisions) <= budget + 1e-6
    cheapest = prediction.logged_cost_usd.argmin(axis=1)
    column = [c.id for c in prediction.candidates].index
    reached = [prediction.performance[i, column(d.candidate.id)] for i, d in enumerate(decisions)]
    if margin == 0.0:
        assert sum(reached) >= prediction.performance[np.arange(n), cheapest].sum() - 1e-5


def test_batch_when_the_budget_is_ample_keeps_the_brakes_of_the_policy(predict, basis):
    # A validated margin of 0 still yields to novel queries and to candidates added since.
    prediction = predict([[[0.4, 0.6]] * 2, [[0.6, 0.8]] * 2], cost=[[0.1, 1.0]] * 2)
    prediction = replace(prediction, is_novel=np.array([True, False]))
    learned = basis([0.7, 0.5], cost=[0.1, 1.0], scale=1.0)
    free = RoutingPolicy(max_cost_usd=10.0)
    for changes in ({"margin_z": {0.0: 0.0}}, {"margin_z": {0.0: 0.0}, "added": frozenset("b")}):
        changed = replace(learned, **changes)
        without = [decision.outcome for decision in decide(prediction, free, basis=changed)]
        within = allocate(prediction, free, budget_usd=10.0, basis=changed)
        assert [decision.outcome for decision in within] == without
        assert without[0] == "default"
