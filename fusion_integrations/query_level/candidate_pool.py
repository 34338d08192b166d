"""Candidates that came or went after training: a layer over what the heads predict, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate

__all__ = ["AddedCandidate", "CandidatePool"]

_USAGES = ("input_tokens", "output_tokens", "logged_cost_usd", "logged_latency_s")


@dataclass(frozen=True, kw_only=True, eq=False)
class AddedCandidate:
    """One candidate as a combination of those that were trained.

    Attributes:
        coefficients: (m, 1 + b) intercept and weights of the b trained columns, for each of m members.
        usage: (4, 1 + b) intercept and weights for prompt tokens, answer tokens, USD and seconds; the
            intercept is NaN where nothing is known.
    """

    coefficients: FloatArray
    usage: FloatArray

    def performance(self, members: FloatArray) -> FloatArray:
        """Predict (m, n) performance, of mean within [0, 1], from the (m, n, b) of the trained candidates."""
        column = np.einsum("mnb,mb->mn", members, self.coefficients[:, 1:]) + self.coefficients[:, :1]
        mean = column.mean(axis=0)
        # Single members may stray: cut off at 0 or 1 they would agree, and look certain.
        moved: FloatArray = column + (np.clip(mean, 0.0, 1.0) - mean)
        return moved

    def use(self, row: int, trained: FloatArray) -> FloatArray:
        """Predict (n,) of one kind of use from the (n, b) of the trained candidates."""
        intercept, weights = self.usage[row, 0], self.usage[row, 1:]
        counts = weights != 0  # what is unknown of a candidate that does not count must not spread
        column: FloatArray = intercept + trained[:, counts] @ weights[counts]
        return column


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidatePool:
    """Which trained columns are still candidates, and who was added behind them.

    Attributes:
        n_trained: Number b of columns the heads predict.
        kept: Trained columns that are still candidates, in the order of the candidates.
        added: Who was added, in the order of the candidates behind those.
    """

    n_trained: int
    kept: tuple[int, ...]
    added: tuple[AddedCandidate, ...] = ()

    def apply(self, trained: Prediction, candidates: tuple[Candidate, ...]) -> Prediction:
        """Turn expectations of the trained columns into those of the candidates.

        Args:
            trained: (n, b) expectations.
            candidates: The k candidates, kept ones first.

        Returns:
            (n, k) expectations.
        """
        kept = list(self.kept)
        members = trained.performance_members
        columns = [members[:, :, kept], *(each.performance(members)[:, :, None] for each in self.added)]
        use: dict[str, Any] = {}
        for row, name in enumerate(_USAGES):
            values: FloatArray | None = getattr(trained, name)
            if values is None and any(not np.isnan(each.usage[row, 0]) for each in self.added):
                values = trained.latency_s  # only of those added; the others' stay unknown
            if values is not None:
                new = [each.use(row, values)[:, None] for each in self.added]
                values = np.concatenate([values[:, kept], *new], axis=1)
            use[name] = values
        return replace(
            trained,
            candidates=candidates,
            performance_members=np.concatenate(columns, axis=2),
            **use,
        )

    def with_added(self, new: AddedCandidate) -> CandidatePool:
        """Return the pool with one more candidate, the last."""
        return replace(self, added=(*self.added, new))

    def without(self, position: int) -> CandidatePool:
        """Return the pool without the candidate at a position."""
        n_kept = len(self.kept)
        if position < n_kept:
            return replace(self, kept=self.kept[:position] + self.kept[position + 1 :])
        at = position - n_kept
        return replace(self, added=self.added[:at] + self.added[at + 1 :])

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was learned about the added candidates as named arrays."""
        named: dict[str, npt.NDArray[Any]] = {}
        for number, each in enumerate(self.added):
            named |= {
                f"added.{number}.coefficients": each.coefficients,
                f"added.{number}.usage": each.usage,
            }
        return named

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        n_trained: int,
        kept: tuple[int, ...],
        n_candidates: int,
        n_members: int,
    ) -> Self:
        """Rebuild the pool.

        Args:
            tensors: What `tensors` gave, among others.
            n_trained: Number of trained columns.
            kept: Those that are still candidates.
            n_candidates: How many candidates there are in all.
            n_members: How many members predict.

        Returns:
            The pool.

        Raises:
            ArtifactFormatError: If arrays are missing or of another shape, or a kept column does not exist.
        """
        added = []
        for number in range(n_candidates - len(kept)):
            prefix = f"added.{number}."
            found = [tensors.get(prefix + name) for name in ("coefficients", "usage")]
            shapes = [None if array is None else array.shape for array in found]
            if shapes != [(n_members, 1 + n_trained), (len(_USAGES), 1 + n_trained)]:
                message = (
                    f"The artifact's arrays '{prefix}coefficients' and '{prefix}usage' of an added candidate "
                    f"have the shapes {shapes}. Save the router again."
                )
                raise ArtifactFormatError(message)
            added.append(AddedCandidate(coefficients=found[0], usage=found[1]))  # type: ignore[arg-type]  # no None has such a shape
        if any(not 0 <= column < n_trained for column in kept) or len(set(kept)) < len(kept):
            message = f"The artifact keeps the columns {kept} of {n_trained}. Save the router again."
            raise ArtifactFormatError(message)
        return cls(n_trained=n_trained, kept=kept, added=tuple(added))
