import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError, NoEligibleCandidateError
from fusion_integrations.query_level.budget_allocation import allocate
from fusion_integrations.query_level.decision import decide
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.run_budget import RunBudget

ALWAYS = RoutingPolicy(margin_z=0.0)


def total(decisions):
    return sum(decision.expected_cost_usd for decision in decisions)


def chosen(decisions):
    return [decision.candidate.id for decision in decisions]


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


def test_budget_lowers_what_a_call_may_cost_to_what_is_left():
    budget = RunBudget(1.0)
    assert budget.limit(RoutingPolicy()).max_cost_usd == 1.0
    budget.spend(0.75)
    assert (budget.spent_usd, budget.left_usd) == (0.75, 0.25)
    assert budget.limit(RoutingPolicy()).max_cost_usd == 0.25
    assert budget.limit(RoutingPolicy(max_cost_usd=0.1)).max_cost_usd == 0.1
    budget.spend(0.5)
    with pytest.raises(BudgetExceededError, match=r"budget of 1 USD is spent \(1.25 USD\)"):
        budget.limit(RoutingPolicy())


def test_budget_that_is_held_for_calls_in_flight_says_so():
    budget = RunBudget(1.0)
    budget.spend(0.25)
    held = budget.reserve([0.5, 0.25])
    assert budget.reserve([0.1]) is None
    with pytest.raises(
        BudgetExceededError, match=r"spent \(0.25 USD and 0.75 USD held for calls in flight\)"
    ):
        budget.limit(RoutingPolicy())
    budget.settle(held[0], 0.125, run_id="one")
    assert (budget.spent_usd, budget.reserved_usd, budget.left_usd) == (0.375, 0.25, 0.375)


@pytest.mark.parametrize("amount", [0.0, -1.0, np.nan, "x"])
def test_budget_when_it_is_no_amount_is_refused(amount):
    with pytest.raises(InvalidPolicyError, match="above 0"):
        RunBudget(amount)


@pytest.mark.parametrize("cost", [-0.1, np.nan, None])
def test_spending_when_it_is_no_amount_is_refused(cost):
    with pytest.raises(InvalidPolicyError, match="cannot cost"):
        RunBudget(1.0).spend(cost)


def test_budget_when_threads_spend_at_once_loses_nothing():
    budget = RunBudget(1e6)
    threads = [threading.Thread(target=lambda: [budget.spend(1.0) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent_usd == 4000.0


def test_budget_routes_a_batch_of_a_router(trained_router):
    texts = ["What is 17 plus 4? Give the number only.", "Write a line about rivers."]
    free = trained_router.route_batch(texts)
    budget = RunBudget(total(free) * 0.9)
    decisions = budget.route_batch(trained_router, texts)
    assert total(decisions) <= budget.left_usd < total(free)
    assert budget.route_batch(trained_router, []) == []


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


def test_budget_when_it_is_spent_while_predicting_says_so(trained_router):
    budget = RunBudget(1.0)

    class Slow:
        current = None

        def predict(self, queries):
            budget.spend(2.0)
            return trained_router.predict(queries)

    slow = Slow()
    slow.current, slow.basis = slow, trained_router.basis
    with pytest.raises(BudgetExceededError, match=r"budget of 1 USD is spent \(2 USD\)"):
        budget.route_batch(slow, ["What is 17 plus 4?"])
