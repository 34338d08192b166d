"""Outcomes of choices the logs do not hold: predicted ones, corrected where an answer was logged."""

from __future__ import annotations

import numpy as np

from fusion_integrations.protocols import FloatArray

__all__ = ["doubly_robust"]

_MIN_PROPENSITY = 0.05  # rarer cells would let single answers dominate a mean


def doubly_robust(observed: FloatArray, predicted: FloatArray, propensity: FloatArray) -> FloatArray:
    """Estimate every cell's outcome without bias, as far as propensities are right and not below 0.05.

    Where each query has every answer, this is the observed matrix itself. Where the propensity is unknown,
    the share of queries a candidate answered stands in, which assumes the answers are missing at random.

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
    share = np.broadcast_to(has_answer.mean(axis=0, keepdims=True), observed.shape)
    weight = np.maximum(np.where(np.isnan(propensity), share, propensity), _MIN_PROPENSITY)
    correction = np.where(has_answer, (observed - predicted) / weight, 0.0)
    estimate: FloatArray = (predicted + correction).astype(np.float32)
    return estimate
