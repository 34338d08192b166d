"""Choose on validation data how sure a router must be before it leaves the candidate it would else take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.choice import ROUNDING, choose, reward
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.quality_target import (
    BOUND_Z,
    RATES,
    QualityBar,
    QualityCurves,
    quality_rewards,
)
from fusion_integrations.query_level.query_kinds import Kinds
from fusion_integrations.statistics import bootstrap_means

__all__ = ["COST_WEIGHTS", "Margin", "Outcomes", "calibrate_margins", "calibrate_se", "validate_quality"]

# Margins are validated at these cost weights; a policy uses the nearest.
COST_WEIGHTS = (0.0, 0.2, 0.5, 0.8)
_MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_SE_GROUP, _MAX_SE_GROUPS, _MAX_SE_SCALE = 25, 20, 5.0
_MAX_QUALITY_QUERIES = 20_000  # a mean over so many is exact to a few thousandths, and every rate needs one


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What validation said about one cost weight.

    Attributes:
        cost_weight: The cost weight of the policy.
        margin_z: The chosen margin; infinity if no margin passed.
        gain: Mean validated reward gain over the best single candidate at that margin.
        risk: Bootstrap probability that this gain is not above 0.
        switch_share: Share of validation queries that left the default.
    """

    cost_weight: float
    margin_z: float
    gain: float
    risk: float
    switch_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What would have happened, cell by cell; see `doubly_robust`.

    Attributes:
        performance: (n, k).
        cost_usd: (n, k), NaN where unknown.
    """

    performance: FloatArray
    cost_usd: FloatArray


def calibrate_margins(
    prediction: Prediction,
    outcomes: Outcomes,
    *,
    basis: DecisionBasis,
    groups: Sequence[str],
    risk: float,
    seed: int,
) -> list[Margin]:
    """Validate a margin for each cost weight.

    Among the margins whose gain over the default is above 0 with a probability of at least 1 - risk, the one
    with the largest gain is taken. If none is, the router never leaves the default at that cost weight.

    Args:
        prediction: Predictions for n validation queries, by models that did not see them.
        outcomes: What the candidates really reached on them.
        basis: Averages and cost scale; its margins are not read.
        groups: n keys of near-duplicate queries, resampled together.
        risk: Accepted probability of no gain.
        seed: Seed of the bootstrap.

    Returns:
        One margin a cost weight that can be judged: without any known cost, only cost weight 0.
    """
    prediction, has_cost = _answered(prediction), basis.cost_scale_usd is not None
    return [
        _calibrate(weight, prediction, outcomes, basis=basis, groups=groups, risk=risk, seed=seed)
        for weight in COST_WEIGHTS
        if weight == 0 or has_cost
    ]


def _answered(prediction: Prediction) -> Prediction:
    """Forget context windows: what was logged did fit, whatever the estimate of its length."""
    candidates = tuple(replace(candidate, context_tokens=None) for candidate in prediction.candidates)
    return replace(prediction, candidates=candidates)


def _calibrate(
    weight: float,
    prediction: Prediction,
    outcomes: Outcomes,
    *,
    basis: DecisionBasis,
    groups: Sequence[str],
    risk: float,
    seed: int,
) -> Margin:
    best = Margin(cost_weight=weight, margin_z=math.inf, gain=0.0, risk=1.0, switch_share=0.0)
    scale = basis.cost_scale_usd or 1.0
    reached = reward(outcomes.performance, outcomes.cost_usd, cost_weight=weight, cost_scale_usd=scale)
    basis = replace(basis, margin_z={})
    for margin in _MARGINS:
        policy = RoutingPolicy(cost_weight=weight, margin_z=margin)
        choice = choose(prediction, policy, basis=basis)
        gains = _gains(reached, choice.chosen, choice.default)
        chance = float((bootstrap_means(gains, groups=groups, seed=seed) <= 0).mean())
        if chance <= risk and gains.mean() > best.gain:
            best = Margin(
                cost_weight=weight,
                margin_z=margin,
                gain=float(gains.mean()),
                risk=chance,
                switch_share=float((choice.chosen != choice.default).mean()),
            )
    return best


def calibrate_se(
    prediction: Prediction, outcomes: Outcomes, *, kinds: Kinds, folds: npt.NDArray[np.int64]
) -> float:
    """Compare stated standard errors with the errors that validation shows.

    Single scores are too noisy to show the error of an expectation. Means over queries of like prediction, or
    of one kind, are not: what their residuals vary by, beyond the noise of the scores, is the error of the
    predictions. Groups stay within a fold: what one fold's models learned too much of, another's lacked, so
    that over all folds together errors cancel.

    Args:
        prediction: Predictions for n validation queries, by models that did not see them.
        outcomes: What the candidates really reached on them.
        kinds: (n,) kinds of query.
        folds: (n,) by which models each was predicted.

    Returns:
        Factor for standard errors, that of the groups which need the larger one, within [1, 5]: never
        narrower than stated, as few groups say little.
    """
    performance = prediction.performance.astype(np.float64)
    residual = outcomes.performance - performance
    variance = prediction.performance_se.astype(np.float64) ** 2
    by_prediction, by_kind = np.zeros(2), np.zeros(2)
    for fold in np.unique(folds):
        here = np.flatnonzero(folds == fold)
        of_kinds = [here[kinds[here] == kind] for kind in np.unique(kinds[here])]
        n_alike = max(1, min(_MAX_SE_GROUPS, len(here) // _SE_GROUP))
        for column in range(performance.shape[1]):
            order = here[np.argsort(performance[here, column], kind="stable")]
            alike = np.array_split(order, n_alike)
            by_prediction += _shown_and_stated(residual[:, column], variance[:, column], alike)
            by_kind += _shown_and_stated(residual[:, column], variance[:, column], of_kinds)
    ratios = [shown / stated for shown, stated in (by_prediction, by_kind) if stated > 0 and shown > 0]
    return float(np.clip(np.sqrt(max(ratios, default=1.0)), 1.0, _MAX_SE_SCALE))


def _shown_and_stated(
    residual: npt.NDArray[np.float64],
    variance: npt.NDArray[np.float64],
    groups: Sequence[npt.NDArray[np.intp]],
) -> npt.NDArray[np.float64]:
    """Sum over groups the squared mean residual, less what noise gives it, and the mean stated variance."""
    total = np.zeros(2)
    for rows in groups:
        if len(rows) > 1:
            found = residual[rows]
            total += found.mean() ** 2 - found.var(ddof=1) / len(rows), variance[rows].mean()
    return total


def validate_quality(
    prediction: Prediction, outcomes: Outcomes, *, basis: DecisionBasis, seed: int
) -> QualityCurves | None:
    """Measure what holding each candidate's quality loses on average, at each rate of exchange.

    Args:
        prediction: Predictions for n validation queries, by models that did not see them.
        outcomes: What the candidates really reached on them.
        basis: The averages.
        seed: Seed of the choice of queries, where there are more than 20,000.

    Returns:
        The curves; candidates of unknown cost are neither wanted nor chosen in them. None without two
        candidates of known cost.
    """
    rows = np.arange(len(prediction.performance))
    if len(rows) > _MAX_QUALITY_QUERIES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_QUALITY_QUERIES, replace=False))
    part, reached = prediction.select(rows), outcomes.performance[rows]
    cost, call_usd = part.logged_cost_usd, basis.average.logged_cost_usd[0]
    priced = np.flatnonzero(~np.isnan(cost).any(axis=0) & ~np.isnan(call_usd))
    if len(priced) < 2:
        return None
    loss = np.full((len(prediction.candidates), len(RATES)), np.nan, dtype=np.float32)
    here = np.arange(len(rows))
    for column in priced:
        for position, rate in enumerate(RATES):
            bar = QualityBar(
                column=int(column), call_usd=float(call_usd[column]), rate=rate, margin_z=BOUND_Z
            )
            rewards, may_stand_in = quality_rewards(part, cost, bar)
            rewards[:, column] = ROUNDING  # what does not beat the candidate itself by more leaves it
            chosen = np.where(may_stand_in, rewards, -np.inf).argmax(axis=1)
            loss[column, position] = (reached[:, column] - reached[here, chosen]).mean(dtype=np.float64)
    return QualityCurves(rates=np.array(RATES, dtype=np.float32), loss=loss)


def _gains(
    reached: FloatArray, chosen: npt.NDArray[np.intp], default: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    rows = np.arange(len(chosen))
    gains = (reached[rows, chosen] - reached[rows, default]).astype(np.float64)
    return np.nan_to_num(gains, nan=0.0)
