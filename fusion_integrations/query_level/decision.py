"""Apply a policy to predictions: pure functions, so every adapter decides alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import InvalidPolicyError, NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.explanation import Outcome, explain_choice
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["Choice", "DecisionBasis", "RankedCandidate", "RouteDecision", "choose", "decide", "reward"]

# Rewards that differ by less are tied: float32 products of equal numbers differ in their last bits, and by
# how many queries are predicted at once.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class DecisionBasis:
    """What training learned that decisions rest on.

    Attributes:
        average: Every candidate's mean over the training queries, as the prediction for one average query.
        cost_scale_usd: The router's own cost scale; None if no cost is known.
        margin_z: Validated margin by cost weight; infinity where leaving the default did not pay.
        artifact: Digest of the router artifact, or "" before it is saved.
    """

    average: Prediction
    cost_scale_usd: float | None
    margin_z: Mapping[float, float] = field(default_factory=dict)
    artifact: str = ""

    def margin_for(self, policy: RoutingPolicy) -> float:
        """Return the policy's margin, else the validated one of the nearest cost weight, else 1."""
        if policy.margin_z is not None:
            return policy.margin_z
        if not self.margin_z:
            return 1.0
        return self.margin_z[min(self.margin_z, key=lambda weight: abs(weight - policy.cost_weight))]

    def scale_for(self, policy: RoutingPolicy) -> float:
        """Say what cost counts as much as one full point of performance.

        Args:
            policy: The policy that is applied.

        Returns:
            USD a call; 1 where cost does not count.

        Raises:
            InvalidPolicyError: If cost counts but neither policy nor router knows a scale.
        """
        scale = policy.cost_scale_usd or self.cost_scale_usd
        if scale is not None:
            return scale
        if policy.cost_weight > 0:
            message = (
                "The policy weighs cost, but the router has no cost scale: its logs hold no cost, or too "
                "rarely, or only cost 0. Set RoutingPolicy(cost_scale_usd=...) and pass prices, or use "
                "cost_weight=0."
            )
            raise InvalidPolicyError(message)
        return 1.0


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """One candidate as a decision saw it.

    Attributes:
        candidate_id: Who.
        performance: Expected performance in [0, 1].
        performance_se: Standard error of that expectation.
        cost_usd: Expected cost of the call; None if unknown.
        reward: What the policy maximises; None if not eligible.
        excluded: Why the policy excludes it; None if eligible.
    """

    candidate_id: str
    performance: float
    performance_se: float
    cost_usd: float | None
    reward: float | None
    excluded: str | None


@dataclass(frozen=True, kw_only=True)
class RouteDecision:
    """Which candidate answers a query, and why.

    Attributes:
        candidate: The chosen one.
        default_id: The best single candidate for this policy.
        outcome: `"switched"` if the default was left, `"default"` if it was kept (also when the router
            abstained for lack of evidence), `"only_eligible"` if there was no choice, `"pinned"` if the
            caller chose.
        reason: One sentence for people.
        ranking: Every candidate, eligible ones first, by reward.
        expected_cost_usd: Of the chosen one; None if unknown.
        margin_z: The margin that was applied.
        propensity: Probability of this choice under the policy; 1 for a deterministic one.
        policy_fingerprint: Hash of the policy.
        artifact: Digest of the router artifact.
    """

    candidate: Candidate
    default_id: str
    outcome: Outcome
    reason: str
    ranking: tuple[RankedCandidate, ...]
    expected_cost_usd: float | None
    margin_z: float
    propensity: float
    policy_fingerprint: str
    artifact: str

    def to_json(self) -> dict[str, Any]:
        """Return the decision as JSON data, without the query."""
        return {
            "candidate": self.candidate.id,
            "model": self.candidate.model,
            "prompt_mode": self.candidate.prompt_mode,
            "default": self.default_id,
            "outcome": self.outcome,
            "reason": self.reason,
            "expected_cost_usd": self.expected_cost_usd,
            "margin_z": self.margin_z if math.isfinite(self.margin_z) else None,
            "propensity": self.propensity,
            "policy": self.policy_fingerprint,
            "artifact": self.artifact,
            "ranking": [asdict(ranked) for ranked in self.ranking],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The policy applied to n queries, as arrays.

    Attributes:
        chosen: (n,) column of the chosen candidate.
        default: (n,) column of the best single candidate that is eligible for the query.
        rewards: (n, k) predicted reward; -inf where not eligible.
        cost_usd: (n, k) expected cost; NaN if unknown.
        gain: (n, k) predicted gain over the default; -inf where not eligible.
        gain_se: (n, k) its standard error.
        margin_z: The margin applied.
        excluded: (n, k) reason of exclusion, "" where eligible.
    """

    chosen: npt.NDArray[np.intp]
    default: npt.NDArray[np.intp]
    rewards: FloatArray
    cost_usd: FloatArray
    gain: FloatArray
    gain_se: FloatArray
    margin_z: float
    excluded: npt.NDArray[np.object_]


def choose(
    prediction: Prediction, policy: RoutingPolicy, *, basis: DecisionBasis, prices: PriceTable | None = None
) -> Choice:
    """Apply a policy to predictions.

    The default is, among those eligible, the candidate of highest mean reward in training, counting its mean
    performance one standard error lower. Another one is
    chosen only if its predicted gain over the default, paired within the ensemble members, exceeds
    `margin_z` standard errors. Ties keep the default, then the candidates' order.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.

    Returns:
        The choices, in the order of the queries.

    Raises:
        InvalidPolicyError: If cost counts but no cost scale is known.
        NoEligibleCandidateError: If the policy excludes every candidate for a query; says why for each.
        UnknownCandidateError: If `allowed` names a candidate the router does not know.

    Source:
        Reward: FusionFactory (arXiv 2507.10540), section 4.2, alpha = 1 - cost_weight, beta = cost_weight.
    """
    scale, margin = basis.scale_for(policy), basis.margin_for(policy)
    cost, performance = prediction.cost_usd(prices), prediction.performance
    excluded = _exclusions(prediction.candidates, policy, cost)
    _exclude_below_wanted_performance(excluded, performance, policy)
    eligible = excluded == ""
    _check_all_have_a_choice(prediction.candidates, excluded)
    rewards = reward(performance, cost, cost_weight=policy.cost_weight, cost_scale_usd=scale)
    rewards = np.where(eligible, rewards, -np.inf).astype(np.float32)
    # Today's prices move the default as they move the candidates: a model made dearer stops being it.
    usual = reward(
        basis.average.performance - basis.average.performance_se,
        basis.average.cost_usd(prices),
        cost_weight=policy.cost_weight,
        cost_scale_usd=scale,
    )
    usual = np.where(np.isnan(usual), np.finfo(np.float32).min, usual)
    default = np.where(eligible, usual, -np.inf).argmax(axis=1)
    rows = np.arange(len(default))
    gain = rewards - rewards[rows, default][:, None]
    gain_se = (1 - policy.cost_weight) * prediction.paired_gain_se(default)
    convincing = _convincing(gain, gain_se, margin)
    top = np.where(convincing.any(axis=1), np.where(convincing, gain, -np.inf).argmax(axis=1), default)
    return Choice(
        chosen=top,
        default=default,
        rewards=rewards,
        cost_usd=cost,
        gain=gain,
        gain_se=gain_se,
        margin_z=margin,
        excluded=excluded,
    )


def decide(
    prediction: Prediction, policy: RoutingPolicy, *, basis: DecisionBasis, prices: PriceTable | None = None
) -> list[RouteDecision]:
    """Apply a policy and explain every choice; errors as in `choose`.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.

    Returns:
        One decision a query, in their order.
    """
    choice = choose(prediction, policy, basis=basis, prices=prices)
    return [_explain(row, choice, prediction, policy, basis) for row in range(len(choice.chosen))]


def reward(
    performance: FloatArray, cost_usd: FloatArray, *, cost_weight: float, cost_scale_usd: float
) -> FloatArray:
    """Weigh performance against cost; NaN where cost counts and is unknown.

    Args:
        performance: Any shape, in [0, 1].
        cost_usd: Same shape, USD a call.
        cost_weight: In [0, 1].
        cost_scale_usd: The cost that counts as much as one full point of performance.

    Returns:
        Same shape: (1 - cost_weight) * performance - cost_weight * cost_usd / cost_scale_usd.

    Source:
        FusionFactory (arXiv 2507.10540), section 4.2, with alpha = 1 - beta = 1 - cost_weight. The paper
        scales cost per task with test statistics; ours is one stated scale, so a reward is comparable.
    """
    if cost_weight == 0:
        return performance
    weighed: FloatArray = (1 - cost_weight) * performance - cost_weight * (cost_usd / cost_scale_usd)
    return weighed


def _convincing(gain: FloatArray, gain_se: FloatArray, margin: float) -> npt.NDArray[np.bool_]:
    if math.isinf(margin):  # never, whatever the standard error; inf * 0 would be undefined
        return np.zeros(gain.shape, dtype=np.bool_)
    return (gain > _ROUNDING) & (gain > margin * gain_se)


def _exclusions(
    candidates: tuple[Candidate, ...], policy: RoutingPolicy, cost: FloatArray
) -> npt.NDArray[np.object_]:
    """Return (n, k) reasons of exclusion, "" where eligible."""
    ids = [candidate.id for candidate in candidates]
    unknown = sorted((policy.allowed or frozenset()) - set(ids))
    if unknown:
        raise UnknownCandidateError(
            f"The policy allows {unknown}, which the router does not know. Known: {ids}."
        )
    excluded = np.full(cost.shape, "", dtype=np.object_)
    if policy.max_cost_usd is not None:
        excluded[cost > policy.max_cost_usd] = f"over the budget of {policy.max_cost_usd:g} USD a call"
    if policy.needs_cost:
        excluded[np.isnan(cost)] = "cost unknown: pass its price, or log its cost"
    for column, candidate in enumerate(candidates):
        lacking = sorted(policy.required_capabilities - candidate.capabilities)
        if lacking:
            excluded[:, column] = f"lacks {', '.join(lacking)}"
        if policy.allowed is not None and candidate.id not in policy.allowed:
            excluded[:, column] = "not allowed"
    return excluded


def _exclude_below_wanted_performance(
    excluded: npt.NDArray[np.object_], performance: FloatArray, policy: RoutingPolicy
) -> None:
    if policy.min_performance is None:
        return
    eligible = excluded == ""
    wanted = np.where(eligible, performance, -np.inf)
    # Where nobody reaches the wanted performance, the one expected to come nearest stays.
    bar = np.minimum(policy.min_performance, wanted.max(axis=1, keepdims=True))
    excluded[eligible & (performance < bar)] = f"expected performance below {policy.min_performance:g}"


def _check_all_have_a_choice(candidates: tuple[Candidate, ...], excluded: npt.NDArray[np.object_]) -> None:
    stuck = np.flatnonzero((excluded != "").all(axis=1))
    if stuck.size:
        reasons = "; ".join(
            f"'{candidate.id}': {reason}"
            for candidate, reason in zip(candidates, excluded[stuck[0]], strict=True)
        )
        message = (
            f"The policy excludes every candidate for {stuck.size} of {len(excluded)} queries ({reasons}). "
            "Loosen it."
        )
        raise NoEligibleCandidateError(message)


def _explain(
    row: int, choice: Choice, prediction: Prediction, policy: RoutingPolicy, basis: DecisionBasis
) -> RouteDecision:
    chosen, default = int(choice.chosen[row]), int(choice.default[row])
    candidates, wanted = prediction.candidates, policy.min_performance
    misses = wanted is not None and prediction.performance[row, chosen] < wanted
    outcome, reason = explain_choice(
        [candidate.id for candidate in candidates],
        chosen=chosen,
        default=default,
        gain=choice.gain[row],
        gain_se=choice.gain_se[row],
        margin_z=choice.margin_z,
        tie=_ROUNDING,
        unreached=wanted if misses else None,
    )
    return RouteDecision(
        candidate=candidates[chosen],
        default_id=candidates[default].id,
        outcome=outcome,
        reason=reason,
        ranking=_ranking(row, choice, prediction),
        expected_cost_usd=_or_none(choice.cost_usd[row, chosen]),
        margin_z=choice.margin_z,
        propensity=1.0,
        policy_fingerprint=policy.fingerprint,
        artifact=basis.artifact,
    )


def _ranking(row: int, choice: Choice, prediction: Prediction) -> tuple[RankedCandidate, ...]:
    order = np.argsort(-choice.rewards[row], kind="stable").tolist()
    # As Python numbers all at once: one array element after the other costs more than the decision itself.
    performance, se = prediction.performance[row].tolist(), prediction.performance_se[row].tolist()
    cost, rewards, excluded = (
        choice.cost_usd[row].tolist(),
        choice.rewards[row].tolist(),
        choice.excluded[row],
    )
    return tuple(
        RankedCandidate(
            candidate_id=prediction.candidates[column].id,
            performance=performance[column],
            performance_se=se[column],
            cost_usd=_or_none(cost[column]),
            reward=None if excluded[column] else rewards[column],
            excluded=excluded[column] or None,
        )
        for column in order
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
