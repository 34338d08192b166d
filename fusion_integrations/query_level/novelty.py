"""Tell queries unlike anything in the logs: for them a router knows no more than who is best on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["NoveltyDetector", "fit_novelty"]

_MAX_QUERIES = 20_000
_MIN_PER_TASK = 8
_SHRINKAGE = 0.5  # of covariances towards their diagonals: dimensions are many, queries of a task few
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class NoveltyDetector:
    """A distance from the logged queries, and how far is too far.

    Attributes:
        center: (d,) subtracted from the features.
        scale: (d,) divides them after.
        quadratic: (d, d) of the distance.
        linear: (d, g) of the distance to each of g tasks.
        offset: (g,).
        threshold: (1,) distance from which a query is new.
    """

    center: FloatArray
    scale: FloatArray
    quadratic: FloatArray
    linear: FloatArray
    offset: FloatArray
    threshold: FloatArray

    def distance(self, features: FloatArray) -> FloatArray:
        """Give (n,) distances of (n, d) features from the logged queries."""
        centered = features - self.center
        # The ufuncs' own reductions: the methods of arrays take longer to begin than one query takes.
        products, d = centered @ self._quadratic_and_linear, centered.shape[1]
        squared = np.add.reduce(products[:, :d] * centered, axis=1)
        distance: FloatArray = squared + np.minimum.reduce(products[:, d:] + self.offset, axis=1)
        return distance

    @cached_property
    def _quadratic_and_linear(self) -> FloatArray:
        """(d, d + g) of features that are centred but not scaled."""
        each = self.scale[:, None]
        return np.concatenate([self.quadratic / (each * self.scale), self.linear / each], axis=1)

    def is_novel(self, features: FloatArray) -> npt.NDArray[np.bool_]:
        """Tell for (n, d) features whether each query is unlike the logged ones."""
        novel: npt.NDArray[np.bool_] = self.distance(features) > self.threshold[0]
        return novel

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the detector from `tensors`."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


def fit_novelty(
    features: FloatArray,
    *,
    tasks: Sequence[str | None],
    folds: npt.NDArray[np.int64],
    n_embedding: int,
    share: float,
    seed: int,
) -> NoveltyDetector:
    """Learn what the logged queries look like.

    A query's distance is that from the nearest task less that from all queries: what is odd for any query is
    then not odd for a task. Where the logs name fewer than two tasks it is the distance from all of them.

    Args:
        features: (n, d) features of the logged queries, the embedding first.
        tasks: n task names, or None where unknown.
        folds: (n,) fold of each query; the threshold rests on queries the distance was not fitted on.
        n_embedding: How many of the features are the embedding.
        share: Share of queries like the logged ones that may be taken for new.
        seed: Seed of sampling.

    Returns:
        The detector.

    Source:
        Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection (arXiv 2106.09022).
    """
    names = np.array([task or "" for task in tasks], dtype=np.str_)
    rows = np.arange(len(features))
    if len(rows) > _MAX_QUERIES:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MAX_QUERIES])
    features, names, folds = features[rows], names[rows], folds[rows]
    unseen = np.empty(len(features), dtype=np.float32)
    for fold in np.unique(folds):
        held_out = folds == fold
        part = _fit(features[~held_out], names[~held_out], n_embedding=n_embedding, threshold=0.0)
        unseen[held_out] = part.distance(features[held_out])
    return _fit(features, names, n_embedding=n_embedding, threshold=float(np.quantile(unseen, 1 - share)))


def _fit(
    features: FloatArray, names: npt.NDArray[np.str_], *, n_embedding: int, threshold: float
) -> NoveltyDetector:
    scaling = FeatureScaling.fit(features, n_embedding=n_embedding)
    scaled = scaling.apply(features).astype(np.float64)
    unique, counts = np.unique(names[names != ""], return_counts=True)
    frequent = unique[counts >= _MIN_PER_TASK]
    background = _precision(scaled)
    quadratic, linear, offset = background, np.zeros((scaled.shape[1], 1)), np.zeros(1)
    if len(frequent) >= 2:
        means = np.stack([scaled[names == name].mean(axis=0) for name in frequent])
        known = np.isin(names, frequent)
        within = _precision(scaled[known] - means[np.searchsorted(frequent, names[known])])
        quadratic = within - background
        linear = -2 * within @ means.T
        offset = np.einsum("gd,de,ge->g", means, within, means)
    arrays = (scaling.center, scaling.scale, quadratic, linear, offset, np.array([threshold]))
    names_of = ("center", "scale", "quadratic", "linear", "offset", "threshold")
    return NoveltyDetector(
        **{
            name: np.ascontiguousarray(array.astype(np.float32))
            for name, array in zip(names_of, arrays, strict=True)
        }
    )


def _precision(centered: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Invert the shrunk covariance of (n, d) values whose mean is 0."""
    covariance = centered.T @ centered / len(centered)
    diagonal = np.diag(np.diag(covariance))
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * diagonal + _RIDGE * np.eye(len(diagonal))
    return np.linalg.inv(shrunk).astype(np.float64)
