"""Shrunk means per soft group of queries: the simplest head that later benchmarks could not clearly beat.

Where the logs name tasks, the groups are tasks and a linear classifier guesses them from the query, so that
no task label is needed at run time. Where they do not, the groups are k-means clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means

__all__ = ["ClusterHead", "ClusterHeadConfig", "fit_cluster_head"]

_MIN_QUERIES_PER_TASK = 8


@dataclass(frozen=True, kw_only=True)
class ClusterHeadConfig:
    """Settings of the cluster head.

    Attributes:
        n_clusters: Number of k-means clusters, used where the logs name fewer than two tasks.
        shrinkage: Weight of the overall mean inside each group, in queries.
        sharpness: Inverse temperature of the soft assignment to k-means clusters, per unit of squared
            distance relative to its mean.
        task_regularization: Inverse strength of the task classifier's L2 penalty.
    """

    name: Literal["cluster"] = "cluster"
    n_clusters: int = 16
    shrinkage: float = 10.0
    sharpness: float = 20.0
    task_regularization: float = 0.01

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        for name in ("n_clusters", "shrinkage", "sharpness", "task_regularization"):
            if not getattr(self, name) > 0:
                message = f"ClusterHeadConfig.{name} must be above 0, got {getattr(self, name)}."
                raise InvalidPolicyError(message)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterHead:
    """Softmax over linear scores picks the groups; the prediction mixes the groups' means.

    Attributes:
        weights: (d, g) linear scores of the g groups.
        bias: (g,) their offsets.
        means: (g, t) shrunk mean of each target in each group.
    """

    weights: FloatArray
    bias: FloatArray
    means: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        return _softmax(features @ self.weights + self.bias) @ self.means

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {"weights": self.weights, "bias": self.bias, "means": self.means}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(weights=tensors["weights"], bias=tensors["bias"], means=tensors["means"])


def fit_cluster_head(config: ClusterHeadConfig, inputs: HeadInputs) -> ClusterHead:
    """Find the groups, then average every target in each of them.

    Source:
        FusionFactory (arXiv 2507.10540), query-level fusion; the design follows LLMRouterBench
        (arXiv 2601.07206), where cluster means are on the Pareto front. See docs/paper_map.md.
    """
    labels = _frequent_tasks(inputs.tasks)
    if labels is None:
        weights, bias = _kmeans_scores(config, inputs)
    else:
        weights, bias = _task_scores(config, inputs, labels)
    # One memory layout before and after saving: matrix products then round alike.
    weights = np.ascontiguousarray(weights)
    memberships = _softmax(inputs.features @ weights + bias)
    return ClusterHead(
        weights=weights, bias=bias, means=_shrunk_means(memberships, inputs.targets, config.shrinkage)
    )


def _frequent_tasks(tasks: tuple[str | None, ...]) -> npt.NDArray[np.str_] | None:
    """Return the task of each query, "" for rare or unknown ones; None unless two tasks are frequent."""
    names = np.array([task or "" for task in tasks], dtype=np.str_)
    unique, counts = np.unique(names[names != ""], return_counts=True)
    frequent = unique[counts >= _MIN_QUERIES_PER_TASK]
    if len(frequent) < 2:
        return None
    return np.where(np.isin(names, frequent), names, "")


def _task_scores(
    config: ClusterHeadConfig, inputs: HeadInputs, labels: npt.NDArray[np.str_]
) -> tuple[FloatArray, FloatArray]:
    linear_model = require("sklearn.linear_model", extra="train")
    known = labels != ""
    features = inputs.features[known].astype(np.float64)
    center, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-6] = 1.0
    classifier = linear_model.LogisticRegression(C=config.task_regularization, max_iter=500)
    classifier.fit((features - center) / scale, labels[known])
    weights, bias = classifier.coef_, classifier.intercept_
    if len(weights) == 1:  # two tasks: scikit-learn keeps one row of scores, the softmax needs both
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    # The standardisation is folded into the scores, so that prediction is one matrix product.
    folded = weights.T / scale[:, None]
    return folded.astype(np.float32), (bias - center @ folded).astype(np.float32)


def _kmeans_scores(config: ClusterHeadConfig, inputs: HeadInputs) -> tuple[FloatArray, FloatArray]:
    cluster = require("sklearn.cluster", extra="train")
    n_distinct = len(np.unique(inputs.features, axis=0))
    n_clusters = max(1, min(config.n_clusters, len(inputs.features) // 5, n_distinct))
    kmeans = cluster.KMeans(n_clusters=n_clusters, n_init=3, random_state=inputs.seed).fit(inputs.features)
    centers = kmeans.cluster_centers_.astype(np.float64)
    sharpness = config.sharpness / max(kmeans.inertia_ / len(inputs.features), 1e-9)
    # -|x - c|^2 = 2 x.c - |c|^2 up to a term equal for all clusters: linear scores again.
    weights = (2 * sharpness * centers.T).astype(np.float32)
    return weights, (-sharpness * (centers**2).sum(axis=1)).astype(np.float32)


def _shrunk_means(memberships: FloatArray, targets: FloatArray, shrinkage: float) -> FloatArray:
    observed = ~np.isnan(targets)
    values = np.where(observed, targets, 0.0)
    sums = memberships.T @ values + shrinkage * column_means(targets)
    means: FloatArray = (sums / (memberships.T @ observed + shrinkage)).astype(np.float32)
    return means


def _softmax(scores: FloatArray) -> FloatArray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: FloatArray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
