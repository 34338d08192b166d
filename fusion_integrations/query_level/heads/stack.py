"""A blend of learners, weighed by how well each predicts queries it has not seen.

A prediction has two parts: how well candidates do on the query as a whole, and how each differs from that.
Routing needs the second only, which is small beside the first, so the two are blended apart. The candidates'
means are part of the blend as they stand; what learners add to them counts as far as it proved right.
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
from fusion_integrations.query_level.heads.base import (
    FittedHead,
    HeadInputs,
    column_means,
    require_above_zero,
)
from fusion_integrations.query_level.heads.learners import (
    LEARNERS,
    fit_learner,
    learner_config,
    restore_learner,
)

__all__ = ["StackHead", "StackHeadConfig", "fit_stack_members"]

_MAX_CELLS = 2_000_000  # values that the weights are fitted on


@dataclass(frozen=True, kw_only=True)
class StackHeadConfig:
    """Settings of the stack.

    Attributes:
        components: The learners blended, two or more. The default ones train in seconds and predict in
            microseconds; `"knn"` and `"xgboost"` beside them gain little for what they cost.
        prior_strength: Pull of the weights towards equal ones; matters where there are few answers.
    """

    name: Literal["stack"] = "stack"
    components: tuple[str, ...] = ("cluster", "linear")
    prior_strength: float = 10.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidPolicyError: If a component is unknown or named twice, there are fewer than two, or the
                prior is not above 0.
        """
        require_above_zero(self, "prior_strength")
        unknown = sorted(set(self.components) - set(LEARNERS))
        if unknown or len(set(self.components)) < max(2, len(self.components)):
            message = (
                f"StackHeadConfig.components must be two or more different ones of {sorted(LEARNERS)}, "
                f"got {list(self.components)}."
            )
            raise InvalidPolicyError(message)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {**asdict(self), "components": list(self.components)}


@dataclass(frozen=True, kw_only=True, eq=False)
class StackHead:
    """value = mean + level weights . learners' levels + deviation weights . learners' deviations.

    Attributes:
        components: m fitted learners by name, sorted by name.
        means: (t,) shrunk mean of each column.
        level_weights: (m,).
        deviation_weights: (m,).
    """

    components: Mapping[str, FittedHead]
    means: FloatArray
    level_weights: FloatArray
    deviation_weights: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        predicted = np.tile(self.means, (len(features), 1))
        parts = zip(self.components.values(), self.level_weights, self.deviation_weights, strict=True)
        for component, level_weight, deviation_weight in parts:
            level, deviation = _split(component.predict(features), self.means)
            predicted += level_weight * level + deviation_weight * deviation
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "means": self.means,
            "level_weights": self.level_weights,
            "deviation_weights": self.deviation_weights,
            **{
                f"component.{name}.{array}": tensor
                for name, component in self.components.items()
                for array, tensor in component.tensors().items()
            },
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        means = tensors["means"]
        of_component: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for key, tensor in tensors.items():
            if key.startswith("component."):
                _, name, array = key.split(".", 2)
                of_component.setdefault(name, {})[array] = tensor
        return cls(
            components={name: restore_learner(name, of_component[name]) for name in sorted(of_component)},
            means=means,
            level_weights=tensors["level_weights"],
            deviation_weights=tensors["deviation_weights"],
        )


def fit_stack_members(
    config: StackHeadConfig, inputs: HeadInputs, folds: npt.NDArray[np.int64]
) -> tuple[StackHead, ...]:
    """Train one blend a fold, each without the queries of its fold.

    Every learner is trained once a fold, and what it predicts there weighs it: cross-fitting for free. The
    weights, two numbers a learner, are common to all members.

    Args:
        config: Which learners.
        inputs: What they learn from, n queries.
        folds: (n,) fold of each query, from 0.

    Returns:
        One member a fold.

    Source:
        Breiman, Stacked Regressions (1996): non-negative weights on cross-validated predictions.
    """
    names = sorted(config.components)
    members: list[tuple[dict[str, FittedHead], FloatArray]] = []
    shape = (len(names), *inputs.targets.shape)
    levels, deviations = np.zeros(shape[:2], dtype=np.float32), np.zeros(shape, dtype=np.float32)
    excess = np.empty_like(inputs.targets)
    for fold in range(int(folds.max()) + 1):
        part, held_out = inputs.select(folds != fold), folds == fold
        means = column_means(part.targets, part.weights)
        components = {name: fit_learner(learner_config(name), part) for name in names}
        members.append((components, means))
        excess[held_out] = inputs.targets[held_out] - means
        for number, component in enumerate(components.values()):
            level, deviation = _split(component.predict(inputs.features[held_out]), means)
            levels[number, held_out], deviations[number, held_out] = level[:, 0], deviation
    level_weights, deviation_weights = _weigh(config, levels, deviations, excess, inputs)
    return tuple(
        StackHead(
            components=components,
            means=means,
            level_weights=level_weights,
            deviation_weights=deviation_weights,
        )
        for components, means in members
    )


def _split(values: FloatArray, means: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Split (n, t) values less their (t,) means into each row's mean (n, 1) and what is left (n, t)."""
    excess = values - means
    level = excess.mean(axis=1, keepdims=True)
    return level, excess - level


def _weigh(
    config: StackHeadConfig,
    levels: FloatArray,
    deviations: FloatArray,
    excess: FloatArray,
    inputs: HeadInputs,
) -> tuple[FloatArray, FloatArray]:
    """Fit the blend to every logged value: non-negative least squares with a pull towards equal weights."""
    optimize = require("scipy.optimize", extra="train")
    m = len(levels)
    rows, columns = np.nonzero(~np.isnan(excess))
    if len(rows) > _MAX_CELLS:
        kept = np.random.default_rng(inputs.seed).permutation(len(rows))[:_MAX_CELLS]
        rows, columns = rows[kept], columns[kept]
    parts = np.concatenate([levels[:, rows], deviations[:, rows, columns]]).astype(np.float64)
    weighed = parts * inputs.weights[rows, columns]
    gram = weighed @ parts.T + config.prior_strength * np.eye(2 * m)
    pull = weighed @ excess[rows, columns].astype(np.float64) + config.prior_strength / m
    # The normal equations as a least squares problem again: gram = factor.T @ factor.
    factor = np.linalg.cholesky(gram).T
    weights, _ = optimize.nnls(factor, np.linalg.solve(factor.T, pull))
    return weights[:m].astype(np.float32), weights[m:].astype(np.float32)
