"""A budget for many calls: outside the pure decision, which knows one query at a time.

Call by call, the budget lowers what one call may cost to what is left; a batch shares it out, see
`budget_allocation`. What a planned call is expected to cost is held back until it is reported or given up.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from weakref import WeakSet

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError
from fusion_integrations.query_level.budget_allocation import allocate
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.eligibility import ROUNDING
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router import Router
from fusion_integrations.types import PriceTable, Query

__all__ = ["Reservation", "RunBudget"]


@dataclass(eq=False)  # each is one of its kind
class Reservation:
    """What a planned call is expected to cost. Held back by its budget until it is settled, or nobody has it.

    Attributes:
        cost_usd: USD.
        settled_by: Runs whose cost was reported.
    """

    cost_usd: float = 0.0
    settled_by: set[str] = field(default_factory=set)


class RunBudget:
    """USD for a run of calls. Safe to share between threads.

    What is spent is what callers report: calls that cost more than expected may pass the total.

    Args:
        total_usd: What the run may cost.

    Raises:
        InvalidPolicyError: If the total is not above 0.

    Example:
        >>> from fusion_integrations.testing import tiny_router
        >>> budget = RunBudget(0.001)
        >>> decisions = budget.route_batch(tiny_router(), ["What is 3 plus 4?", "Praise rivers in prose."])
        >>> sum(decision.expected_cost_usd for decision in decisions) <= 0.001
        True
    """

    def __init__(self, total_usd: float) -> None:
        is_number = isinstance(total_usd, Real)
        if not is_number or not total_usd > 0:
            raise InvalidPolicyError(f"A run's budget must be above 0 USD, got {total_usd!r}.")
        self.total_usd = total_usd
        self._spent_usd = 0.0
        # Weak, so that a plan that is dropped without being followed gives its share back.
        self._reservations: WeakSet[Reservation] = WeakSet()
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """What was reported as spent."""
        with self._lock:
            return self._spent_usd

    @property
    def reserved_usd(self) -> float:
        """What calls in flight are expected to cost."""
        with self._lock:
            return self._reserved()

    @property
    def left_usd(self) -> float:
        """What is neither spent nor reserved; negative if calls cost more than expected."""
        with self._lock:
            return self._left()

    def spend(self, cost_usd: float) -> None:
        """Report what a call cost.

        Args:
            cost_usd: USD.

        Raises:
            InvalidPolicyError: If the cost is negative or unknown.
        """
        self.settle(Reservation(), cost_usd, run_id="")

    def reserve(self, costs_usd: Sequence[float]) -> list[Reservation] | None:
        """Hold back what planned calls are expected to cost, for as long as somebody has the reservations.

        Args:
            costs_usd: USD of each call.

        Returns:
            One reservation a call; None, and nothing is reserved, if less than all of it is left.
        """
        with self._lock:
            if sum(costs_usd) > self._left() * ROUNDING:
                return None
            found = [Reservation(cost_usd=cost) for cost in costs_usd]
            self._reservations.update(found)
            return found

    def settle(self, reservation: Reservation, cost_usd: float, *, run_id: str) -> None:
        """Report what a reserved call cost, and no longer hold anything back for it.

        Args:
            reservation: Its reservation.
            cost_usd: USD; 0 if the call failed.
            run_id: Of the call. What one run cost is spent once, however often it is reported.

        Raises:
            InvalidPolicyError: If the cost is negative or unknown.
        """
        is_number = isinstance(cost_usd, Real)
        if not is_number or not cost_usd >= 0:
            message = f"A call cannot cost {cost_usd} USD. Report what it cost, or what was expected."
            raise InvalidPolicyError(message)
        with self._lock:
            self._reservations.discard(reservation)
            if run_id not in reservation.settled_by:
                reservation.settled_by.add(run_id)
                self._spent_usd += cost_usd

    def limit(self, policy: RoutingPolicy) -> RoutingPolicy:
        """Lower what one call may cost to what is left.

        Args:
            policy: What the caller wants.

        Returns:
            The policy within the budget.

        Raises:
            BudgetExceededError: If nothing is left.
        """
        left = self._some_left()
        limit = left if policy.max_cost_usd is None else min(left, policy.max_cost_usd)
        return replace(policy, max_cost_usd=limit)

    def _some_left(self) -> float:
        with self._lock:  # read at once: another thread may spend the rest at any moment
            spent, reserved, left = self._spent_usd, self._reserved(), self._left()
        if left <= 0:
            held = f" and {reserved:.4g} USD held for calls in flight" if reserved else ""
            message = (
                f"The run's budget of {self.total_usd:g} USD is spent ({spent:.4g} USD{held}). "
                "Raise it, or end the run."
            )
            raise BudgetExceededError(message)
        return left

    def _left(self) -> float:
        return self.total_usd - self._spent_usd - self._reserved()

    def _reserved(self) -> float:
        return sum(reservation.cost_usd for reservation in self._reservations)

    def route_batch(
        self,
        router: Router,
        queries: Sequence[str | Query],
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
    ) -> list[RouteDecision]:
        """Choose for a batch so that its expected cost is within what is left; errors as in `allocate`.

        Args:
            router: Who predicts.
            queries: n texts or queries.
            policy: What the caller wants; its cost weight is the lowest that is tried.
            prices: Today's prices. Default: costs as logged.

        Returns:
            One decision a query, in their order. Nothing is spent until `spend` says so.
        """
        self._some_left()
        if not queries:
            return []
        current = router.current
        prediction = current.predict(queries)
        return allocate(prediction, policy, budget_usd=self._some_left(), basis=current.basis, prices=prices)
