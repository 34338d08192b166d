"""What a head is: a regressor from query features to one value a column, learned from the cells there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy.typing as npt

from fusion_integrations.protocols import FloatArray

__all__ = ["FittedHead", "HeadInputs"]


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
