"""What a benchmark of heads on one log found, as data: tables, files and pages are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion_integrations.evaluation.cost_quality import CostQuality
from fusion_integrations.evaluation.query_outcomes import QueryOutcome
from fusion_integrations.evaluation.router_details import RouterDetails
from fusion_integrations.evaluation.verdict import Verdict, verdict_of
from fusion_integrations.statistics import Interval

__all__ = ["BenchmarkReport", "BenchmarkRow", "CostQuality", "HeadDetails", "ScenarioOutcome"]


@dataclass(frozen=True, kw_only=True)
class ScenarioOutcome:
    """What a strategy reached under one policy; intervals are paired by query.

    Attributes:
        performance: Mean performance, in [0, 1].
        cost_usd: Mean USD a call; None if unknown.
        reward: Mean reward of the policy.
        gain: Mean reward above Best Single.
    """

    performance: float
    cost_usd: float | None
    reward: float
    gain: Interval

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON data."""
        return {**vars(self), "gain": vars(self.gain)}


@dataclass(frozen=True, kw_only=True)
class HeadDetails(RouterDetails):
    """What is known of a head beyond its routing.

    Attributes:
        switch_share: Share of queries for which the default was left.
        unbounded: Performance, and gain over Best Single, of always taking the best prediction.
        train_seconds: Time of all trainings of the benchmark together.
        n_members: Ensemble members of each router.
        head_names: Number of routers by their head; several heads where these competed for each router.
    """

    switch_share: float
    unbounded: ScenarioOutcome
    train_seconds: float
    n_members: int
    head_names: Mapping[str, int]

    def title(self, strategy: str) -> str:
        """Name a strategy, and if heads competed, how often each won."""
        if set(self.head_names) == {strategy}:
            return strategy
        won = sorted(self.head_names.items(), key=lambda item: (-item[1], item[0]))
        return f"{strategy} ({', '.join(f'{name} {count}' for name, count in won)})"

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON data."""
        return {
            **super().to_json(),
            "switch_share": self.switch_share,
            "unbounded": self.unbounded.to_json(),
            "train_seconds": self.train_seconds,
            "n_members": self.n_members,
            "head_names": dict(self.head_names),
        }


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One strategy: a baseline or a head.

    Attributes:
        strategy: Its name.
        scenarios: Outcome by policy; the first is that of performance alone.
        per_task: Mean performance by task under the first policy.
        candidate_shares: Share of queries by candidate under the first policy.
        head: Details of a head; None for a baseline.
    """

    strategy: str
    scenarios: Mapping[str, ScenarioOutcome]
    per_task: Mapping[str, float]
    candidate_shares: Mapping[str, float]
    head: HeadDetails | None = None

    @property
    def first(self) -> ScenarioOutcome:
        """The outcome under the first policy."""
        return next(iter(self.scenarios.values()))

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        return {
            "strategy": self.strategy,
            "scenarios": {name: outcome.to_json() for name, outcome in self.scenarios.items()},
            "per_task": dict(self.per_task),
            "candidate_shares": dict(self.candidate_shares),
            "head": None if self.head is None else self.head.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """Heads and baselines on the queries of one log.

    Attributes:
        name: Of the log.
        split: How queries were kept apart, in words.
        answers: Which training answers the heads saw, in words.
        label: The score that counts as performance.
        candidates: Mean performance by candidate id.
        candidate_costs: Mean USD a call by candidate id; None where unknown.
        candidate_tasks: Mean performance by candidate id and task.
        tasks: Number of queries by task.
        n_queries: Queries measured on.
        n_groups: Groups among them: sessions where they were logged, else near-duplicates.
        n_left_out: Queries that not every candidate answered, or that no router predicted.
        is_estimated: Whether outcomes of answers that were never logged are doubly robust estimates, since
            few queries have every answer. There is no Oracle then.
        level: Coverage of the intervals.
        policies: The policies, as JSON data, by name.
        rows: Baselines, then heads.
        queries: Some of the queries.
    """

    name: str
    split: str
    answers: str
    label: str
    candidates: Mapping[str, float]
    candidate_costs: Mapping[str, float | None]
    candidate_tasks: Mapping[str, Mapping[str, float]]
    tasks: Mapping[str, int]
    n_queries: int
    n_groups: int
    n_left_out: int
    is_estimated: bool
    level: float
    policies: Mapping[str, Mapping[str, Any]]
    rows: tuple[BenchmarkRow, ...]
    queries: tuple[QueryOutcome, ...]

    @property
    def routers(self) -> tuple[str, ...]:
        """Names of the heads."""
        return tuple(row.strategy for row in self.rows if row.head is not None)

    @property
    def cost_remark(self) -> str:
        """Why costs are not weighed although some are known; empty if they are, or none is."""
        if len(self.policies) > 1 or not any(self.candidate_costs.values()):
            return ""
        return "Costs are not weighed: some LLM's is unknown in a part, or for most queries."

    def verdict(self, row: BenchmarkRow) -> Verdict:
        """Say how a row's performance compares with Best Single, no more than its interval allows."""
        return verdict_of(row.first.gain, n_groups=self.n_groups)

    def to_json(self, *, with_queries: bool = False) -> dict[str, Any]:
        """Return the report as JSON data.

        Args:
            with_queries: Whether to put query texts in; they may be private.

        Returns:
            The data.
        """
        return {
            **vars(self),
            "candidates": dict(self.candidates),
            "candidate_costs": dict(self.candidate_costs),
            "candidate_tasks": {name: dict(means) for name, means in self.candidate_tasks.items()},
            "tasks": dict(self.tasks),
            "policies": {name: dict(policy) for name, policy in self.policies.items()},
            "rows": [row.to_json() | {"verdict": self.verdict(row)} for row in self.rows],
            "queries": [query.to_json() for query in self.queries] if with_queries else [],
        }
