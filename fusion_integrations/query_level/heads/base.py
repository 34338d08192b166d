"""What a head is: a regressor from query features to one value a column, learned from the cells there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray

__all__ = ["FittedHead", "HeadInputs", "column_means"]

_SHRINKAGE = 10.0  # weight of all columns in the mean of one, in values


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadInputs:
    """What a head learns from.

    Attributes:
        features: (n, d) features of the queries.
        targets: (n, t) values to predict, NaN where nothing was logged.
        tasks: n task names, or None where unknown; available in training only.
        n_threads: CPU threads a library may use.
        seed: Seed of every random choice.
    """

    features: FloatArray
    targets: FloatArray
    tasks: tuple[str | None, ...]
    n_threads: int
    seed: int


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


def column_means(targets: FloatArray) -> FloatArray:
    """Average every column, shrunk towards the average of all values.

    One lucky answer must not make a candidate look perfect, nor none make it look worthless.

    Args:
        targets: (n, t) values of one unit, NaN where nothing was logged.

    Returns:
        Array (t,), float32; 0 if there are no values at all.
    """
    observed = ~np.isnan(targets)
    values = np.where(observed, targets, 0.0)
    overall = values.sum() / max(int(observed.sum()), 1)
    means: FloatArray = (values.sum(axis=0) + _SHRINKAGE * overall) / (observed.sum(axis=0) + _SHRINKAGE)
    return means.astype(np.float32)
