"""Gradient-boosted trees, one small model a candidate, on the embedding and the surface features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means

__all__ = ["XGBoostHead", "XGBoostHeadConfig", "fit_xgboost_head"]

_MIN_ANSWERS = 20


@dataclass(frozen=True, kw_only=True)
class XGBoostHeadConfig:
    """Settings of the XGBoost head.

    Attributes:
        n_rounds: Trees a candidate.
        max_depth: Depth of a tree.
        learning_rate: Weight of each tree.
        column_share: Share of the features each tree sees.
        l2_penalty: L2 penalty on leaf values.
    """

    name: Literal["xgboost"] = "xgboost"
    n_rounds: int = 150
    max_depth: int = 3
    learning_rate: float = 0.05
    column_share: float = 0.3
    l2_penalty: float = 5.0

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class XGBoostHead:
    """One booster a column; a column with too few answers keeps its mean.

    Attributes:
        boosters: t models in XGBoost's UBJ format, (bytes,) uint8; length 0 where the mean is used.
        means: (t,) mean of each column.
    """

    boosters: tuple[npt.NDArray[np.uint8], ...]
    means: FloatArray

    @cached_property
    def _loaded(self) -> tuple[Any, ...]:
        """The boosters, parsed once; None where the mean is used."""
        if not any(raw.size for raw in self.boosters):
            return (None,) * len(self.boosters)
        xgboost = require("xgboost", extra="xgboost-cpu")
        return tuple(_load(xgboost, raw) if raw.size else None for raw in self.boosters)

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        predicted = np.tile(self.means, (len(features), 1))
        for column, booster in enumerate(self._loaded):
            if booster is not None and len(features):
                predicted[:, column] = booster.inplace_predict(features)
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {"means": self.means, **{f"booster.{i}": raw for i, raw in enumerate(self.boosters)}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        means = tensors["means"]
        return cls(means=means, boosters=tuple(tensors[f"booster.{i}"] for i in range(len(means))))


def fit_xgboost_head(config: XGBoostHeadConfig, inputs: HeadInputs) -> XGBoostHead:
    """Train one booster a column on the queries that have a value in it."""
    xgboost = require("xgboost", extra="xgboost-cpu")
    parameters = {
        "objective": "reg:squarederror",
        "max_depth": config.max_depth,
        "learning_rate": config.learning_rate,
        "colsample_bytree": config.column_share,
        "subsample": 0.8,
        "lambda": config.l2_penalty,
        "min_child_weight": 5,
        "max_bin": 64,  # a third of the time of XGBoost's 256; scores of 0 and 1 need no finer cuts
        "nthread": inputs.n_threads,
        "seed": inputs.seed,
    }
    boosters, means = [], column_means(inputs.targets)
    for values, mean in zip(inputs.targets.T, means, strict=True):
        observed = ~np.isnan(values)
        if observed.sum() < _MIN_ANSWERS or np.ptp(values[observed]) == 0:
            boosters.append(np.zeros(0, dtype=np.uint8))
            continue
        matrix = xgboost.DMatrix(inputs.features[observed], values[observed], nthread=inputs.n_threads)
        booster = xgboost.train(
            parameters | {"base_score": float(mean)}, matrix, num_boost_round=config.n_rounds
        )
        boosters.append(np.frombuffer(bytes(booster.save_raw(raw_format="ubj")), dtype=np.uint8))
    return XGBoostHead(boosters=tuple(boosters), means=means)


def _load(xgboost: Any, raw: npt.NDArray[np.uint8]) -> Any:
    booster = xgboost.Booster(model_file=bytearray(raw.tobytes()))
    booster.set_param({"nthread": 1})
    return booster
