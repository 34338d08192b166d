"""What candidates are taken to reach on kinds of query that they hardly answered.

Logs often lack answers by kind: the cheap model got the easy queries, the new one those of one team. Its
mean is then that of other queries, and a head extends it to where it is least true, unseen by validation. So
such cells are filled before heads learn, by what the kind is worth to all and what sets the candidate apart.
See docs/decisions/0016-unanswered-kinds-are-assumed.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import MIN_ANSWERS, HeadInputs
from fusion_integrations.query_level.off_policy import (
    MIN_TRAINING_PROPENSITY,
    doubly_robust,
    importance_weights,
)
from fusion_integrations.query_level.query_kinds import Kinds, hardly_answered, sums_by_kind

__all__ = [
    "AssumedOutcomes",
    "assume_outcomes",
    "chances_by_kind",
    "complete_kinds",
    "estimate_outcomes",
    "fill_amounts",
    "fill_targets",
]

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

    def error_of_means(self, kinds: Kinds) -> Matrix:
        """Return (k,) how far the assumptions move each candidate's mean over n queries of some kinds."""
        shares = np.bincount(kinds, minlength=len(self.means)) / len(kinds)
        moved: Matrix = self.error * np.sqrt((self.is_assumed * shares[:, None] ** 2).sum(axis=0))
        return moved


def assume_outcomes(targets: FloatArray, weights: FloatArray, kinds: Kinds) -> AssumedOutcomes | None:
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
    means, counts = _cell_means(values, weights * answered, kinds), sums_by_kind(answered, kinds)
    expected = _additive(means, counts)
    variances = _cell_means(values**2, weights * answered, kinds) - means**2
    return AssumedOutcomes(
        is_assumed=missing,
        means=np.clip((counts * means + _SHRINKAGE * expected) / (counts + _SHRINKAGE), 0.0, 1.0),
        error=_error(means, counts, expected, variances=np.maximum(variances, 0.0)),
    )


def fill_targets(inputs: HeadInputs, kinds: Kinds) -> HeadInputs:
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


def chances_by_kind(observed: FloatArray, propensity: FloatArray, kinds: Kinds) -> FloatArray:
    """Find out with which probability cells were logged, where answers are not missing at random.

    Args:
        observed: (n, k) outcomes, NaN where nothing was logged.
        propensity: (n, k) probability with which each was logged, NaN if unknown.
        kinds: (n,) from 0.

    Returns:
        The propensities; unknown ones of a candidate that hardly answered a kind are the share of the kind's
        queries that it did answer, at least 0.05, so that a few answers correct what is assumed there and do
        not replace it. For all others its share of all queries may stand in; see `cell_chances`.
    """
    answered = ~np.isnan(observed)
    columns = hardly_answered(answered, kinds).any(axis=0)
    if not columns.any():
        return propensity
    shares = sums_by_kind(answered, kinds) / np.maximum(np.bincount(kinds), 1)[:, None]
    shares = np.maximum(shares, MIN_TRAINING_PROPENSITY)
    by_kind = np.where(columns, shares[kinds], np.nan)
    return np.where(np.isnan(propensity), by_kind, propensity).astype(np.float32)


def estimate_outcomes(
    observed: FloatArray, predicted: FloatArray, propensity: FloatArray, kinds: Kinds
) -> FloatArray:
    """Estimate every cell's outcome doubly robustly, with the chances of `chances_by_kind`.

    Args:
        observed: (n, k) logged outcomes or costs, NaN where missing.
        predicted: (n, k) by a model that did not see the query.
        propensity: (n, k) probability with which each was logged, NaN if unknown.
        kinds: (n,) from 0.

    Returns:
        Array (n, k), float32; see `doubly_robust`.
    """
    return doubly_robust(observed, predicted, chances_by_kind(observed, propensity, kinds))


def complete_kinds(values: FloatArray, propensity: FloatArray, kinds: Kinds) -> tuple[FloatArray, FloatArray]:
    """Complete the kinds that candidates left out, so that their means are over the same kinds as others'.

    Args:
        values: (n, k) outcomes in [0, 1], NaN where nothing was logged.
        propensity: (n, k) probability with which each was logged, NaN if unknown.
        kinds: (n,) from 0.

    Returns:
        The outcomes, those of hardly answered kinds filled in with what is assumed, and the propensities: 1
        there, elsewhere those of `chances_by_kind`.
    """
    assumed = assume_outcomes(values, importance_weights(values, propensity), kinds)
    if assumed is None:
        return values, propensity
    cells = assumed.is_assumed[kinds]
    completed = np.where(cells & np.isnan(values), assumed.means[kinds], values).astype(np.float32)
    return completed, np.where(cells, np.float32(1.0), chances_by_kind(values, propensity, kinds))


def fill_amounts(amounts: FloatArray, answered: npt.NDArray[np.bool_], kinds: Kinds) -> FloatArray:
    """Give costs, tokens or seconds of the kinds that candidates left out: by what a kind takes of all.

    Args:
        amounts: (n, k) of at least 0, NaN where unknown.
        answered: (n, k) whether there is an answer.
        kinds: (n,) from 0.

    Returns:
        The amounts, filled in where a candidate that has some elsewhere hardly answered a kind: its own
        amount elsewhere times the ratio of the kinds (an additive fit of logarithms). The same if nobody is.
    """
    missing = hardly_answered(answered, kinds) & ~np.isnan(amounts).all(axis=0)
    cells = missing[kinds] & np.isnan(amounts)
    if not cells.any():
        return amounts
    known = ~np.isnan(amounts)
    means = _cell_means(np.nan_to_num(amounts).astype(np.float64), known.astype(np.float64), kinds)
    # What is free has no logarithm, and says nothing of what kinds take.
    counts = np.where(means > 0, sums_by_kind(known, kinds), 0.0)
    expected = np.exp(_additive(np.log(np.where(means > 0, means, 1.0)), counts))
    expected[:, ~(means > 0).any(axis=0)] = 0.0
    return np.where(cells, expected[kinds], amounts).astype(np.float32)


def _cell_means(values: Matrix, weights: npt.NDArray[np.floating], kinds: Kinds) -> Matrix:
    """Average (n, k) values by kind, (g, k); 0 where there is no weight."""
    means: Matrix = sums_by_kind(values * weights, kinds) / np.maximum(sums_by_kind(weights, kinds), 1e-9)
    return means


def _additive(means: Matrix, counts: Matrix) -> Matrix:
    """Fit overall + kind + candidate to (g, k) means, candidates shrunk: alternating least squares."""
    overall = (means * counts).sum() / max(counts.sum(), 1e-9)
    of_candidate, of_kind = np.zeros(means.shape[1]), np.zeros(len(means))
    for _ in range(_N_ROUNDS):
        rest = (means - overall - of_candidate) * counts
        of_kind = rest.sum(axis=1) / np.maximum(counts.sum(axis=1), 1e-9)
        rest = (means - overall - of_kind[:, None]) * counts
        of_candidate = rest.sum(axis=0) / (counts.sum(axis=0) + _SHRINKAGE)
    expected: Matrix = overall + of_kind[:, None] + of_candidate
    return expected


def _error(means: Matrix, counts: Matrix, expected: Matrix, *, variances: Matrix) -> float:
    """Estimate by how much cells depart from the additive fit, beyond the noise of their means."""
    known = counts >= MIN_ANSWERS
    if not known.any():
        return 0.5
    noise = variances[known] / counts[known]
    degrees = int(known.sum()) - sum(counts.shape) + 1
    if degrees < 1:  # nothing left over to judge the fit by: as wide as the cells differ
        return float(means[known].std())
    square = ((means - expected)[known] ** 2).sum() / degrees - noise.mean()
    return float(np.sqrt(max(square, 0.0)))
