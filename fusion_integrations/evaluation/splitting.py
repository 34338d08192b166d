"""Ways to split logs so that a router is measured on queries it could not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.logs.splits import grouped_folds

__all__ = ["Protocol", "hide_answers", "split_queries"]

Protocol = Literal["folds", "tasks", "families"]

Mask = npt.NDArray[np.bool_]


def split_queries(
    protocol: Protocol, *, groups: Sequence[str], tasks: Sequence[str | None], n_folds: int, seed: int
) -> Iterator[tuple[Mask, Mask]]:
    """Give the parts to train on and to predict, one pair after the other.

    Args:
        protocol: `"folds"` for cross-validation; `"tasks"` to predict each task by what was learned on all
            others; `"families"` the same with the part of a task's name before "/".
        groups: n keys of near-duplicates, never split.
        tasks: n task names.
        n_folds: Number of folds.
        seed: Seed of the folds.

    Yields:
        Masks (n,) of the training and the predicted queries; over all pairs each query is predicted once,
        but for queries of no task.

    Raises:
        NotEnoughLogsError: If there are fewer than two tasks or families to leave out.
    """
    if protocol == "folds":
        folds = grouped_folds(groups, n_folds=n_folds, seed=seed)
        for fold in range(n_folds):
            yield folds != fold, folds == fold
        return
    names = np.array([(task or "").split("/")[0] if protocol == "families" else task or "" for task in tasks])
    parts = sorted(set(names.tolist()) - {""})
    if len(parts) < 2:
        raise NotEnoughLogsError(f"The logs name {len(parts)} {protocol}; leaving one out needs two.")
    keys = np.asarray(groups, dtype=np.str_)
    for part in parts:
        held_out = names == part
        yield ~held_out & ~np.isin(keys, keys[held_out]), held_out


def hide_answers(logged: Mask, *, share: float | Literal["one"], seed: int) -> Mask:
    """Choose which logged answers to keep, as if the others had never been asked for.

    Args:
        logged: (n, k), True where there is an answer.
        share: Share of the answers to keep, each at random; or `"one"` random answer a query.
        seed: Seed of the choice.

    Returns:
        Mask (n, k), True where the answer is kept.
    """
    rng = np.random.default_rng(seed)
    if share == "one":
        kept = np.zeros(logged.shape, dtype=np.bool_)
        rows = np.arange(len(logged))
        while len(rows):  # drawn again where there is no answer: each answer has the same chance
            columns = rng.integers(logged.shape[1], size=len(rows))
            kept[rows, columns] = logged[rows, columns]
            rows = np.flatnonzero(logged.any(axis=1) & ~kept.any(axis=1))
        return kept
    return logged & (rng.random(logged.shape) < share)
