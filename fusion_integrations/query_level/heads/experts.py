"""A regression of its own for each task, mixed by the task classifier.

What makes a word problem hard says little of a trivia question. Where logs mix kinds of queries, one
regression for all is an average of contrary ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import MIN_ANSWERS, HeadInputs, require_above_zero
from fusion_integrations.query_level.heads.cluster import ClusterHead, ClusterHeadConfig, fit_cluster_head
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["MIN_SHARE", "ExpertsHead", "ExpertsHeadConfig", "fit_experts_head"]

_MAX_QUERIES = 5_000  # a task
MIN_SHARE = 1e-3
"""Share of a group in a query from which its expert is asked."""


@dataclass(frozen=True, kw_only=True)
class ExpertsHeadConfig:
    """Settings of the mixture of experts.

    Attributes:
        l2_penalty: Weight of the squared coefficients against the sum of squared errors of a task; features
            have unit scale.
        min_queries: Queries from which a task has an expert; those of fewer keep the task's means.
    """

    name: Literal["experts"] = "experts"
    l2_penalty: float = 400.0
    min_queries: int = 50

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "l2_penalty", "min_queries")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertsHead:
    """value = sum over groups of (share of the group) * (mean there + linear function of the features).

    Attributes:
        groups: Finds the groups, and holds the candidates' means in them.
        weights: (g, d, t) of each group's expert; 0 where there is none.
        bias: (g, t).
    """

    groups: ClusterHead
    weights: FloatArray
    bias: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        shares = self.groups.memberships(features)
        predicted = shares @ (self.groups.means + self.bias)
        # Most queries are of one or two groups. Tiny shares count for none, whatever else is in the batch.
        shares[shares < MIN_SHARE] = 0.0
        for group in np.flatnonzero(shares.any(axis=0)):
            predicted += shares[:, group, None] * (features @ self.weights[group])
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        groups = {f"groups.{name}": tensor for name, tensor in self.groups.tensors().items()}
        return {"weights": self.weights, "bias": self.bias, **groups}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        weights, bias = tensors["weights"], tensors["bias"]
        of_groups = {
            name.removeprefix("groups."): tensor
            for name, tensor in tensors.items()
            if name.startswith("groups.")
        }
        return cls(groups=ClusterHead.from_tensors(of_groups), weights=weights, bias=bias)


def fit_experts_head(config: ExpertsHeadConfig, inputs: HeadInputs) -> ExpertsHead:
    """Find the groups, then fit each one's deviations from its means.

    Source:
        Jacobs et al., Adaptive Mixtures of Local Experts (1991), with the gate fitted to the task names.
    """
    groups = fit_cluster_head(ClusterHeadConfig(), inputs)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    n_groups, n_columns = groups.means.shape
    weights = np.zeros((n_groups, inputs.features.shape[1], n_columns), dtype=np.float32)
    bias = np.zeros((n_groups, n_columns), dtype=np.float32)
    # Queries of no known task go where the classifier sees them; the others there too, all but always.
    group_of = groups.memberships(inputs.features).argmax(axis=1)
    for group in range(n_groups):
        rows = np.flatnonzero(group_of == group)
        if len(rows) < config.min_queries:
            continue
        if len(rows) > _MAX_QUERIES:
            rows = np.sort(np.random.default_rng(inputs.seed).permutation(rows)[:_MAX_QUERIES])
        excess = inputs.targets[rows] - groups.means[group]
        fitted = _fit_expert(config, scaling.apply(inputs.features[rows]), excess, inputs.weights[rows])
        weights[group], bias[group] = scaling.fold(*fitted)
    return ExpertsHead(groups=groups, weights=weights, bias=bias)


def _fit_expert(
    config: ExpertsHeadConfig, features: FloatArray, excess: FloatArray, importance: FloatArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fit (d, t) coefficients and (t,) offsets; 0 for a column of few values."""
    linear_model = require("sklearn.linear_model", extra="train")
    weights, bias = np.zeros((features.shape[1], excess.shape[1])), np.zeros(excess.shape[1])
    observed = ~np.isnan(excess)
    if observed.all() and (importance == importance[:, :1]).all():  # one factorisation serves every column
        model = linear_model.Ridge(alpha=config.l2_penalty).fit(features, excess, importance[:, 0])
        return np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_)
    for column, rows in enumerate(observed.T):
        if rows.sum() >= MIN_ANSWERS:
            model = linear_model.Ridge(alpha=config.l2_penalty)
            model.fit(features[rows], excess[rows, column], importance[rows, column])
            weights[:, column], bias[column] = model.coef_, model.intercept_
    return weights, bias
