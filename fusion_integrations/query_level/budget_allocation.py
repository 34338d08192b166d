"""Divide a budget among the queries of a batch.

The cost weight at which the batch's expected cost fits gives the dear candidates to those that gain most by
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import BudgetExceededError, InvalidPolicyError
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.choice import Choice, choose
from fusion_integrations.query_level.decision import RouteDecision, decide
from fusion_integrations.query_level.eligibility import ROUNDING
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import PriceTable

__all__ = ["allocate"]

_BISECTIONS = 25  # the cost weight is then known to 3e-8


def allocate(
    prediction: Prediction,
    policy: RoutingPolicy,
    *,
    budget_usd: float,
    basis: DecisionBasis,
    prices: PriceTable | None = None,
) -> list[RouteDecision]:
    """Choose for n queries so that the expected cost of all is within a budget.

    The smallest cost weight whose choices fit is found by bisection: the Lagrange multiplier of the budget.
    What it leaves over buys the next weight's choices where they gain most for their extra cost.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants; its cost weight is the lowest that is tried.
        budget_usd: USD for all.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.

    Returns:
        One decision a query, in their order; the reason names the cost weight that the budget forced.

    Raises:
        BudgetExceededError: If even the cheapest eligible candidates cost more together.
        InvalidPolicyError: If the policy holds a quality or explores, which another cost weight would undo.
        NoEligibleCandidateError: If the policy excludes every candidate for a query.
        UnknownCandidateError: If the policy names a candidate the router does not know.

    Source:
        Everett, Generalized Lagrange Multiplier Method (1963), for the multiplier; the rest is the greedy
        step for the knapsack problem.
    """
    if policy.quality_of is not None or policy.exploration != "none":
        message = (
            "A batch's budget sets the cost weight. Leave quality_of and exploration out of its policy, or "
            "use RunBudget.limit() call by call."
        )
        raise InvalidPolicyError(message)
    # Unknown costs are excluded wherever one call is limited, so that every sum below is known.
    limited = replace(
        policy,
        max_cost_usd=budget_usd if policy.max_cost_usd is None else min(budget_usd, policy.max_cost_usd),
        cost_scale_usd=policy.cost_scale_usd or basis.cost_scale_usd or budget_usd,
    )
    # The validated margin of the caller's cost weight, whichever is tried; in the basis, for in a policy it
    # would be the caller's will, which novel queries and added candidates yield to.
    basis = replace(basis, margin_z={policy.cost_weight: basis.margin_for(policy)})
    search = _Search(prediction, basis, prices)
    rich = search.at(limited)
    if rich.total_usd <= budget_usd * ROUNDING:
        return decide(prediction, limited, basis=basis, prices=prices)
    poor = search.at(replace(limited, cost_weight=1.0, margin_z=0.0))
    if poor.total_usd > budget_usd * ROUNDING:
        message = (
            f"The budget of {budget_usd:.4g} USD cannot be met: the cheapest eligible candidates cost "
            f"{poor.total_usd:.4g} USD for these {len(poor.columns)} queries. Raise it, or ask fewer."
        )
        raise BudgetExceededError(message)
    for _ in range(_BISECTIONS):
        weight = (rich.policy.cost_weight + poor.policy.cost_weight) / 2
        middle = search.at(replace(limited, cost_weight=weight))
        if middle.total_usd <= budget_usd:
            poor = middle
        else:
            rich = middle
    upgraded = _upgrades(rich, poor, prediction, budget_usd)
    return search.decisions(rich, poor, upgraded)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What one policy chooses for all: (n,) columns, (n,) their cost, and the sum."""

    policy: RoutingPolicy
    columns: npt.NDArray[np.intp]
    cost_usd: npt.NDArray[np.float64]

    @property
    def total_usd(self) -> float:
        return float(self.cost_usd.sum())


class _Search:
    """Applies policies to the same predictions."""

    def __init__(self, prediction: Prediction, basis: DecisionBasis, prices: PriceTable | None) -> None:
        self._prediction, self._basis, self._prices = prediction, basis, prices

    def at(self, policy: RoutingPolicy) -> _Plan:
        choice: Choice = choose(self._prediction, policy, basis=self._basis, prices=self._prices)
        rows = np.arange(len(choice.chosen))
        cost = choice.cost_usd[rows, choice.chosen].astype(np.float64)
        return _Plan(policy=policy, columns=choice.chosen, cost_usd=cost)

    def decisions(self, rich: _Plan, poor: _Plan, upgraded: npt.NDArray[np.bool_]) -> list[RouteDecision]:
        """Take the decision of the rich plan where upgraded, else of the poor one."""
        by_rich, by_poor = (
            decide(self._prediction, plan.policy, basis=self._basis, prices=self._prices)
            for plan in (rich, poor)
        )
        chosen = [by_rich[i] if upgraded[i] else by_poor[i] for i in range(len(upgraded))]
        note = f" The batch's budget forced a cost weight of {poor.policy.cost_weight:.3g}."
        return [replace(decision, reason=decision.reason + note) for decision in chosen]


def _upgrades(rich: _Plan, poor: _Plan, prediction: Prediction, budget_usd: float) -> npt.NDArray[np.bool_]:
    """Spend what the poor plan leaves over on the rich one, where it gains most for its extra cost."""
    rows, performance = np.arange(len(rich.columns)), prediction.performance
    gain = performance[rows, rich.columns] - performance[rows, poor.columns]
    extra = rich.cost_usd - poor.cost_usd
    upgraded = (extra <= 0) & (gain > 0)
    left = budget_usd - poor.total_usd - float(extra[upgraded].sum())
    worth = np.flatnonzero((extra > 0) & (gain > 0))
    for row in worth[np.argsort(-gain[worth] / extra[worth], kind="stable")]:
        if extra[row] <= left:
            upgraded[row] = True
            left -= float(extra[row])
    return upgraded
