"""Shrunk mean performance by soft group of queries: the tasks that logs name, else k-means clusters.

The strongest learner on real multi-LLM logs for its size, and among the simplest: a candidate's mean in the
groups a query resembles, each mean shrunk towards the candidate's overall mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means, require_above_zero
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["ClusterHead", "ClusterHeadConfig", "fit_cluster_head", "softmax"]

_MIN_QUERIES_PER_TASK = 8
_MAX_QUERIES = 20_000  # to find the groups with; their means use every query
_CHUNK = 100_000  # queries whose memberships are held at once


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
    task_regularization: float = 0.03

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_clusters", "shrinkage", "sharpness", "task_regularization")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterHead:
    """Softmax over linear scores picks the groups; the prediction mixes the groups' means.

    Where the scores tell no group apart, the mixture is the candidates' overall means: the best single one
    comes out.

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
        return self.memberships(features) @ self.means

    def memberships(self, features: FloatArray) -> FloatArray:
        """Give (n, g) shares of the groups in each query; every row sums to 1."""
        return softmax(features @ self.weights + self.bias)

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
    groups = _frequent_tasks(inputs.tasks)
    sample = inputs.sample(_MAX_QUERIES)
    if groups is None:
        weights, bias = _kmeans_scores(config, sample)
    else:
        weights, bias = _task_scores(config, sample, groups)
    finder = ClusterHead(weights=weights, bias=bias, means=np.zeros((len(bias), 0), dtype=np.float32))
    return ClusterHead(weights=weights, bias=bias, means=_group_means(config, inputs, finder, groups))


def _frequent_tasks(tasks: tuple[str | None, ...]) -> npt.NDArray[np.str_] | None:
    """Return the tasks with enough queries, sorted; None unless there are two."""
    names = np.array([task or "" for task in tasks], dtype=np.str_)
    unique, counts = np.unique(names[names != ""], return_counts=True)
    frequent = unique[counts >= _MIN_QUERIES_PER_TASK]
    return frequent if len(frequent) >= 2 else None


def _task_scores(
    config: ClusterHeadConfig, inputs: HeadInputs, groups: npt.NDArray[np.str_]
) -> tuple[FloatArray, FloatArray]:
    linear_model = require("sklearn.linear_model", extra="train")
    names = np.array([task or "" for task in inputs.tasks], dtype=np.str_)
    known = np.isin(names, groups)
    features = inputs.features[known]
    scaling = FeatureScaling.fit(features, n_embedding=inputs.n_embedding)
    classifier = linear_model.LogisticRegression(C=config.task_regularization, max_iter=300, tol=1e-3)
    classifier.fit(scaling.apply(features), names[known])
    weights, bias = classifier.coef_.astype(np.float64), classifier.intercept_.astype(np.float64)
    if len(weights) == 1:  # two tasks: scikit-learn keeps one row of scores, the softmax needs both
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    if len(classifier.classes_) < len(groups):  # a sample may miss a task: its queries go by resemblance
        every_weight, every_bias = np.zeros((len(groups), weights.shape[1])), np.full(len(groups), -1e3)
        seen = np.searchsorted(groups, classifier.classes_)
        every_weight[seen], every_bias[seen] = weights, bias
        weights, bias = every_weight, every_bias
    return scaling.fold(weights.T, bias)


def _kmeans_scores(config: ClusterHeadConfig, inputs: HeadInputs) -> tuple[FloatArray, FloatArray]:
    cluster = require("sklearn.cluster", extra="train")
    n_distinct = len(np.unique(inputs.features, axis=0))
    n_clusters = max(1, min(config.n_clusters, len(inputs.features) // 5, n_distinct))
    kmeans = cluster.KMeans(n_clusters=n_clusters, n_init=3, random_state=inputs.seed).fit(inputs.features)
    centers = kmeans.cluster_centers_.astype(np.float64)
    sharpness = config.sharpness / max(kmeans.inertia_ / len(inputs.features), 1e-9)
    # -|x - c|^2 = 2 x.c - |c|^2 up to a term equal for all clusters: linear scores again.
    weights = np.ascontiguousarray((2 * sharpness * centers.T).astype(np.float32))
    return weights, (-sharpness * (centers**2).sum(axis=1)).astype(np.float32)


def _group_means(
    config: ClusterHeadConfig, inputs: HeadInputs, finder: ClusterHead, groups: npt.NDArray[np.str_] | None
) -> FloatArray:
    """Average the targets by group, shrunk. A query of a known task counts for that task alone."""
    n_groups, n_columns = len(finder.bias), inputs.targets.shape[1]
    sums, amounts = np.zeros((n_groups, n_columns)), np.zeros((n_groups, n_columns))
    for start in range(0, len(inputs), _CHUNK):
        rows = slice(start, start + _CHUNK)
        shares = finder.memberships(inputs.features[rows])
        if groups is not None:
            names = np.array([task or "" for task in inputs.tasks[rows]], dtype=np.str_)
            known = np.isin(names, groups)
            shares[known] = np.eye(n_groups, dtype=np.float32)[np.searchsorted(groups, names[known])]
        weights = inputs.weights[rows]
        sums += shares.T @ (np.nan_to_num(inputs.targets[rows]) * weights)
        amounts += shares.T @ weights
    overall = column_means(inputs.targets, inputs.weights)
    means = (sums + config.shrinkage * overall) / (amounts + config.shrinkage)
    return means.astype(np.float32)


def softmax(scores: FloatArray) -> FloatArray:
    """Turn scores of any shape into shares that sum to 1 over the last axis."""
    # The ufuncs' own reductions: the methods of arrays take longer to begin than one query takes.
    largest: FloatArray = np.maximum.reduce(scores, axis=-1, keepdims=True)
    shifted = np.exp(scores - largest)
    shares: FloatArray = shifted / np.add.reduce(shifted, axis=-1, keepdims=True)
    return shares
