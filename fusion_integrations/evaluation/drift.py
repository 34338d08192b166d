"""Does what training found still hold? The router and the best single candidate on newer logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fusion_integrations.evaluation.verdict import verdict_of
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.statistics import Interval, paired_interval

__all__ = [
    "BestSingleDrift",
    "Drift",
    "DriftVerdict",
    "RouterDrift",
    "best_single_drift",
    "router_drift",
    "validated_gain",
]

DriftVerdict = Literal[
    "still better", "better", "no longer distinguishable", "not distinguishable", "worse", "too few queries"
]
_ADVICE: dict[DriftVerdict, str] = {
    "still better": "still better than Best Single",
    "better": "better than Best Single",
    "no longer distinguishable": "no longer distinguishable from Best Single: collect more logs, or retrain",
    "not distinguishable": "not distinguishable from Best Single",
    "worse": "worse than Best Single: retrain",
    "too few queries": "too few independent queries to tell",
}


@dataclass(frozen=True, kw_only=True)
class RouterDrift:
    """One router under one policy.

    Attributes:
        router: Its name.
        policy: Name of the policy.
        validated_gain: Mean reward above the best single candidate that validation found in training, 0 if
            the router never leaves it; None if that was not validated.
        gain: Mean reward above Best Single on the newer logs.
        verdict: What is left of the validated gain.
    """

    router: str
    policy: str
    validated_gain: float | None
    gain: Interval
    verdict: DriftVerdict

    @property
    def advice(self) -> str:
        """The verdict in words, and what to do."""
        return _ADVICE[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the drift as JSON data."""
        return {**vars(self), "gain": vars(self.gain), "advice": self.advice}


@dataclass(frozen=True, kw_only=True)
class BestSingleDrift:
    """The best single candidate under one policy.

    Attributes:
        policy: Name of the policy.
        trained: Id of the best one in training.
        newest: Id of the best one on the newer logs.
        gain: Mean reward of the latter above the former, paired by query. As the best of k - 1 others was
            picked by these very queries, the interval is wide enough for all of them (Bonferroni).
        verdict: Whether it changed, as far as the interval allows to say.
    """

    policy: str
    trained: str
    newest: str
    gain: Interval
    verdict: Literal["same", "changed", "not distinguishable", "too few queries"]

    @property
    def words(self) -> str:
        """The finding in one sentence."""
        if self.verdict == "same":
            return f"{self.policy}: Best Single is still '{self.trained}'."
        found = {
            "changed": "changed",
            "not distinguishable": "may have changed",
            "too few queries": "may have changed, with too few independent queries to tell",
        }[self.verdict]
        return (
            f"{self.policy}: Best Single {found}, from '{self.trained}' in training to '{self.newest}' here: "
            f"{self.gain} in reward."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the drift as JSON data."""
        return {**vars(self), "gain": vars(self.gain)}


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What changed since training.

    Attributes:
        routers: One entry a policy and router.
        best_single: One entry a policy.
        novel: By router, how many of the queries it considers unlike its training logs; None if it cannot
            tell, having learned from too few.
        n_queries: The queries.
    """

    routers: tuple[RouterDrift, ...]
    best_single: tuple[BestSingleDrift, ...]
    novel: Mapping[str, int | None]
    n_queries: int

    @property
    def lines(self) -> tuple[str, ...]:
        """What changed beside the routers' gains, one sentence each."""
        known = {name: count for name, count in self.novel.items() if count is not None}
        return (
            *(each.words for each in self.best_single),
            *(
                f"{name}: {count} of {self.n_queries} queries ({count / self.n_queries:.1%}) are unlike its "
                "training logs."
                for name, count in known.items()
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the drift as JSON data."""
        return {
            "routers": [each.to_json() for each in self.routers],
            "best_single": [each.to_json() for each in self.best_single],
            "novel": dict(self.novel),
            "n_queries": self.n_queries,
        }


def validated_gain(metrics: Mapping[str, Any], policy: RoutingPolicy) -> float | None:
    """Look up what a router's training validated for a policy.

    Args:
        metrics: The router's metrics.
        policy: The policy.

    Returns:
        The mean reward gain at the nearest validated cost weight, 0 if no margin passed; None if the router
        does not say, or the policy decides by another rule.
    """
    margins = metrics.get("validated_margins")
    if not margins or policy.margin_z is not None or policy.quality_of is not None:
        return None
    nearest = min(margins, key=lambda margin: abs(margin["cost_weight"] - policy.cost_weight))
    return 0.0 if nearest["margin_z"] is None else float(nearest["gain"])


def router_drift(
    router: str, policy: str, *, validated: float | None, gain: Interval, n_groups: int
) -> RouterDrift:
    """Compare a router's gain with the validated one.

    Args:
        router: The router's name.
        policy: The policy's name.
        validated: What validation found; see `validated_gain`.
        gain: The gain now.
        n_groups: Groups of queries that its interval resamples.

    Returns:
        The drift.
    """
    plain, had_gain = verdict_of(gain, n_groups=n_groups), validated is not None and validated > 0
    verdict: DriftVerdict = plain
    if had_gain and plain == "better":
        verdict = "still better"
    if had_gain and plain == "not distinguishable":
        verdict = "no longer distinguishable"
    return RouterDrift(router=router, policy=policy, validated_gain=validated, gain=gain, verdict=verdict)


def best_single_drift(
    policy: str,
    rewards: npt.NDArray[np.floating],
    *,
    trained: int,
    eligible: npt.NDArray[np.bool_],
    ids: tuple[str, ...],
    groups: tuple[str, ...],
    level: float,
    seed: int,
) -> BestSingleDrift:
    """Compare the best single candidate in training with the best one on newer logs.

    Args:
        policy: The policy's name.
        rewards: (n, k) rewards on the newer logs, NaN where unknown.
        trained: Column of the best one in training.
        eligible: (k,) whom the policy lets answer.
        ids: k candidate ids.
        groups: n keys of queries to resample together.
        level: Coverage of the interval, all comparisons together.
        seed: Seed of the bootstrap.

    Returns:
        The drift; ties keep the candidate of training.
    """
    means = np.where(eligible, rewards.mean(axis=0, dtype=np.float64), -math.inf)
    means = np.where(np.isnan(means), -math.inf, means)
    newest = trained if means[trained] >= means.max() else int(means.argmax())
    n_others = max(1, int(eligible.sum()) - 1)
    gain = paired_interval(
        rewards[:, newest].astype(np.float64) - rewards[:, trained],
        groups=groups,
        level=1 - (1 - level) / n_others,
        seed=seed,
    )
    verdict: Literal["same", "changed", "not distinguishable", "too few queries"] = "same"
    if newest != trained:
        found = verdict_of(gain, n_groups=len(set(groups)))
        verdict = "changed" if found == "better" else "not distinguishable"
        if found == "too few queries":
            verdict = found
    return BestSingleDrift(
        policy=policy, trained=ids[trained], newest=ids[newest], gain=gain, verdict=verdict
    )
