"""What a head is: a regressor from query features to one value a column, learned from the cells there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray

__all__ = ["MIN_ANSWERS", "FittedHead", "HeadInputs", "column_means", "require_above_zero"]

MIN_ANSWERS = 20  # a column with fewer values keeps its mean: fewer say nothing about queries

_SHRINKAGE = 10.0  # weight of all columns in the mean of one, in values


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadInputs:
    """What a head learns from.

    Attributes:
        texts: n query texts, for heads that read them; most learn from the features alone.
        features: (n, d) features of the queries, the embedding first.
        targets: (n, t) values to predict, NaN where nothing was logged.
        weights: (n, t) importance of each value, 0 where nothing was logged, about 1 otherwise.
        tasks: n task names, or None where unknown; available in training only.
        column_embeddings: (t, e) what is known of each column's candidate from its description, unit rows.
        n_embedding: How many of the d features are the query's embedding.
        n_threads: CPU threads a library may use.
        seed: Seed of every random choice.
    """

    texts: tuple[str, ...]
    features: FloatArray
    targets: FloatArray
    weights: FloatArray
    tasks: tuple[str | None, ...]
    column_embeddings: FloatArray
    n_embedding: int
    n_threads: int
    seed: int

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """Return the inputs of some queries, given as indices or as a mask of length n."""
        indices = np.arange(len(self))[rows]
        return replace(
            self,
            texts=tuple(self.texts[i] for i in indices),
            features=self.features[indices],
            targets=self.targets[indices],
            weights=self.weights[indices],
            tasks=tuple(self.tasks[i] for i in indices),
        )

    def sample(self, n_max: int) -> Self:
        """Return at most n_max random queries: what learns slowly has learned enough by then."""
        if len(self) <= n_max:
            return self
        return self.select(np.sort(np.random.default_rng(self.seed).permutation(len(self))[:n_max]))


class FittedHead(Protocol):
    """A trained head. Never learns "who won": it predicts every column's value."""

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        ...

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        ...


def column_means(targets: FloatArray, weights: FloatArray) -> FloatArray:
    """Average every column, shrunk towards the average of all values.

    One lucky answer must not make a candidate look perfect, nor none make it look worthless.

    Args:
        targets: (n, t) values of one unit, NaN where nothing was logged.
        weights: (n, t) importance of each value, 0 where nothing was logged.

    Returns:
        Array (t,), float32; 0 if there are no values at all.
    """
    totals = (np.nan_to_num(targets) * weights).sum(axis=0, dtype=np.float64)
    amounts = weights.sum(axis=0, dtype=np.float64)
    overall = totals.sum() / max(float(amounts.sum()), 1e-9)
    means: FloatArray = ((totals + _SHRINKAGE * overall) / (amounts + _SHRINKAGE)).astype(np.float32)
    return means


def require_above_zero(config: object, *names: str) -> None:
    """Make sure that settings of a head are numbers above 0.

    Args:
        config: The head's configuration.
        *names: The attributes to check.

    Raises:
        InvalidPolicyError: If one is not.
    """
    for name in names:
        if not getattr(config, name) > 0:
            message = f"{type(config).__name__}.{name} must be above 0, got {getattr(config, name)}."
            raise InvalidPolicyError(message)
