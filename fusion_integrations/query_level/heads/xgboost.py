"""Gradient-boosted trees on the embedding and the surface features.

One booster predicts how well candidates do on a query as a whole, and a small one a candidate how it differs
from that. What makes a query hard for everybody then drowns no difference between candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
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

__all__ = ["XGBoostHead", "XGBoostHeadConfig", "fit_xgboost_head"]

_MAX_VALUES = 50_000  # a booster
_NONE = np.zeros(0, dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class XGBoostHeadConfig:
    """Settings of the XGBoost head.

    Attributes:
        n_rounds: Trees a booster.
        max_depth: Depth of a tree.
        learning_rate: Weight of each tree.
        column_share: Share of the features each tree sees.
        row_share: Share of the queries each tree sees.
        l2_penalty: L2 penalty on leaf values.
    """

    name: Literal["xgboost"] = "xgboost"
    n_rounds: int = 100
    max_depth: int = 3
    learning_rate: float = 0.05
    column_share: float = 0.2
    row_share: float = 0.6
    l2_penalty: float = 10.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_rounds", "max_depth", "learning_rate", "column_share", "row_share")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class XGBoostHead:
    """value = mean of the column + level of the query + deviation of the column from it.

    Attributes:
        boosters: t models of the deviations in XGBoost's UBJ format, (bytes,) uint8; length 0 for none.
        means: (t,) mean of each column.
        level: The model of the level; length 0 for none, as in routers of release 0.1.
    """

    boosters: tuple[npt.NDArray[np.uint8], ...]
    means: FloatArray
    level: npt.NDArray[np.uint8]

    @cached_property
    def _loaded(self) -> tuple[Any, ...]:
        """The boosters of the columns, then that of the level, parsed once; None where there is none."""
        stored = (*self.boosters, self.level)
        if not any(raw.size for raw in stored):
            return (None,) * len(stored)
        xgboost = require("xgboost", extra="xgboost-cpu")
        return tuple(_load(xgboost, raw) if raw.size else None for raw in stored)

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        predicted = np.tile(self.means, (len(features), 1))
        if not len(features):
            return predicted
        *columns, level = self._loaded
        for column, booster in enumerate(columns):
            if booster is not None:
                # A booster stored without a level predicts the value itself, its mean included.
                start = self.means[column] if level is not None else 0.0
                predicted[:, column] = start + booster.inplace_predict(features)
        if level is not None:
            predicted += level.inplace_predict(features)[:, None]
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        boosters = {f"booster.{i}": raw for i, raw in enumerate(self.boosters)}
        return {"means": self.means, "level": self.level, **boosters}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        means = tensors["means"]
        return cls(
            means=means,
            boosters=tuple(tensors[f"booster.{i}"] for i in range(len(means))),
            level=tensors.get("level", _NONE),
        )


def fit_xgboost_head(config: XGBoostHeadConfig, inputs: HeadInputs) -> XGBoostHead:
    """Train the booster of the level, then one a column on the queries that have a value in it."""
    xgboost = require("xgboost", extra="xgboost-cpu")
    means = column_means(inputs.targets, inputs.weights)
    observed = ~np.isnan(inputs.targets)
    excess = np.where(observed, inputs.targets - means, 0.0)
    n_values = observed.sum(axis=1)
    of_query = excess.sum(axis=1) / np.maximum(n_values, 1)
    level = _train(xgboost, config, inputs, values=of_query, weights=(n_values > 0).astype(np.float32))
    deviations = _deviations(excess, observed, of_query, level, inputs.features)
    boosters = tuple(
        _saved(_train(xgboost, config, inputs, values=deviations[:, column], weights=weights))
        for column, weights in enumerate(inputs.weights.T)
    )
    return XGBoostHead(boosters=boosters, means=means, level=_saved(level))


def _deviations(
    excess: FloatArray,
    observed: npt.NDArray[np.bool_],
    of_query: FloatArray,
    level: Any,
    features: FloatArray,
) -> FloatArray:
    """Subtract the level of a query from its values: their mean, or as predicted if there is but one."""
    n_columns, n_values = observed.shape[1], observed.sum(axis=1)
    alone = n_values == 1
    base = of_query.copy()
    if alone.any():
        base[alone] = 0.0 if level is None else level.inplace_predict(features[alone])
    # The mean of few values holds a good part of each of them: undo that, as if all were there.
    few = (n_values > 1) & (n_values < n_columns)
    stretch = np.ones(len(n_values))
    stretch[few] = n_values[few] / (n_values[few] - 1) * (n_columns - 1) / n_columns
    return ((excess - base[:, None]) * stretch[:, None]).astype(np.float32)


def _train(
    xgboost: Any, config: XGBoostHeadConfig, inputs: HeadInputs, *, values: FloatArray, weights: FloatArray
) -> Any:
    """Train a booster on the queries of positive weight; None if there is nothing to learn."""
    rows = np.flatnonzero(weights)
    if len(rows) > _MAX_VALUES:
        rows = np.sort(np.random.default_rng(inputs.seed).permutation(rows)[:_MAX_VALUES])
    if len(rows) < MIN_ANSWERS or np.ptp(values[rows]) < 1e-6:
        return None
    parameters = {
        "objective": "reg:squarederror",
        "max_depth": config.max_depth,
        "learning_rate": config.learning_rate,
        "colsample_bytree": config.column_share,
        "subsample": config.row_share,
        "lambda": config.l2_penalty,
        "min_child_weight": 10,
        "max_bin": 64,  # a third of the time of XGBoost's 256; scores of 0 and 1 need no finer cuts
        "nthread": inputs.n_threads,
        "seed": inputs.seed,
        "base_score": float(np.average(values[rows], weights=weights[rows])),
    }
    matrix = xgboost.QuantileDMatrix(
        inputs.features[rows], values[rows], weight=weights[rows], max_bin=64, nthread=inputs.n_threads
    )
    return xgboost.train(parameters, matrix, num_boost_round=config.n_rounds)


def _saved(booster: Any) -> npt.NDArray[np.uint8]:
    return _NONE if booster is None else np.frombuffer(bytes(booster.save_raw(raw_format="ubj")), np.uint8)


def _load(xgboost: Any, raw: npt.NDArray[np.uint8]) -> Any:
    booster = xgboost.Booster(model_file=bytearray(raw.tobytes()))
    booster.set_param({"nthread": 1})
    return booster
