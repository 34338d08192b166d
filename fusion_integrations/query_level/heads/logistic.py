"""The logistic function and its inverse, kept finite."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray

__all__ = ["logistic", "logit"]


def logistic(scores: FloatArray) -> FloatArray:
    """Map scores of any size to [0, 1]."""
    # By tanh, which has no overflow to guard against, and so takes half the steps.
    values: FloatArray = 0.5 + 0.5 * np.tanh(0.5 * scores.astype(np.float32, copy=False))
    return values


def logit(means: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Map means in [0, 1] to scores, those at the ends to large ones instead of infinite ones."""
    bounded = np.clip(means.astype(np.float64), 1e-3, 1 - 1e-3)
    logits: npt.NDArray[np.float64] = np.log(bounded / (1 - bounded))
    return logits
