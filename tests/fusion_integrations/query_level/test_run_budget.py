import gc
import threading

import numpy as np
import pytest

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.run_budget import RunBudget


def total(decisions):
    return sum(decision.expected_cost_usd for decision in decisions)


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
    held[0].release()
    budget.spend(0.125)
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


def test_costs_reported_while_garbage_is_collected_do_not_block_whoever_collects_it():
    # As an abandoned stream in a reference cycle does: in the thread that has the budget's lock.
    budget = RunBudget(1.0)

    class Stream:
        def __init__(self):
            self.itself, self.reservation = self, budget.hold(0.25)

        def __del__(self):
            self.reservation.release()
            budget.spend(0.125)

    def read():
        for ahead in range(1, 30):
            Stream()
            gc.set_threshold(gc.get_count()[0] + ahead)
            _ = budget.left_usd

    before = gc.get_threshold()
    thread = threading.Thread(target=read, daemon=True)
    try:
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert (budget.spent_usd, budget.reserved_usd) == (29 * 0.125, 0)
