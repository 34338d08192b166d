"""Outcomes of choices the logs do not hold: predicted ones, corrected where an answer was logged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray

__all__ = [
    "MIN_PROPENSITY",
    "MIN_TRAINING_PROPENSITY",
    "cell_chances",
    "doubly_robust",
    "effective_sample_size",
    "importance_weights",
    "self_normalised_mean",
]

# Estimates are unbiased down to the first, an epsilon of 0.1 shared by fifty candidates; their intervals say
# what so rare answers are worth. Heads know no such intervals: one answer counts as twenty others at most.
MIN_PROPENSITY, MIN_TRAINING_PROPENSITY = 0.002, 0.05

Matrix = npt.NDArray[np.floating]


def cell_chances(observed: Matrix, propensity: Matrix) -> npt.NDArray[np.float64]:
    """Give the probability with which every cell came to be logged.

    Args:
        observed: (n, k) logged values, NaN where missing.
        propensity: (n, k) probability with which the cell was logged. Where it is NaN, the share of queries
            the candidate answered stands in, which assumes that answers are missing at random.

    Returns:
        Array (n, k), float64; known ones at least 0.002, others that of one answer.
    """
    share = np.maximum((~np.isnan(observed)).sum(axis=0), 1) / max(len(observed), 1)
    known = np.maximum(propensity, MIN_PROPENSITY)
    chances: npt.NDArray[np.float64] = np.where(np.isnan(propensity), share, known).astype(np.float64)
    return chances


def doubly_robust(observed: FloatArray, predicted: FloatArray, propensity: FloatArray) -> FloatArray:
    """Estimate every cell's outcome without bias, as far as propensities are right and not below 0.002.

    Where each query has every answer, this is the observed matrix itself. For unknown propensities see
    `cell_chances`.

    Args:
        observed: (n, k) logged outcomes, NaN where missing.
        predicted: (n, k) outcomes predicted by a model that did not see the query.
        propensity: (n, k) probability with which the cell was logged, NaN if unknown.

    Returns:
        Array (n, k), float32; its column means estimate what each candidate alone would have reached.

    Source:
        Dudik, Langford and Li, Doubly Robust Policy Evaluation and Learning (2011), equation 1.
    """
    has_answer = ~np.isnan(observed)
    correction = np.where(has_answer, (observed - predicted) / cell_chances(observed, propensity), 0.0)
    estimate: FloatArray = (predicted + correction).astype(np.float32)
    return estimate


def importance_weights(observed: FloatArray, propensity: FloatArray) -> FloatArray:
    """Weigh logged values so that they stand for all queries, not for those a candidate happened to get.

    A value counts the inverse of the probability it was logged with, that at least 0.05, and every
    candidate's values count 1 on average. Where no probability is known a value counts 1: the features must
    then explain what was logged.

    Args:
        observed: (n, k) logged values, NaN where missing.
        propensity: (n, k) probability with which the cell was logged, NaN if unknown.

    Returns:
        Array (n, k), float32; 0 where nothing was logged.
    """
    has_answer = ~np.isnan(observed)
    known = has_answer & ~np.isnan(propensity)
    inverse = np.where(known, 1 / np.maximum(np.where(known, propensity, 1.0), MIN_TRAINING_PROPENSITY), 0.0)
    mean = inverse.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    weights = np.where(known, inverse / np.where(mean > 0, mean, 1.0), has_answer)
    return weights.astype(np.float32)


def effective_sample_size(weights: FloatArray) -> FloatArray:
    """Give how many equally weighted answers each candidate's weighted ones are worth.

    Args:
        weights: (n, k), see `importance_weights`.

    Returns:
        Array (k,): square of the sum over sum of the squares, 0 for a candidate without answers.

    Source:
        Kish, Survey Sampling (1965), section 11.7.
    """
    total = weights.sum(axis=0, dtype=np.float64)
    squares = (weights.astype(np.float64) ** 2).sum(axis=0)
    size: FloatArray = (total**2 / np.maximum(squares, 1e-12)).astype(np.float32)
    return size


def self_normalised_mean(
    observed: Matrix, propensity: Matrix, chosen: npt.NDArray[np.float64]
) -> tuple[float | None, float]:
    """Estimate what a strategy reaches from logged answers alone, without any model.

    Args:
        observed: (n, k) logged values, NaN where missing.
        propensity: (n, k) probability with which the cell was logged, NaN if unknown; see `cell_chances`.
        chosen: (n, k) probability with which the strategy chooses each candidate.

    Returns:
        The mean of the logged values, each weighted by how much likelier the strategy chooses it than the
        logs did, None if the logs hold nothing the strategy chooses; and the number of equally weighted
        queries that these are worth.

    Source:
        Swaminathan and Joachims, The Self-Normalized Estimator for Counterfactual Learning (2015).
    """
    weights = np.where(np.isnan(observed), 0.0, chosen / cell_chances(observed, propensity))
    total = weights.sum()
    mean = float(np.where(weights > 0, weights * observed, 0.0).sum() / total) if total > 0 else None
    by_query = weights.sum(axis=1, keepdims=True).astype(np.float32)
    return mean, float(effective_sample_size(by_query)[0])
