"""What candidates are taken to reach on kinds of query that they hardly answered.

Logs often lack answers by kind: the cheap model got the easy queries, the new one those of one team. Its
mean is then that of other queries, and a head extends it to where it is least true, unseen by validation. So
such cells are filled before heads learn, by what the kind is worth to all and what sets the candidate apart.
See docs/decisions/0016-unanswered-kinds-are-assumed.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import MIN_ANSWERS, HeadInputs
from fusion_integrations.query_level.heads.cluster import cluster_queries
from fusion_integrations.query_level.off_policy import importance_weights

__all__ = [
    "AssumedOutcomes",
    "assume_outcomes",
    "chances_by_kind",
    "complete_columns",
    "fill_targets",
    "hardly_answered",
    "kinds_by_task",
    "kinds_of_queries",
]

_HARDLY = 0.25  # of the answers that a kind would have by chance
_BY_CHANCE = 10  # answers by chance, of which a quarter or less is none (Poisson: .010)
_MIN_QUERIES = 8  # a kind of fewer queries is none of its own
_PER_CLUSTER, _MAX_CLUSTERS = 30, 16  # answers of a candidate, so that it can be seen which it left out
_SHRINKAGE = 10.0  # weight of the assumption beside a kind's few answers, in answers
_N_ROUNDS = 50

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class AssumedOutcomes:
    """What was assumed of g kinds of query and k candidates.

    Attributes:
        is_assumed: (g, k) kinds that a candidate hardly answered.
        means: (g, k) what it is taken to reach there, in [0, 1].
        error: How far such an assumption is usually off, from kinds that candidates did answer.
    """

    is_assumed: npt.NDArray[np.bool_]
    means: Matrix
    error: float

    def error_of_means(self, kinds: npt.NDArray[np.intp]) -> Matrix:
        """Return (k,) how far the assumptions move each candidate's mean over n queries of some kinds."""
        shares = np.bincount(kinds, minlength=len(self.means)) / len(kinds)
        moved: Matrix = self.error * np.sqrt((self.is_assumed * shares[:, None] ** 2).sum(axis=0))
        return moved


def kinds_of_queries(
    targets: FloatArray, *, tasks: Sequence[str | None], features: FloatArray, seed: int
) -> npt.NDArray[np.intp]:
    """Sort queries into kinds: by the tasks that logs name, else by clusters of their features.

    Args:
        targets: (n, k) outcomes, NaN where nothing was logged.
        tasks: n task names, or None where unknown.
        features: (n, d).
        seed: Seed of the clusters.

    Returns:
        Array (n,) of kinds from 0. Queries of rare and of unknown tasks are of one kind; all are where no
        outcome is missing, as nothing is to be assumed then.
    """
    if not np.isnan(targets).any():
        return np.zeros(len(targets), dtype=np.intp)
    by_task = kinds_by_task(tasks)
    if by_task is not None:
        return by_task
    n_answers = float(np.median((~np.isnan(targets)).sum(axis=0)))
    n_clusters = int(np.clip(n_answers / _PER_CLUSTER, 1, _MAX_CLUSTERS))
    return cluster_queries(features, n_clusters=n_clusters, seed=seed)


def kinds_by_task(tasks: Sequence[str | None]) -> npt.NDArray[np.intp] | None:
    """Sort queries into kinds by the tasks that logs name.

    Args:
        tasks: n task names, or None where unknown.

    Returns:
        Array (n,) of kinds from 0. Queries of rare and of unknown tasks are of one kind. None unless there
        are two tasks of enough queries.
    """
    names = np.array([task or "" for task in tasks], dtype=np.str_)
    unique, kind, counts = np.unique(names, return_inverse=True, return_counts=True)
    frequent = (counts >= _MIN_QUERIES) & (unique != "")
    if frequent.sum() < 2:
        return None
    number = np.where(frequent, np.cumsum(frequent), 0)
    found: npt.NDArray[np.intp] = np.unique(number[kind], return_inverse=True)[1]
    return found


def hardly_answered(answered: npt.NDArray[np.bool_], kinds: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Say which kinds of query each candidate answered a quarter as often as by chance, or less.

    Args:
        answered: (n, k).
        kinds: (n,) from 0 to g - 1.

    Returns:
        Mask (g, k).
    """
    counts = _sums(answered, kinds)
    by_chance = counts.sum(axis=0) * (np.bincount(kinds)[:, None] / max(len(kinds), 1))
    found: npt.NDArray[np.bool_] = (counts <= _HARDLY * by_chance) & (by_chance >= _BY_CHANCE)
    return found


def assume_outcomes(
    targets: FloatArray, weights: FloatArray, kinds: npt.NDArray[np.intp]
) -> AssumedOutcomes | None:
    """Fit what kinds of query and candidates are worth, additively, where candidates left kinds out.

    Args:
        targets: (n, k) outcomes in [0, 1], NaN where nothing was logged.
        weights: (n, k) importance of each.
        kinds: (n,) from 0 to g - 1.

    Returns:
        The assumptions; None if every candidate answered every kind about as often as the others.
    """
    answered = ~np.isnan(targets)
    missing = hardly_answered(answered, kinds)
    if not missing.any():
        return None
    values = np.nan_to_num(targets).astype(np.float64)
    sums, amounts = _sums(values * weights, kinds), _sums(weights * answered, kinds)
    expected = _additive(sums, amounts)
    means = (sums + _SHRINKAGE * expected) / (amounts + _SHRINKAGE)
    return AssumedOutcomes(
        is_assumed=missing,
        means=np.clip(means, 0.0, 1.0),
        error=_error(sums, amounts, expected, squares=_sums(values**2 * weights, kinds)),
    )


def fill_targets(inputs: HeadInputs, kinds: npt.NDArray[np.intp]) -> HeadInputs:
    """Give heads the assumed outcome of every query that a candidate left out with its kind.

    Args:
        inputs: What heads learn from, n queries.
        kinds: (n,) from 0.

    Returns:
        The inputs with those cells filled, each counting as an answer; the same if nothing is assumed.
    """
    assumed = assume_outcomes(inputs.targets, inputs.weights, kinds)
    if assumed is None:
        return inputs
    cells = assumed.is_assumed[kinds] & np.isnan(inputs.targets)
    return replace(
        inputs,
        targets=np.where(cells, assumed.means[kinds], inputs.targets).astype(np.float32),
        weights=np.where(cells, 1.0, inputs.weights).astype(np.float32),
    )


def chances_by_kind(observed: FloatArray, propensity: FloatArray, kinds: npt.NDArray[np.intp]) -> FloatArray:
    """Find out with which probability cells were logged, where answers are not missing at random.

    Args:
        observed: (n, k) outcomes, NaN where nothing was logged.
        propensity: (n, k) probability with which each was logged, NaN if unknown.
        kinds: (n,) from 0.

    Returns:
        The propensities; unknown ones of a candidate that hardly answered a kind are the share of the kind's
        queries that it did answer. For all others its share of all queries may stand in; see `cell_chances`.
    """
    answered = ~np.isnan(observed)
    columns = hardly_answered(answered, kinds).any(axis=0)
    if not columns.any():
        return propensity
    shares = _sums(answered, kinds) / np.maximum(np.bincount(kinds), 1)[:, None]
    by_kind = np.where(columns, shares[kinds], np.nan)
    return np.where(np.isnan(propensity), by_kind, propensity).astype(np.float32)


def complete_columns(
    values: FloatArray, propensity: FloatArray, kinds: npt.NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Complete who left kinds out, so that its mean is over the same queries as everybody's.

    Args:
        values: (n, k) outcomes in [0, 1], NaN where nothing was logged.
        propensity: (n, k) probability with which each was logged, NaN if unknown.
        kinds: (n,) from 0.

    Returns:
        The same, but for the columns of candidates that hardly answered a kind: what is missing there is the
        mean of the kind, as logged or assumed, and each value then counts 1.
    """
    assumed = assume_outcomes(values, importance_weights(values, propensity), kinds)
    if assumed is None:
        return values, propensity
    columns = assumed.is_assumed.any(axis=0)
    missing = columns & np.isnan(values)
    completed = np.where(missing, assumed.means[kinds], values).astype(np.float32)
    return completed, np.where(columns, np.float32(1.0), propensity)


def _sums(values: npt.NDArray[np.generic], kinds: npt.NDArray[np.intp]) -> Matrix:
    """Add (n, k) values up by kind, (g, k)."""
    return np.stack([np.bincount(kinds, weights=column) for column in values.T], axis=1)


def _additive(sums: Matrix, amounts: Matrix) -> Matrix:
    """Fit mean + kind + candidate to (g, k) cells, candidates shrunk: alternating least squares."""
    means = sums / np.maximum(amounts, 1e-9)
    overall = sums.sum() / max(amounts.sum(), 1e-9)
    of_candidate = np.zeros(sums.shape[1])
    for _ in range(_N_ROUNDS):
        rest = (means - overall - of_candidate) * amounts
        of_kind = rest.sum(axis=1) / np.maximum(amounts.sum(axis=1), 1e-9)
        rest = (means - overall - of_kind[:, None]) * amounts
        of_candidate = rest.sum(axis=0) / (amounts.sum(axis=0) + _SHRINKAGE)
    expected: Matrix = overall + of_kind[:, None] + of_candidate
    return expected


def _error(sums: Matrix, amounts: Matrix, expected: Matrix, *, squares: Matrix) -> float:
    """Estimate by how much cells depart from the additive fit, beyond the noise of their means."""
    known = amounts >= MIN_ANSWERS
    means = sums[known] / amounts[known]
    if not len(means):
        return 0.5
    noise = np.maximum(squares[known] / amounts[known] - means**2, 0.0) / amounts[known]
    degrees = len(means) - sum(amounts.shape) + 1
    if degrees < 1:  # nothing left over to judge the fit by: as wide as the cells differ
        return float(np.sqrt(np.mean((means - means.mean()) ** 2)))
    square = ((means - expected[known]) ** 2).sum() / degrees - noise.mean()
    return float(np.sqrt(max(square, 0.0)))
