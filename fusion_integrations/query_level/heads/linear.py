"""Ridge regression, or logistic regression, of each candidate's performance on the scaled features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import (
    MIN_ANSWERS,
    HeadInputs,
    column_means,
    require_above_zero,
)
from fusion_integrations.query_level.heads.logistic import logistic, logit
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["LinearHead", "LinearHeadConfig", "fit_linear_head"]

# Answers learned from: a column always may have the first, all together the second.
_MAX_ANSWERS, _MAX_ALL_ANSWERS = 5_000, 60_000


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """Settings of the linear head.

    Attributes:
        loss: `"logistic"` for cross-entropy (a performance of 0.7 counts as 0.7 of a success and 0.3 of a
            failure), `"ridge"` for squared error.
        l2_penalty: Weight of the squared coefficients against the sum of losses; features have unit scale.
            Squared error wants about four times the penalty.
    """

    name: Literal["linear"] = "linear"
    loss: Literal["ridge", "logistic"] = "logistic"
    l2_penalty: float = 100.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidPolicyError: If the loss is unknown or the penalty is not above 0.
        """
        if self.loss not in ("ridge", "logistic"):
            raise InvalidPolicyError(
                f"LinearHeadConfig.loss must be 'ridge' or 'logistic', got '{self.loss}'."
            )
        require_above_zero(self, "l2_penalty")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """A linear function of the features a column, through the logistic function if fitted so.

    Attributes:
        weights: (d, t).
        bias: (t,).
        is_logistic: (1,) 1 if the logistic function is applied, else 0.
    """

    weights: FloatArray
    bias: FloatArray
    is_logistic: npt.NDArray[np.int64]

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        scores: FloatArray = features @ self.weights + self.bias
        return logistic(scores) if self.is_logistic[0] else scores

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {"weights": self.weights, "bias": self.bias, "is_logistic": self.is_logistic}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(weights=tensors["weights"], bias=tensors["bias"], is_logistic=tensors["is_logistic"])


def fit_linear_head(config: LinearHeadConfig, inputs: HeadInputs) -> LinearHead:
    """Fit one linear model a column; one with few values, or equal ones, keeps its mean."""
    is_logistic = config.loss == "logistic"
    means = column_means(inputs.targets, inputs.weights).astype(np.float64)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    weights = np.zeros((inputs.features.shape[1], len(means)))
    bias = logit(means) if is_logistic else means.copy()
    fit = _fit_logistic if is_logistic else _fit_ridge
    for columns, rows in _patterns(inputs):
        features, targets = scaling.apply(inputs.features[rows]), inputs.targets[np.ix_(rows, columns)]
        importance = inputs.weights[np.ix_(rows, columns)]
        weights[:, columns], bias[columns] = fit(config, features, targets, importance)
    folded, offset = scaling.fold(weights, bias)
    return LinearHead(weights=folded, bias=offset, is_logistic=np.array([int(is_logistic)]))


def _patterns(inputs: HeadInputs) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Group the columns that have values on the same queries; they share one matrix of features."""
    rng = np.random.default_rng(inputs.seed)
    grouped: dict[bytes, list[int]] = {}
    for column in range(inputs.targets.shape[1]):
        values = inputs.targets[:, column]
        observed = ~np.isnan(values)
        if observed.sum() >= MIN_ANSWERS and np.ptp(values[observed]) > 0:
            grouped.setdefault(np.packbits(observed).tobytes(), []).append(column)
    patterns = []
    for columns in grouped.values():
        rows = np.flatnonzero(~np.isnan(inputs.targets[:, columns[0]]))
        n_most = max(_MAX_ANSWERS, _MAX_ALL_ANSWERS // inputs.targets.shape[1])
        if len(rows) > n_most:
            rows = np.sort(rng.permutation(rows)[:n_most])
        patterns.append((np.array(columns), rows))
    return patterns


def _fit_ridge(
    config: LinearHeadConfig, features: FloatArray, targets: FloatArray, importance: FloatArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    linear_model = require("sklearn.linear_model", extra="train")
    if (importance == importance[:, :1]).all():  # one factorisation serves every column
        model = linear_model.Ridge(alpha=config.l2_penalty).fit(features, targets, importance[:, 0])
        return model.coef_.reshape(targets.shape[1], -1).T, np.atleast_1d(model.intercept_)
    models = [
        linear_model.Ridge(alpha=config.l2_penalty).fit(features, values, weight)
        for values, weight in zip(targets.T, importance.T, strict=True)
    ]
    return np.stack([model.coef_ for model in models], axis=1), np.array([m.intercept_ for m in models])


def _fit_logistic(
    config: LinearHeadConfig, features: FloatArray, targets: FloatArray, importance: FloatArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    linear_model = require("sklearn.linear_model", extra="train")
    coefficients, offsets = [], []
    for values, weight in zip(targets.T, importance.T, strict=True):
        # What is neither success nor failure stands on both sides, with its share.
        parts = [(np.flatnonzero(values > 0), 1), (np.flatnonzero(values < 1), 0)]
        rows = np.concatenate([found for found, _ in parts])
        outcomes = np.concatenate([np.full(len(found), outcome) for found, outcome in parts])
        shares = np.where(outcomes == 1, values[rows], 1 - values[rows]) * weight[rows]
        model = linear_model.LogisticRegression(C=1 / config.l2_penalty, max_iter=200, tol=1e-3)
        model.fit(features[rows], outcomes, shares)
        coefficients.append(model.coef_[0])
        offsets.append(model.intercept_[0])
    return np.stack(coefficients, axis=1), np.array(offsets)
