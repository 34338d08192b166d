"""Hold the quality of one candidate as cheaply as possible, at a rate of exchange that validation chose.

To hold an average at the least cost is to trade: lose quality where that saves much, win it where that costs
little. One rate of exchange between the two is enough; validation measures what the average loses at each.
See docs/decisions/0008-quality-by-exchange.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction

__all__ = ["BOUND_Z", "RATES", "QualityBar", "QualityCurves", "quality_bar", "quality_rewards"]

# Rates that validation tries: points of performance that saving the whole cost of an average call is worth.
RATES = (0.0, *(round(0.002 * 1.4**step, 4) for step in range(19)))
# Gains count one standard error low, so that a candidate of whom little is known is not traded for.
BOUND_Z = 1.0
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class QualityCurves:
    """What validation lost on average to each candidate whose quality was to be held.

    Attributes:
        rates: (g,) rates of exchange, ascending.
        loss: (k, g) mean performance below that of the candidate itself; negative where it gained. NaN where
            it was not validated.
    """

    rates: FloatArray
    loss: FloatArray

    def rate_for(self, column: int, *, max_loss: float) -> float | None:
        """Return the largest rate up to which all kept the loss, -inf if the first did not.

        None if none was validated. Beyond a rate that lost too much, another that did not was lucky.
        """
        loss = self.loss[column]
        if np.isnan(loss).all():
            return None
        n_kept = int(np.logical_and.accumulate(loss <= max_loss + _ROUNDING).sum())  # NaN is not kept
        return float(self.rates[n_kept - 1]) if n_kept else -np.inf

    def select(self, columns: Sequence[int | None]) -> QualityCurves:
        """Return the curves of some columns in order; None stands for one that was not validated."""
        unknown = np.full(len(self.rates), np.nan, dtype=np.float32)
        rows = [unknown if column is None else self.loss[column] for column in columns]
        return QualityCurves(rates=self.rates, loss=np.stack(rows))


@dataclass(frozen=True, kw_only=True)
class QualityBar:
    """The quality to hold, and what may be traded for cost.

    Attributes:
        column: The candidate whose quality it is.
        call_usd: What an average call of it costs.
        rate: Points of performance that saving `call_usd` is worth; -inf: nothing may be traded; None: every
            single prediction must come near enough, and then only the cost counts.
        margin_z: How many standard errors a gain counts below its prediction.
        max_loss: Without a rate, what that lower bound may lie below 0.
    """

    column: int
    call_usd: float
    rate: float | None
    margin_z: float
    max_loss: float = 0.0


def quality_bar(
    policy: RoutingPolicy, prediction: Prediction, *, average_usd: FloatArray, curves: QualityCurves | None
) -> QualityBar:
    """Find the bar of a policy with `quality_of`.

    Args:
        policy: With a margin of its own, that and `max_loss` bind every query; otherwise validation says at
            which rate the average loses no more than `max_loss`.
        prediction: Names the k columns.
        average_usd: (k,) cost of an average call.
        curves: What validation found; None if it was not asked.

    Returns:
        The bar.

    Raises:
        UnknownCandidateError: If the router does not know the candidate.
        InvalidPolicyError: If its cost is unknown, or the policy has no margin and it was not validated.
    """
    ids = [candidate.id for candidate in prediction.candidates]
    wanted = policy.quality_of
    if wanted not in ids:
        message = f"The policy wants the quality of '{wanted}', which the router does not know. Known: {ids}."
        raise UnknownCandidateError(message)
    column = ids.index(wanted)
    call_usd = float(average_usd[column])
    if np.isnan(call_usd):
        message = (
            f"The cost of '{wanted}' is unknown, so nothing is cheaper. Pass its price, or log its cost."
        )
        raise InvalidPolicyError(message)
    if policy.margin_z is not None:
        return QualityBar(
            column=column,
            call_usd=call_usd,
            rate=None,
            margin_z=policy.margin_z,
            max_loss=policy.max_loss,
        )
    rate = None if curves is None else curves.rate_for(column, max_loss=policy.max_loss)
    if rate is None:
        message = (
            f"The router has not validated what holding the quality of '{wanted}' takes: it was saved by an "
            "older release, its logs hold no cost, or the candidate was added later. Train it again on logs "
            "with costs, or set RoutingPolicy(margin_z=1.0) to compare single predictions."
        )
        raise InvalidPolicyError(message)
    return QualityBar(column=column, call_usd=call_usd, rate=rate, margin_z=BOUND_Z)


def quality_rewards(
    prediction: Prediction, cost_usd: FloatArray, bar: QualityBar
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Weigh everybody against the candidate whose quality is to be held.

    Args:
        prediction: Expectations for n queries.
        cost_usd: (n, k) expected cost.
        bar: The quality to hold.

    Returns:
        (n, k) rewards in points of performance, 0 for the candidate itself, NaN where a cost is unknown; and
        (n, k) who may stand in for it: who is not dearer and, without a rate, near enough.
    """
    performance, base = prediction.performance, np.full(len(cost_usd), bar.column)
    saving = (cost_usd[:, [bar.column]] - cost_usd) / max(bar.call_usd, float(np.finfo(np.float32).tiny))
    may_stand_in = saving >= -_ROUNDING  # NaN may not
    if bar.rate == -np.inf or np.isinf(bar.margin_z):  # inf * 0 would be undefined
        may_stand_in[:] = False
        rewards = saving
    else:
        gain = performance - performance[:, [bar.column]]
        bound = gain - bar.margin_z * prediction.paired_gain_se(base)
        if bar.rate is None:
            may_stand_in &= bound >= -bar.max_loss - _ROUNDING
            rewards = saving
        else:
            rewards = bound + bar.rate * saving
    may_stand_in[:, bar.column] = True
    return rewards.astype(np.float32), may_stand_in
