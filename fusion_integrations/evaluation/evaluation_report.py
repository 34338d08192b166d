"""What an evaluation found, as data: the one result that tables, files and pages are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fusion_integrations.evaluation.drift import Drift
from fusion_integrations.evaluation.estimation import Estimation
from fusion_integrations.evaluation.query_outcomes import QueryOutcome
from fusion_integrations.evaluation.router_details import RouterDetails
from fusion_integrations.evaluation.verdict import MIN_GROUPS, Verdict, verdict_of
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.statistics import Interval

__all__ = [
    "EvaluationReport",
    "EvaluationRow",
    "ReplayFacts",
    "StrategyOutcome",
    "Support",
    "Verdict",
    "verdict_of",
]

_MIN_EFFECTIVE = 50  # choices worth fewer logged queries say little of a mean


@dataclass(frozen=True, kw_only=True)
class Support:
    """What partial logs hold of a strategy's choices.

    Attributes:
        effective_sample_size: How many equally weighted queries the logged answers that it chooses are worth.
        weighted_performance: Mean performance from these answers alone, self-normalised; None if there are
            none. Far from the doubly robust one, one of the two is wrong.
    """

    effective_sample_size: float
    weighted_performance: float | None


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
        support: On partial logs, what they hold of its choices; else None.
    """

    performance: float
    cost_usd: float | None
    reward: float
    performance_gain: Interval
    reward_gain: Interval
    switch_share: float | None
    per_task: Mapping[str, float]
    candidate_shares: Mapping[str, float]
    support: Support | None = None

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
        n_groups: Groups among them, which the intervals resample whole: sessions where they were logged, else
            near-duplicates.
        n_left_out: Queries without a scored answer (and, where a policy weighs cost, its cost) of every
            candidate; where outcomes are estimated, without any scored answer.
        n_leaked: Queries left out because training saw them or a near-duplicate.
        n_unseen_task: Replayed queries without a task known from training; Best per Task is Best Single
            there.
        trained_elsewhere: Routers whose own training logs are not the given ones.
        estimation: What estimates rest on, if the logs are partial; None if outcomes were looked up.
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
    estimation: Estimation | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting the numbers, one sentence each."""
        found = []
        n_held_out = self.n_queries + self.n_left_out + self.n_leaked
        if self.estimation is not None:
            found.append(
                f"Only {self.estimation.n_complete} of {self.n_queries} queries have an answer of every "
                "candidate, so outcomes are estimated: predicted by what the training logs say, corrected by "
                "the logged answers (doubly robust). The Oracle cannot be."
            )
            found += self.estimation.warnings
        if self.n_left_out:
            lacking = "not every" if self.estimation is None else "no"
            found.append(
                f"Left out because {lacking} candidate has a scored answer: "
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
        if self.n_groups < MIN_GROUPS:
            found.append(
                f"Only {self.n_groups} groups of queries (near-duplicates, or those of a session): the "
                f"intervals are too narrow to conclude from; {MIN_GROUPS} are needed."
            )
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(ReplayFacts):
    """Routers and baselines on the same held-out queries.

    Attributes:
        name: Of the held-out logs.
        rows: One row a policy and strategy; a policy's rows stand together, baselines first.
        candidate_means: By candidate id, mean performance and mean USD a call, None where unknown.
        policies: The policies by name.
        cost_scale_usd: By policy, the USD a call that count as one full point of performance; None where
            cost does not count.
        level: Coverage of the intervals.
        details: By router, what is known of it beyond its rows.
        drift: Whether what training found still holds on these queries.
        queries: Some of the queries, chosen for under the first policy.
    """

    name: str
    rows: tuple[EvaluationRow, ...]
    candidate_means: Mapping[str, tuple[float, float | None]]
    policies: Mapping[str, RoutingPolicy]
    cost_scale_usd: Mapping[str, float | None]
    level: float
    details: Mapping[str, RouterDetails] = field(default_factory=dict)
    drift: Drift | None = None
    queries: tuple[QueryOutcome, ...] = ()

    @property
    def routers(self) -> tuple[str, ...]:
        """Names of the routers."""
        return tuple(dict.fromkeys(row.strategy for row in self.rows if row.is_router))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting the numbers, one sentence each."""
        weak = {
            row.strategy: row.support.effective_sample_size
            for row in self.rows
            if row.support is not None and row.support.effective_sample_size < _MIN_EFFECTIVE
        }
        if not weak:
            return super().warnings
        named = ", ".join(f"{name} ({size:.0f})" for name, size in weak.items())
        warning = (
            f"The logged answers are worth fewer than {_MIN_EFFECTIVE} queries for {named}: what is said of "
            "them is mostly what the training logs say."
        )
        return (*super().warnings, warning)

    def verdict(self, row: EvaluationRow) -> Verdict:
        """Say how a row's reward compares with Best Single, no more than its interval allows."""
        return verdict_of(row.reward_gain, n_groups=self.n_groups)

    def to_json(self, *, with_queries: bool = False) -> dict[str, Any]:
        """Return the report as JSON data; intervals and verdicts included.

        Args:
            with_queries: Whether to put query texts in; they may be private.

        Returns:
            The data.
        """
        return asdict(self) | {
            "rows": [
                {"policy": row.policy, "strategy": row.strategy}
                | asdict(row)
                | {"verdict": self.verdict(row)}
                for row in self.rows
            ],
            "policies": {name: policy.to_json() for name, policy in self.policies.items()},
            "estimation": None if self.estimation is None else self.estimation.to_json(),
            "details": {name: details.to_json() for name, details in self.details.items()},
            "drift": None if self.drift is None else self.drift.to_json(),
            "candidate_means": {name: list(means) for name, means in self.candidate_means.items()},
            "queries": [query.to_json() for query in self.queries] if with_queries else [],
            "candidates": list(self.candidates),
            "trained_elsewhere": list(self.trained_elsewhere),
            "warnings": list(self.warnings),
        }
