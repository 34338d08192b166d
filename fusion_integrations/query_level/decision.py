"""Decisions for people and logs: who answers, what was expected of everyone, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.choice import ROUNDING, Choice, choose, reward
from fusion_integrations.query_level.explanation import Outcome, explain_choice, explain_quality
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["Choice", "DecisionBasis", "RankedCandidate", "RouteDecision", "choose", "decide", "reward"]

_Z_95 = 1.96  # half of a normal distribution's 95% interval, in standard errors


class RankedCandidate(NamedTuple):
    """One candidate as a decision saw it; a tuple, because a decision makes one for every candidate.

    Attributes:
        candidate_id: Who.
        performance: Expected performance in [0, 1].
        performance_se: Standard error of that expectation.
        performance_low: Lower end of its 95% interval, from the error as calibrated on validation data.
        performance_high: Upper end.
        cost_usd: Expected cost of the call; None if unknown.
        latency_s: Expected seconds of the call; None if unknown.
        reward: What the policy maximises: the reward, or with `quality_of` what it is worth beside that
            candidate, in points of performance. None if not eligible.
        excluded: Why the policy excludes it; None if eligible.
    """

    candidate_id: str
    performance: float
    performance_se: float
    performance_low: float
    performance_high: float
    cost_usd: float | None
    latency_s: float | None
    reward: float | None
    excluded: str | None


# `RankedCandidate._make` without its Python code, which takes twice as long.
_ranked: Callable[[Iterable[Any]], RankedCandidate] = partial(tuple.__new__, RankedCandidate)


@dataclass(frozen=True, kw_only=True)
class RouteDecision:
    """Which candidate answers a query, and why.

    Attributes:
        candidate: The chosen one.
        default_id: The best single candidate for this policy; with `quality_of`, that one if eligible.
        outcome: `"switched"` if the default was left, `"default"` if it was kept (also when the router
            abstained for lack of evidence), `"explored"` if chance took another than would have been chosen,
            `"only_eligible"` if there was no choice, `"pinned"` if the caller chose.
        reason: One sentence for people.
        ranking: Every candidate, eligible ones first, by reward.
        expected_cost_usd: Of the chosen one; None if unknown.
        expected_latency_s: Of the chosen one; None if unknown.
        margin_z: The margin that was applied to the chosen one.
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
    expected_latency_s: float | None
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
            "expected_latency_s": self.expected_latency_s,
            "margin_z": self.margin_z if math.isfinite(self.margin_z) else None,
            "propensity": self.propensity,
            "policy": self.policy_fingerprint,
            "artifact": self.artifact,
            "ranking": [ranked._asdict() for ranked in self.ranking],
        }


def decide(
    prediction: Prediction,
    policy: RoutingPolicy,
    *,
    basis: DecisionBasis,
    prices: PriceTable | None = None,
    generators: Sequence[np.random.Generator] | None = None,
) -> list[RouteDecision]:
    """Apply a policy and explain every choice; errors as in `choose`.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.
        generators: n random sources; needed by a policy that explores.

    Returns:
        One decision a query, in their order.
    """
    choice = choose(prediction, policy, basis=basis, prices=prices, generators=generators)
    return [_explain(row, choice, prediction, policy, basis) for row in range(len(choice.chosen))]


def _explain(
    row: int, choice: Choice, prediction: Prediction, policy: RoutingPolicy, basis: DecisionBasis
) -> RouteDecision:
    chosen, default = int(choice.chosen[row]), int(choice.default[row])
    candidates, latency = prediction.candidates, prediction.logged_latency_s
    outcome, reason = _reason(row, choice, prediction, policy)
    return RouteDecision(
        candidate=candidates[chosen],
        default_id=candidates[default].id,
        outcome=outcome,
        reason=reason,
        ranking=_ranking(row, choice, prediction, se_scale=basis.se_scale),
        expected_cost_usd=_or_none(choice.cost_usd[row, chosen]),
        expected_latency_s=None if latency is None else _or_none(latency[row, chosen]),
        margin_z=float(choice.margin_z[chosen]),
        propensity=float(choice.propensity[row]),
        policy_fingerprint=policy.fingerprint,
        artifact=basis.artifact,
    )


def _reason(row: int, choice: Choice, prediction: Prediction, policy: RoutingPolicy) -> tuple[Outcome, str]:
    """Explain what would have been chosen without exploration, then what chance made of it."""
    candidates = prediction.candidates
    favourite, default = int(choice.favourite[row]), int(choice.default[row])
    performance, wanted = prediction.performance[row], policy.min_performance
    if choice.bar is None:
        outcome, reason = explain_choice(
            candidates,
            chosen=favourite,
            default=default,
            gain=choice.gain[row],
            gain_se=choice.gain_se[row],
            margin_z=choice.margin_z,
            tie=ROUNDING,
            is_novel=prediction.is_novel is not None and bool(prediction.is_novel[row]),
        )
    else:
        outcome, reason = explain_quality(
            candidates,
            chosen=favourite,
            bar=choice.bar,
            is_permitted=choice.permitted[row],
            performance=performance,
            cost_usd=choice.cost_usd[row],
        )
    if wanted is not None and performance[favourite] < wanted:
        reason += f" No eligible candidate is expected to reach the wanted performance {wanted:g}."
    chosen = int(choice.chosen[row])
    if chosen != favourite:
        name = candidates[chosen].id
        taken = f"'{name}' was taken to explore ({policy.exploration}), with a probability of"
        reason = f"{taken} {choice.propensity[row]:.3g}. Without that: {reason}"
        outcome = "explored"
    return outcome, reason


def _ranking(
    row: int, choice: Choice, prediction: Prediction, *, se_scale: float
) -> tuple[RankedCandidate, ...]:
    performance, se = prediction.performance[row], prediction.performance_se[row]
    half = _Z_95 * se_scale * se
    latency = prediction.logged_latency_s
    excluded = [reason or None for reason in choice.excluded[row].tolist()]
    rewards = choice.rewards[row].tolist()
    # Lists, because reading NumPy's numbers one by one takes longer than deciding.
    columns = zip(
        [candidate.id for candidate in prediction.candidates],
        performance.tolist(),
        se.tolist(),
        np.maximum(performance - half, 0.0).tolist(),
        np.minimum(performance + half, 1.0).tolist(),
        _numbers_or_none(choice.cost_usd[row]),
        [None] * len(excluded) if latency is None else _numbers_or_none(latency[row]),
        [None if reason else worth for worth, reason in zip(rewards, excluded, strict=True)],
        excluded,
        strict=True,
    )
    ranked = list(map(_ranked, columns))
    order = np.argsort(-choice.rewards[row], kind="stable")
    return tuple([ranked[column] for column in order.tolist()])


def _numbers_or_none(values: FloatArray) -> list[float | None]:
    numbers: list[float] = values.tolist()
    return [_or_none(number) for number in numbers] if np.isnan(values).any() else [*numbers]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
