"""A budget for many calls: outside the pure decision, which knows one query at a time.

Call by call, the budget lowers what one call may cost to what is left; a batch shares it out, see
`budget_allocation`. What a planned call is expected to cost is held back until it is reported or given up.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from weakref import finalize

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError
from fusion_integrations.query_level.budget_allocation import allocate
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.eligibility import ROUNDING
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router import Router
from fusion_integrations.types import PriceTable, Query

__all__ = ["Reservation", "RunBudget"]


class Reservation:
    """What is held back for a planned call, until it is released or nobody has this any more.

    Args:
        give_back: Ends it. Default: nothing is held.
    """

    def __init__(self, give_back: Callable[[], None] | None = None) -> None:
        self._finalizer = None if give_back is None else finalize(self, give_back)
        self._answers: dict[str, object] = {}

    def release(self) -> None:
        """Hold nothing back any more."""
        if self._finalizer is not None:
            self._finalizer()  # the first time alone

    def is_first_answer_of(self, run_id: str) -> bool:
        """Tell whether no answer of a run was reported for the call yet; from now on one was."""
        mark = object()
        return self._answers.setdefault(run_id, mark) is mark


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
        self._reserved_usd: dict[int, float] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        # What came in since: costs of calls, and the numbers of reservations that ended. An abandoned stream
        # reports when it is collected as garbage, maybe by a thread that has the lock: reporting takes none.
        self._costs: deque[float] = deque()
        self._ended: deque[int] = deque()

    @property
    def spent_usd(self) -> float:
        """What was reported as spent."""
        return self._state()[0]

    @property
    def reserved_usd(self) -> float:
        """What calls in flight are expected to cost."""
        return self._state()[1]

    @property
    def left_usd(self) -> float:
        """What is neither spent nor reserved; negative if calls cost more than expected."""
        spent, reserved = self._state()
        return self.total_usd - spent - reserved

    def spend(self, cost_usd: float) -> None:
        """Report what a call cost.

        Args:
            cost_usd: USD.

        Raises:
            InvalidPolicyError: If the cost is negative or unknown.
        """
        is_number = isinstance(cost_usd, Real)
        if not is_number or not cost_usd >= 0:
            message = f"A call cannot cost {cost_usd} USD. Report what it cost, or what was expected."
            raise InvalidPolicyError(message)
        self._costs.append(float(cost_usd))

    def reserve(self, costs_usd: Sequence[float]) -> list[Reservation] | None:
        """Hold back what planned calls are expected to cost, for as long as somebody has the reservations.

        Args:
            costs_usd: USD of each call.

        Returns:
            One reservation a call; None, and nothing is held, if less than all of it is left.
        """
        with self._lock:
            spent, reserved = self._brought_up_to_date()
            # More than a decision lets pass, so that what passed it is not refused here again and again.
            if sum(costs_usd) > (self.total_usd - spent - reserved) * ROUNDING**2:
                return None
            return [self._reservation(cost) for cost in costs_usd]

    def hold(self, cost_usd: float) -> Reservation:
        """Hold back what a call is expected to cost, whatever is left; for calls that were chosen elsewhere.

        Args:
            cost_usd: USD.

        Returns:
            Its reservation.
        """
        with self._lock:
            return self._reservation(cost_usd)

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

    def _some_left(self) -> float:
        spent, reserved = self._state()  # at once: another thread may spend the rest at any moment
        left = self.total_usd - spent - reserved
        if left <= 0:
            held = f" and {reserved:.4g} USD held for calls in flight" if reserved else ""
            message = (
                f"The run's budget of {self.total_usd:g} USD is spent ({spent:.4g} USD{held}). "
                "Raise it, or end the run."
            )
            raise BudgetExceededError(message)
        return left

    def _reservation(self, cost_usd: float) -> Reservation:
        number = next(self._numbers)
        self._reserved_usd[number] = cost_usd
        return Reservation(partial(self._ended.append, number))

    def _state(self) -> tuple[float, float]:
        """Give what is spent and what is reserved, of one moment."""
        with self._lock:
            return self._brought_up_to_date()

    def _brought_up_to_date(self) -> tuple[float, float]:
        # In this order: a cost comes in before its reservation ends, and must not be missed with that gone.
        while self._ended:
            self._reserved_usd.pop(self._ended.popleft())
        while self._costs:
            self._spent_usd += self._costs.popleft()
        return self._spent_usd, sum(self._reserved_usd.values())
