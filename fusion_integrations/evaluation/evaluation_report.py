"""What an evaluation found, as data: the one result that tables, files and pages are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.statistics import Interval

__all__ = [
    "EvaluationReport",
    "EvaluationRow",
    "ReplayFacts",
    "StrategyOutcome",
    "Verdict",
    "verdict_of",
]

Verdict = Literal["better", "worse", "not distinguishable", "too few queries"]

# Resampling few groups gives intervals that are too narrow: Cameron, Gelbach and Miller, Bootstrap-Based
# Improvements for Inference with Clustered Errors (2008), name five to thirty as few.
_MIN_GROUPS = 30


@dataclass(frozen=True, kw_only=True)
class StrategyOutcome:
    """What one strategy reached on the replayed queries.

    Attributes:
        performance: Mean performance, in [0, 1].
        cost_usd: Mean USD a call; None if the cost of a chosen answer is unknown.
        reward: Mean reward.
        performance_gain: Mean performance above the reference, paired by query.
        reward_gain: Mean reward above the reference, paired by query.
        switch_share: Share of queries for which a router left its default; None for what is no router.
        per_task: Mean performance by task.
        candidate_shares: Share of queries by candidate id; sums to 1.
    """

    performance: float
    cost_usd: float | None
    reward: float
    performance_gain: Interval
    reward_gain: Interval
    switch_share: float | None
    per_task: Mapping[str, float]
    candidate_shares: Mapping[str, float]

    @property
    def is_router(self) -> bool:
        """Whether the strategy is a router."""
        return self.switch_share is not None


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(StrategyOutcome):
    """What one strategy reached under one policy; its gains are over Best Single.

    Attributes:
        policy: Name of the policy.
        strategy: Name of the baseline or router.
    """

    policy: str
    strategy: str


@dataclass(frozen=True, kw_only=True)
class ReplayFacts:
    """What a replay covered, and what it had to leave out.

    Attributes:
        candidates: Ids of the candidates.
        tasks: Number of replayed queries by task; queries without a task label are in none.
        label: The score that counts as performance.
        n_queries: Replayed queries.
        n_groups: Groups of near-duplicates among them; the intervals resample whole groups.
        n_left_out: Queries without a scored answer (and, where a policy weighs cost, its cost) of every
            candidate.
        n_leaked: Queries left out because training saw them or a near-duplicate.
        n_unseen_task: Replayed queries without a task known from training; Best per Task is Best Single
            there.
        trained_elsewhere: Routers whose own training logs are not the given ones.
    """

    candidates: tuple[str, ...]
    tasks: Mapping[str, int]
    label: str
    n_queries: int
    n_groups: int
    n_left_out: int
    n_leaked: int
    n_unseen_task: int
    trained_elsewhere: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting the numbers, one sentence each."""
        found = []
        n_held_out = self.n_queries + self.n_left_out + self.n_leaked
        if self.n_left_out:
            found.append(
                "Left out because not every candidate has a scored answer: "
                f"{self.n_left_out} of {n_held_out} queries. If failed calls are the reason, the result says "
                "nothing about reliability."
            )
        if self.n_leaked:
            found.append(
                "Left out because training saw them or near-duplicates: "
                f"{self.n_leaked} of {n_held_out} queries."
            )
        if self.n_unseen_task:
            found.append(
                "Without a task known from training, so that Best per Task is Best Single: "
                f"{self.n_unseen_task} of {self.n_queries} queries."
            )
        if self.trained_elsewhere:
            found.append(
                f"Trained on other logs than the given training logs: {', '.join(self.trained_elsewhere)}. "
                "Queries seen in training may be among the replayed ones."
            )
        if self.n_groups < _MIN_GROUPS:
            found.append(
                f"Only {self.n_groups} groups of near-duplicate queries: the intervals are too narrow to "
                f"conclude from; {_MIN_GROUPS} are needed."
            )
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(ReplayFacts):
    """Routers and baselines on the same held-out queries.

    Attributes:
        rows: One row a policy and strategy; a policy's rows stand together, baselines first.
        policies: The policies by name.
        cost_scale_usd: By policy, the USD a call that count as one full point of performance; None where
            cost does not count.
        level: Coverage of the intervals.
    """

    rows: tuple[EvaluationRow, ...]
    policies: Mapping[str, RoutingPolicy]
    cost_scale_usd: Mapping[str, float | None]
    level: float

    def verdict(self, row: EvaluationRow) -> Verdict:
        """Say how a row's reward compares with Best Single, no more than its interval allows."""
        return verdict_of(row.reward_gain, n_groups=self.n_groups)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data; intervals and verdicts included."""
        return asdict(self) | {
            "rows": [
                {"policy": row.policy, "strategy": row.strategy}
                | asdict(row)
                | {"verdict": self.verdict(row)}
                for row in self.rows
            ],
            "policies": {name: policy.to_json() for name, policy in self.policies.items()},
            "candidates": list(self.candidates),
            "trained_elsewhere": list(self.trained_elsewhere),
            "warnings": list(self.warnings),
        }


def verdict_of(gain: Interval, *, n_groups: int) -> Verdict:
    """Say no more of a gain than its interval allows.

    Args:
        gain: The gain over the reference.
        n_groups: Groups of near-duplicates that the interval resamples.

    Returns:
        The verdict; with too few groups there is none, whatever the interval.
    """
    if n_groups < _MIN_GROUPS:
        return "too few queries"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not distinguishable"
