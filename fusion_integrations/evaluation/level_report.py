"""What a comparison of the fusion levels found, as data, and in words that claim no more than it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fusion_integrations.evaluation.evaluation_report import (
    ReplayFacts,
    StrategyOutcome,
    Verdict,
    verdict_of,
)
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.statistics import Interval

__all__ = ["FUSION_LEVELS", "FusionLevel", "Level", "LevelEffect", "LevelReport", "LevelRow"]

FusionLevel = Literal["query level", "thought level", "model level", "all levels"]
Level = Literal["zero-shot", "baseline"] | FusionLevel

FUSION_LEVELS: tuple[FusionLevel, ...] = ("query level", "thought level", "model level", "all levels")

_WORDS: dict[Verdict, str] = {
    "better": "better than",
    "worse": "worse than",
    "not distinguishable": "not distinguishable from",
    "too few queries": "on too few independent queries to compare with",
}


@dataclass(frozen=True, kw_only=True)
class LevelRow(StrategyOutcome):
    """What one setting of a level reached; its gains are over the report's reference.

    Attributes:
        level: Where it belongs.
        name: Id of the candidate, or what the router or baseline is called.
    """

    level: Level
    name: str

    @property
    def task_mean(self) -> float | None:
        """Mean of the tasks' means, each task counting alike; None if the logs name no task."""
        return sum(self.per_task.values()) / len(self.per_task) if self.per_task else None


@dataclass(frozen=True, kw_only=True)
class LevelEffect:
    """What a level changes, all else equal: the same model, or the same queries routed.

    Attributes:
        level: The level at work.
        name: The setting with it.
        against: The setting without it.
        performance_gain: Mean performance of `name` above `against`, paired by query.
        cost_change_usd: Mean USD a call of `name` above `against`; None if unknown.
    """

    level: FusionLevel
    name: str
    against: str
    performance_gain: Interval
    cost_change_usd: float | None


@dataclass(frozen=True, kw_only=True)
class LevelReport(ReplayFacts):
    """The fusion levels on the same held-out queries.

    Attributes:
        rows: Zero-shot, query, thought and model level, all levels, then the baselines.
        effects: What each level changes where all else is equal.
        reference: Id of the zero-shot candidate that was best in training; gains of rows are over it.
        students: Base model by student model.
        without_counterpart: Candidates for which there is nothing to compare with all else equal.
        policy: What the routers and baselines maximise.
        cost_scale_usd: USD a call that count as one full point of performance; None if cost does not count.
        coverage: Coverage of the intervals.
        n_train_queries: Training queries on which Best Single and Best per Task were chosen.
        n_reference_queries: Training queries on which the reference was chosen.
    """

    rows: tuple[LevelRow, ...]
    effects: tuple[LevelEffect, ...]
    reference: str
    students: Mapping[str, str]
    without_counterpart: tuple[str, ...]
    policy: RoutingPolicy
    cost_scale_usd: float | None
    coverage: float
    n_train_queries: int
    n_reference_queries: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting the numbers, one sentence each."""
        present = {row.level for row in self.rows}
        found = [
            f"No candidate is of the {level}, so it is not compared."
            for level in FUSION_LEVELS
            if level not in present
        ]
        if self.without_counterpart:
            found.append(
                "Without a counterpart that differs in the level alone, so without an effect: "
                f"{', '.join(self.without_counterpart)}."
            )
        return (*found, *super().warnings)

    def verdict(self, row: LevelRow) -> Verdict:
        """Say how a row's reward compares with the reference, no more than its interval allows."""
        return verdict_of(row.reward_gain, n_groups=self.n_groups)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """One line for each row of a fusion level, then one that names the highest and those that help."""
        rows = [row for row in self.rows if row.level in FUSION_LEVELS]
        goal = "reward" if self.policy.cost_weight > 0 else "performance"
        reference = f"the best zero-shot candidate '{self.reference}'"
        lines = [
            f"{_title(row)}: {_WORDS[self.verdict(row)]} {reference} in {goal}, {row.reward_gain}."
            for row in rows
        ]
        highest = max(rows, key=lambda row: row.reward_gain.mean)  # max() takes the first of equals
        conclusion = f"Highest of {len(rows)}: {_title(highest)}, {highest.reward_gain}; "
        if self.verdict(highest) == "too few queries":
            return (*lines, conclusion + "too few independent queries to conclude from.")
        excludes_zero = self.verdict(highest) != "not distinguishable"
        conclusion += f"its {self.coverage:.0%} interval {'excludes' if excludes_zero else 'includes'} 0. "
        better = [_title(row) for row in rows if self.verdict(row) == "better"]
        if not better:
            return (*lines, conclusion + f"No level is shown to be better than {reference}.")
        conclusion += f"Better than {reference}: {', '.join(better)}. "
        return (
            *lines,
            conclusion + "The highest was picked on these same queries: expect somewhat less of it.",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data; intervals, verdicts and warnings included."""
        return asdict(self) | {
            "rows": [
                {"level": row.level, "name": row.name}
                | asdict(row)
                | {"task_mean": row.task_mean, "verdict": self.verdict(row)}
                for row in self.rows
            ],
            "effects": [
                asdict(effect) | {"verdict": verdict_of(effect.performance_gain, n_groups=self.n_groups)}
                for effect in self.effects
            ],
            "policy": self.policy.to_json(),
            "candidates": list(self.candidates),
            "trained_elsewhere": list(self.trained_elsewhere),
            "without_counterpart": list(self.without_counterpart),
            "verdicts": list(self.verdicts),
            "warnings": list(self.warnings),
        }


def _title(row: LevelRow) -> str:
    return f"{row.level} ({row.name})"
