"""Single queries, for a reader who wants to see: what every candidate scored, and whom each router chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.router_dataset import RouterDataset

__all__ = ["QueryOutcome", "query_outcomes"]

Columns = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class QueryOutcome:
    """One query.

    Attributes:
        query_id: Its id.
        text: Its text.
        task: Its task, if known.
        performance: Performance by candidate; only what is known.
        chosen: Chosen candidate by router.
    """

    query_id: str
    text: str
    task: str | None
    performance: Mapping[str, float]
    chosen: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the query as JSON data."""
        return {**vars(self), "performance": dict(self.performance), "chosen": dict(self.chosen)}


def query_outcomes(
    logged: RouterDataset,
    chosen: Mapping[str, Columns],
    *,
    reached: FloatArray,
    best_single: Columns,
    n_shown: int | None,
    seed: int,
) -> list[QueryOutcome]:
    """Pick queries to show: those where a router's choice changed most, then others at random.

    Args:
        logged: n queries, as logged.
        chosen: (n,) chosen column of each query, by router.
        reached: (n, k) what every candidate reaches.
        best_single: (n,) column of the best single candidate.
        n_shown: How many at most; None for all.
        seed: Seed of the order of those that change alike.

    Returns:
        The queries.
    """
    rows, ids = np.arange(len(logged)), [candidate.id for candidate in logged.candidates]
    changes = [np.abs(reached[rows, columns] - reached[rows, best_single]) for columns in chosen.values()]
    order = np.random.default_rng(seed).permutation(len(logged))
    order = order[np.argsort(-np.max(changes, axis=0)[order], kind="stable")][:n_shown]
    return [
        QueryOutcome(
            query_id=logged.query_ids[row],
            text=logged.texts[row],
            task=logged.tasks[row],
            performance={
                ids[column]: float(value)
                for column, value in enumerate(logged.performance[row])
                if not np.isnan(value)
            },
            chosen={router: ids[columns[row]] for router, columns in chosen.items()},
        )
        for row in order
    ]
