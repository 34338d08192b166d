"""Bring the two kinds of features to one scale, so that one penalty treats both alike.

A query's embedding has hundreds of small correlated dimensions, its surface has a few dozen features of very
different spread. Each surface feature is brought to unit variance, and the embedding as a whole gets as much
variance as the surface as a whole; scaling every dimension of it alone would drown the surface in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray

__all__ = ["FeatureScaling"]

# A feature that is almost always the same would otherwise make the few queries that differ outliers.
_MIN_STD = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureScaling:
    """scaled = (features - center) / scale.

    Attributes:
        center: (d,).
        scale: (d,), above 0.
    """

    center: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, features: FloatArray, *, n_embedding: int) -> Self:
        """Find the scale of (n, d) features whose first n_embedding columns are the embedding."""
        center = features.mean(axis=0, dtype=np.float64)
        variance = features.var(axis=0, dtype=np.float64)
        scale = np.maximum(np.sqrt(variance), _MIN_STD)
        n_surface = max(features.shape[1] - n_embedding, 1)
        scale[:n_embedding] = max(float(np.sqrt(variance[:n_embedding].sum() / n_surface)), 1e-6)
        return cls(center=center, scale=scale)

    def apply(self, features: FloatArray) -> FloatArray:
        """Scale (n, d) features."""
        center, scale = self.center.astype(np.float32), self.scale.astype(np.float32)
        return ((features - center) / scale).astype(np.float32)

    def fold(
        self, weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
    ) -> tuple[FloatArray, FloatArray]:
        """Turn a linear function of scaled features into one of the raw features.

        Args:
            weights: (d, g) on scaled features.
            bias: (g,).

        Returns:
            Weights (d, g) and bias (g,), float32, for the raw features: prediction is one matrix product.
        """
        folded = weights / self.scale[:, None]
        # One memory layout before and after saving: matrix products then round alike.
        return (
            np.ascontiguousarray(folded.astype(np.float32)),
            (bias - self.center @ folded).astype(np.float32),
        )
