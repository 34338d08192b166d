"""A base learner and the corrections of others, weighed by how well they predict queries they have not seen.

A prediction has two parts: how well candidates do on the query as a whole, and how each differs from that.
Routing needs the second only, which is small beside the first, so the two are weighed apart. The candidates'
means are taken as they stand.
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
        components: The learners, two or more; the first is the base that the others correct. The default ones
            train in seconds and predict in microseconds; `"knn"` and `"xgboost"` beside them gain little for
            what they cost.
        correction_share: Share of a correction that counts in what sets candidates apart, in (0, 1]. The
            candidate that comes out on top owes part of its lead to the noise of the corrections, so what
            predicts best corrects too much for choosing.
        prior_strength: Pull of the weights towards those of the learners' mean; matters where there are few
            answers.
    """

    name: Literal["stack"] = "stack"
    components: tuple[str, ...] = ("cluster", "linear", "experts")
    correction_share: float = 0.5
    prior_strength: float = 10.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidPolicyError: If a component is unknown or named twice, there are fewer than two, or a
                number is out of its range.
        """
        require_above_zero(self, "prior_strength", "correction_share")
        if self.correction_share > 1:
            message = f"StackHeadConfig.correction_share must be at most 1, got {self.correction_share}."
            raise InvalidPolicyError(message)
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
    """value = mean + level weights . levels + deviation weights . deviations, of the base and of corrections.

    Attributes:
        base: Name of the first learner; a correction is what another predicts, less what this one does.
        components: m fitted learners by name, the base first, the others sorted.
        means: (t,) shrunk mean of each column.
        level_weights: (m,).
        deviation_weights: (m,).
    """

    base: str
    components: Mapping[str, FittedHead]
    means: FloatArray
    level_weights: FloatArray
    deviation_weights: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        predicted = np.tile(self.means, (len(features), 1))
        parts = _parts(self.components, features, self.means)
        for part, level_weight, deviation_weight in zip(
            parts, self.level_weights, self.deviation_weights, strict=True
        ):
            level = part.mean(axis=1, keepdims=True)
            predicted += level_weight * level + deviation_weight * (part - level)
        return predicted

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "means": self.means,
            "level_weights": self.level_weights,
            "deviation_weights": self.deviation_weights,
            **{
                f"{'base' if name == self.base else 'correction'}.{name}.{array}": tensor
                for name, component in self.components.items()
                for array, tensor in component.tensors().items()
            },
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        means = tensors["means"]
        stored: dict[tuple[str, str], dict[str, npt.NDArray[Any]]] = {}
        for key, tensor in tensors.items():
            role, _, rest = key.partition(".")
            if role in ("base", "correction"):
                name, _, array = rest.partition(".")
                stored.setdefault((role, name), {})[array] = tensor
        ordered = sorted(stored)  # the base, then the corrections by name
        if not ordered or ordered[0][0] != "base":
            raise KeyError("base")
        return cls(
            base=ordered[0][1],
            components={key[1]: restore_learner(key[1], stored[key]) for key in ordered},
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
    base, *others = config.components
    names = [base, *sorted(others)]
    members: list[tuple[dict[str, FittedHead], FloatArray]] = []
    parts = np.zeros((len(names), *inputs.targets.shape), dtype=np.float32)
    excess = np.empty_like(inputs.targets)
    for fold in range(int(folds.max()) + 1):
        part, held_out = inputs.select(folds != fold), folds == fold
        means = column_means(part.targets, part.weights)
        components = {name: fit_learner(learner_config(name), part) for name in names}
        members.append((components, means))
        excess[held_out] = inputs.targets[held_out] - means
        parts[:, held_out] = _parts(components, inputs.features[held_out], means)
    level_weights, deviation_weights = _weigh(config, parts, excess, inputs)
    return tuple(
        StackHead(
            base=base,
            components=components,
            means=means,
            level_weights=level_weights,
            deviation_weights=deviation_weights,
        )
        for components, means in members
    )


def _parts(components: Mapping[str, FittedHead], features: FloatArray, means: FloatArray) -> list[FloatArray]:
    """Give the (n, t) base less the means, then each correction of it."""
    base, *others = (component.predict(features) for component in components.values())
    return [base - means, *(other - base for other in others)]


def _weigh(
    config: StackHeadConfig, parts: FloatArray, excess: FloatArray, inputs: HeadInputs
) -> tuple[FloatArray, FloatArray]:
    """Fit the weights to every logged value by non-negative least squares, with the pull of the prior."""
    optimize = require("scipy.optimize", extra="train")
    m = len(parts)
    rows, columns = np.nonzero(~np.isnan(excess))
    if len(rows) > _MAX_CELLS:
        kept = np.random.default_rng(inputs.seed).permutation(len(rows))[:_MAX_CELLS]
        rows, columns = rows[kept], columns[kept]
    levels = parts.mean(axis=2)
    deviations = parts - levels[:, :, None]
    both = np.concatenate([levels[:, rows], deviations[:, rows, columns]]).astype(np.float64)
    weighed = both * inputs.weights[rows, columns]
    # The mean of the learners is the base and 1/m of every correction of it.
    equal = np.tile([1.0, *[1 / m] * (m - 1)], 2)
    gram = weighed @ both.T + config.prior_strength * np.eye(2 * m)
    pull = weighed @ excess[rows, columns].astype(np.float64) + config.prior_strength * equal
    # The normal equations as a least squares problem again: gram = factor.T @ factor.
    factor = np.linalg.cholesky(gram).T
    weights, _ = optimize.nnls(factor, np.linalg.solve(factor.T, pull))
    shares = np.array([1.0, *[config.correction_share] * (m - 1)])
    return weights[:m].astype(np.float32), (shares * weights[m:]).astype(np.float32)
