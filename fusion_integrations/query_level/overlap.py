"""How much partial logs can tell: who answered how much, by what chance, and what no log can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.query_level.heads.base import MIN_ANSWERS
from fusion_integrations.query_level.off_policy import (
    MIN_TRAINING_PROPENSITY,
    effective_sample_size,
    importance_weights,
)
from fusion_integrations.query_level.query_kinds import Kinds, hardly_answered
from fusion_integrations.query_level.router_dataset import RouterDataset

__all__ = ["Overlap", "measure_overlap"]

_FEW_EFFECTIVE = 50  # weighted answers worth fewer than this say little of a mean


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What the answers of a log cover.

    Attributes:
        n_queries: Queries with a score.
        n_complete: Those that every candidate answered.
        n_certain: Those answered by one candidate that a deterministic policy chose: nobody else could have.
        effective_answers: By candidate id, what its weighted answers are worth in equally weighted ones.
        n_answers: By candidate id, its answers.
        n_rare: Answers logged with a probability below that which they count with in training.
        avoided: By candidate id, the kinds of query that it hardly answered: tasks by name, and what share of
            the queries others are. Answers are then not missing at random.
    """

    n_queries: int
    n_complete: int
    n_certain: int
    effective_answers: dict[str, float]
    n_answers: dict[str, int]
    n_rare: int = 0
    avoided: dict[str, list[str]] = field(default_factory=dict)

    @property
    def certainty(self) -> str:
        """The warning that most queries were routed with certainty; empty if not."""
        if self.n_certain <= self.n_queries / 2:
            return ""
        return (
            f"No overlap: {self.n_certain} of {self.n_queries} queries were routed with certainty, so "
            "nothing tells how another candidate would have done on them but queries that look alike. "
            "Log with exploration (RoutingPolicy.exploration) to learn more."
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before trusting a router learned from them, one sentence each."""
        found = [self.certainty] if self.certainty else []
        few = [name for name, count in self.n_answers.items() if count < MIN_ANSWERS]
        if few:
            found.append(
                f"Fewer than {MIN_ANSWERS} answers of {few}: they are not chosen before there are more."
            )
        weak = [
            f"{name} ({size:.0f})"
            for name, size in self.effective_answers.items()
            if size < min(_FEW_EFFECTIVE, 0.5 * self.n_answers[name]) and name not in few
        ]
        if weak:
            found.append(
                "Weighted by how unlikely they were, the answers are worth few: " + ", ".join(weak) + "."
            )
        if self.n_rare:
            found.append(
                f"{self.n_rare} answers were logged with a probability below {MIN_TRAINING_PROPENSITY:g} and "
                "count in training as if it had been that: what is learned of candidates so rarely tried "
                "leans towards the queries they were tried on."
            )
        return (*found, *self.assumptions)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is assumed of candidates on kinds of query that they hardly answered, one sentence each."""
        return tuple(
            f"'{name}' hardly answered {kinds}: what it is worth there, and so its mean, is assumed: from "
            "other candidates there, and from how it compares with them elsewhere. Let it answer some of "
            "those queries before relying on it."
            for name, kinds in self.avoided.items()
        )

    def without(self, candidate_id: str) -> Overlap:
        """Leave one candidate out of what is said by candidate."""
        by_candidate: dict[str, Any] = {
            name: {known: value for known, value in getattr(self, name).items() if known != candidate_id}
            for name in ("effective_answers", "n_answers", "avoided")
        }
        return replace(self, **by_candidate)

    def to_json(self) -> dict[str, Any]:
        """Return the overlap as JSON data, warnings included."""
        return {**vars(self), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Overlap:
        """Rebuild the overlap from `to_json`."""
        return cls(**{name: value for name, value in data.items() if name != "warnings"})


def measure_overlap(frame: pl.DataFrame, dataset: RouterDataset, *, kinds: Kinds) -> Overlap:
    """Measure what the answers of a log cover.

    Args:
        frame: The logs, in `LOG_SCHEMA`.
        dataset: The same, pivoted: n queries.
        kinds: (n,) their kinds.

    Returns:
        The overlap.
    """
    answered = ~np.isnan(dataset.performance)
    ids = [candidate.id for candidate in dataset.candidates]
    single = {
        query_id
        for query_id, count in zip(dataset.query_ids, answered.sum(axis=1), strict=True)
        if count == 1
    }
    certain = frame.filter(
        (pl.col("assignment") == "policy") & (pl.col("propensity") == 1) & pl.col("candidate_id").is_in(ids)
    )["query_id"].unique()
    sizes = effective_sample_size(importance_weights(dataset.performance, dataset.propensity))
    return Overlap(
        n_queries=len(dataset),
        n_complete=int(answered.all(axis=1).sum()),
        n_certain=len(single & set(certain)),
        effective_answers=dict(zip(ids, map(float, sizes), strict=True)),
        n_answers=dict(zip(ids, map(int, answered.sum(axis=0)), strict=True)),
        n_rare=int((answered & (dataset.propensity < MIN_TRAINING_PROPENSITY)).sum()),
        avoided=_avoided(answered, ids=ids, tasks=dataset.tasks, kinds=kinds),
    )


def _avoided(
    answered: npt.NDArray[np.bool_], *, ids: list[str], tasks: tuple[str | None, ...], kinds: Kinds
) -> dict[str, list[str]]:
    seldom = hardly_answered(answered, kinds)
    if not seldom.any():
        return {}
    names, found = _kind_names(tasks, kinds), {}
    for column in np.flatnonzero(seldom.any(axis=0)):
        left_out = np.flatnonzero(seldom[:, column]).tolist()
        share = np.isin(kinds, [kind for kind in left_out if kind not in names]).mean()
        rest = [f"{share:.0%} of the queries, of no common task"] if share > 0 else []
        found[ids[column]] = [*(names[kind] for kind in left_out if kind in names), *rest]
    return found


def _kind_names(tasks: tuple[str | None, ...], kinds: Kinds) -> dict[int, str]:
    """Name the kinds whose queries are all of one task."""
    of_kind: dict[int, set[str]] = {}
    for task, kind in zip(tasks, kinds.tolist(), strict=True):
        of_kind.setdefault(kind, set()).add(task or "")
    return {kind: names.pop() for kind, names in of_kind.items() if len(names) == 1 and "" not in names}
