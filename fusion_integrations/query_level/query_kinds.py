"""Kinds of query: tasks that logs name, else queries that logs treat alike; and whose answers lack which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.scaling import FeatureScaling
from fusion_integrations.query_level.router_dataset import RouterDataset

__all__ = ["Kinds", "hardly_answered", "kinds_by_task", "kinds_of_queries", "sums_by_kind"]

Kinds = npt.NDArray[np.intp]
"""(n,) kind of each query, from 0."""

_HARDLY, _MOST = 0.25, 30  # of the answers that a kind would have by chance, and at most so many
_BY_CHANCE = 10  # fewer answers by chance may all be missing by chance
_MIN_QUERIES = 8  # a task of fewer queries is no kind of its own
_PER_CLUSTER = 30  # answers of a candidate by chance, so that it can be seen which clusters it left out
_MAX_PATTERNS, _MAX_PARTS = 8, 4
_N_FOLDS = 5
_MAX_QUERIES = 20_000  # to learn patterns and clusters from
_L2_PENALTY = 400.0  # as for the linear head's squared error


def kinds_by_task(tasks: Sequence[str | None]) -> Kinds:
    """Sort queries into kinds by the tasks that logs name.

    Args:
        tasks: n task names, or None where unknown.

    Returns:
        The kinds; queries of rare and of unknown tasks are of one. All are unless two tasks have enough
        queries, and tasks of enough queries hold half of all.
    """
    names = np.array([task or "" for task in tasks], dtype=np.str_)
    unique, kind, counts = np.unique(names, return_inverse=True, return_counts=True)
    frequent = (counts >= _MIN_QUERIES) & (unique != "")
    if frequent.sum() < 2 or counts[frequent].sum() < len(names) / 2:
        return np.zeros(len(names), dtype=np.intp)
    number = np.where(frequent, np.cumsum(frequent), 0)
    found: Kinds = np.unique(number[kind], return_inverse=True)[1]
    return found


def kinds_of_queries(
    dataset: RouterDataset, features: Callable[[], FloatArray], *, n_embedding: int, seed: int
) -> Kinds:
    """Sort queries into kinds by task; where logs name no tasks, by who is likely to have been asked.

    Whoever sent queries here or there went by something in them. So who answered is predicted from the
    features, out of fold; queries of like predictions are of one kind, which is split by what they look like.

    Args:
        dataset: n queries; what counts is their tasks, and which candidates' performance was logged.
        features: Gives the (n, d) features of the queries, the embedding first, where they are needed.
        n_embedding: How many of the d features are the embedding.
        seed: Seed of folds and clusters.

    Returns:
        The kinds; all one where no outcome is missing, as nothing was left out then.
    """
    answered, n = ~np.isnan(dataset.performance), len(dataset)
    if answered.all():
        return np.zeros(n, dtype=np.intp)
    by_task = kinds_by_task(dataset.tasks)
    if by_task.any():
        return by_task
    given = features()
    scaled = FeatureScaling.fit(given, n_embedding=n_embedding).apply(given)
    n_answers = float(np.median(answered.sum(axis=0)))
    patterns = _clustered(
        _patterns(answered, scaled, seed=seed), n_answers / _PER_CLUSTER, n_max=_MAX_PATTERNS, seed=seed
    )
    kinds, n_kinds = np.zeros(n, dtype=np.intp), 0
    for pattern in np.unique(patterns):
        rows = np.flatnonzero(patterns == pattern)
        n_clusters = n_answers * len(rows) / n / _PER_CLUSTER
        parts = _clustered(scaled[rows], n_clusters, n_max=_MAX_PARTS, seed=seed)
        kinds[rows] = n_kinds + parts
        n_kinds += int(parts.max()) + 1
    return kinds


def hardly_answered(answered: npt.NDArray[np.bool_], kinds: Kinds) -> npt.NDArray[np.bool_]:
    """Say which kinds of query each candidate answered a quarter as often as by chance, or less.

    Thirty answers of a kind are enough to learn from, however many there are of others.

    Args:
        answered: (n, k).
        kinds: (n,) from 0 to g - 1.

    Returns:
        Mask (g, k).
    """
    counts = sums_by_kind(answered, kinds)
    by_chance = counts.sum(axis=0) * (np.bincount(kinds)[:, None] / max(len(kinds), 1))
    found: npt.NDArray[np.bool_] = (counts <= np.minimum(_HARDLY * by_chance, _MOST)) & (
        by_chance >= _BY_CHANCE
    )
    return found


def sums_by_kind(values: npt.NDArray[np.generic], kinds: Kinds) -> npt.NDArray[np.float64]:
    """Add (n, k) values up by kind, (g, k)."""
    return np.stack([np.bincount(kinds, weights=column) for column in values.T], axis=1)


def _patterns(answered: npt.NDArray[np.bool_], scaled: FloatArray, *, seed: int) -> FloatArray:
    """Predict (n, k) chances of an answer, each query's by a regression that has not seen it."""
    linear_model = require("sklearn.linear_model", extra="train")
    rng = np.random.default_rng(seed)
    folds, chances = rng.integers(_N_FOLDS, size=len(scaled)), np.zeros(answered.shape, dtype=np.float32)
    for fold in np.unique(folds):
        learned = rng.permutation(np.flatnonzero(folds != fold))[:_MAX_QUERIES]
        if len(learned):
            model = linear_model.Ridge(alpha=_L2_PENALTY).fit(scaled[learned], answered[learned])
            chances[folds == fold] = model.predict(scaled[folds == fold]).reshape(-1, answered.shape[1])
    return chances


def _clustered(points: FloatArray, n_clusters: float, *, n_max: int, seed: int) -> Kinds:
    """Sort (n, d) points into at most n_max clusters, numbered from 0."""
    cluster = require("sklearn.cluster", extra="train")
    rng = np.random.default_rng(seed)
    sample = points[rng.permutation(len(points))[:_MAX_QUERIES]] if len(points) > _MAX_QUERIES else points
    n = int(np.clip(n_clusters, 1, min(n_max, len(np.unique(sample, axis=0)))))
    labels = cluster.KMeans(n_clusters=n, n_init=3, random_state=seed).fit(sample).predict(points)
    found: Kinds = np.unique(labels, return_inverse=True)[1]
    return found
