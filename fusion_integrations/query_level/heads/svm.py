"""Support vector regression with a radial kernel, through its Nystroem approximation.

The exact kernel needs every logged query at prediction and time quadratic in their number; a few hundred
landmark queries come close at a fraction of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import (
    MIN_ANSWERS,
    HeadInputs,
    column_means,
    require_above_zero,
)
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["SvmHead", "SvmHeadConfig", "fit_svm_head"]

_MAX_QUERIES = 20_000


@dataclass(frozen=True, kw_only=True)
class SvmHeadConfig:
    """Settings of the support vector head.

    Attributes:
        n_landmarks: Logged queries that span the kernel's approximation.
        width: Width of the kernel, in units of the mean distance between queries.
        cost: Weight of the errors against the squared coefficients (the C of the literature).
        epsilon: Errors up to this cost nothing.
    """

    name: Literal["svm"] = "svm"
    n_landmarks: int = 300
    width: float = 1.5
    cost: float = 0.02
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_landmarks", "width", "cost", "epsilon")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class SvmHead:
    """value = kernel(query, landmarks) @ weights + bias.

    Attributes:
        center: (d,) subtracted from the features.
        scale: (d,) divides them after; holds the kernel's width too.
        landmarks: (l, d) scaled.
        weights: (l, t).
        bias: (t,).
    """

    center: FloatArray
    scale: FloatArray
    landmarks: FloatArray
    weights: FloatArray
    bias: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        predicted: FloatArray = (
            _kernel((features - self.center) / self.scale, self.landmarks) @ self.weights + self.bias
        )
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "center": self.center,
            "scale": self.scale,
            "landmarks": self.landmarks,
            "weights": self.weights,
            "bias": self.bias,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(
            center=tensors["center"],
            scale=tensors["scale"],
            landmarks=tensors["landmarks"],
            weights=tensors["weights"],
            bias=tensors["bias"],
        )


def fit_svm_head(config: SvmHeadConfig, inputs: HeadInputs) -> SvmHead:
    """Fit one support vector regression a column; one with few values, or equal ones, keeps its mean.

    Source:
        Williams and Seeger, Using the Nystroem Method to Speed Up Kernel Machines (2001).
    """
    svm = require("sklearn.svm", extra="train")
    inputs = inputs.sample(_MAX_QUERIES)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    scaled = scaling.apply(inputs.features)
    # Twice the variance is the mean squared distance between two queries.
    width = config.width * float(np.sqrt(2 * scaled.var(axis=0).sum())) or 1.0
    scaled /= width
    rng = np.random.default_rng(inputs.seed)
    landmarks = scaled[np.sort(rng.permutation(len(scaled))[: config.n_landmarks])]
    values, vectors = np.linalg.eigh(_kernel(landmarks, landmarks).astype(np.float64))
    kept = values > 1e-6 * values[-1]
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    mapped = _kernel(scaled, landmarks) @ whitening
    means = column_means(inputs.targets, inputs.weights)
    weights, bias = np.zeros((len(landmarks), len(means))), means.astype(np.float64)
    for column, targets in enumerate(inputs.targets.T):
        rows = np.flatnonzero(~np.isnan(targets))
        if len(rows) < MIN_ANSWERS or np.ptp(targets[rows]) == 0:
            continue
        model = svm.LinearSVR(
            C=config.cost,
            epsilon=config.epsilon,
            loss="squared_epsilon_insensitive",
            dual=False,
            max_iter=5000,
        )
        model.fit(mapped[rows], targets[rows] - means[column], inputs.weights[rows, column])
        weights[:, column] = whitening @ model.coef_
        bias[column] += float(np.ravel(model.intercept_)[0])
    return SvmHead(
        center=scaling.center.astype(np.float32),
        scale=(scaling.scale * width).astype(np.float32),
        landmarks=landmarks.astype(np.float32),
        weights=np.ascontiguousarray(weights.astype(np.float32)),
        bias=bias.astype(np.float32),
    )


def _kernel(queries: FloatArray, landmarks: FloatArray) -> FloatArray:
    squared = (queries**2).sum(axis=1)[:, None] + (landmarks**2).sum(axis=1) - 2 * queries @ landmarks.T
    kernel: FloatArray = np.exp(-np.maximum(squared, 0.0))
    return kernel
