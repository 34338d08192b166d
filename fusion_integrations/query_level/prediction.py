"""What a router expects of every candidate; turning it into a choice is the policy's job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["Prediction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Expectations for n queries and k candidates.

    Attributes:
        candidates: The k columns.
        performance_members: (m, n, k) expected performance in [0, 1] by each of m members, every member
            trained without another m-th part of the queries. Those of a candidate added later may stray
            outside, around a mean within.
        input_tokens: (n, k) prompt tokens, estimated from the prompt's length; NaN if logs had none.
        output_tokens: (n, k) expected answer tokens; NaN if logs had none.
        logged_cost_usd: (n, k) expected USD a call at the prices of the logs; NaN if logs had none.
        logged_latency_s: (n, k) expected seconds a call, as logged; NaN if logs had none, None if nobody's
            were.
        is_novel: (n,) whether each query is unlike those of the logs; None if nobody can tell.
    """

    candidates: tuple[Candidate, ...]
    performance_members: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    logged_cost_usd: FloatArray
    logged_latency_s: FloatArray | None = None
    is_novel: npt.NDArray[np.bool_] | None = None

    @property
    def latency_s(self) -> FloatArray:
        """(n, k) expected seconds a call; NaN if logs had none."""
        if self.logged_latency_s is not None:
            return self.logged_latency_s
        return np.full(self.logged_cost_usd.shape, np.nan, dtype=np.float32)

    # Computed once: explaining the decisions of n queries reads them for every row. Read-only, as the rest
    # of a prediction is meant to be. Not by NumPy's own mean and variance, which take longer to begin than
    # this takes to end.
    @cached_property
    def performance(self) -> FloatArray:
        """(n, k) expected performance, the mean of the members."""
        mean: FloatArray = np.add.reduce(self.performance_members, axis=0) / np.float32(
            len(self.performance_members)
        )
        mean.flags.writeable = False
        return mean

    @cached_property
    def performance_se(self) -> FloatArray:
        """(n, k) standard error of `performance`."""
        se = _length(self.performance_deviations)
        se.flags.writeable = False
        return se

    @cached_property
    def performance_deviations(self) -> FloatArray:
        """(m, n, k) of the members from their mean, so scaled that their length is the standard error.

        Source:
            Shao and Tu, The Jackknife and Bootstrap (1995), section 2.3: by deleting a group, the variance is
            (m - 1) / m times the sum of squares.
        """
        m = len(self.performance_members)
        deviations = (self.performance_members - self.performance) * np.float32(((m - 1) / m) ** 0.5)
        deviations.flags.writeable = False
        return deviations

    def select(self, rows: npt.NDArray[np.intp]) -> Prediction:
        """Return the expectations for some of the n queries."""
        latency = self.logged_latency_s
        return replace(
            self,
            performance_members=self.performance_members[:, rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            logged_cost_usd=self.logged_cost_usd[rows],
            logged_latency_s=None if latency is None else latency[rows],
            is_novel=None if self.is_novel is None else self.is_novel[rows],
        )

    def select_candidates(self, columns: Sequence[int]) -> Prediction:
        """Return the expectations of some of the k candidates, in a given order."""
        chosen, latency = list(columns), self.logged_latency_s
        return replace(
            self,
            candidates=tuple(self.candidates[column] for column in chosen),
            performance_members=self.performance_members[:, :, chosen],
            input_tokens=self.input_tokens[:, chosen],
            output_tokens=self.output_tokens[:, chosen],
            logged_cost_usd=self.logged_cost_usd[:, chosen],
            logged_latency_s=None if latency is None else latency[:, chosen],
        )

    def paired_gain_se(self, base: np.ndarray) -> FloatArray:
        """Give the standard error of each candidate's predicted gain over a base candidate.

        The members are compared within themselves, so what moves both candidates alike cancels.

        Args:
            base: (n,) column index of the base candidate of each query.

        Returns:
            Array (n, k), float32, 0 at the base itself.
        """
        of_base = self.performance_deviations[:, np.arange(len(base)), base]
        return _length(self.performance_deviations - of_base[:, :, None])

    def cost_usd(self, prices: PriceTable | None) -> FloatArray:
        """Give the expected cost of each call.

        Args:
            prices: Today's prices, applied to the expected tokens. Where they do not reach (no price, no
                token counts in the logs), and everywhere if None, the cost is as logged.

        Returns:
            Array (n, k), float32, USD; NaN where nothing is known.
        """
        if prices is None:
            return self.logged_cost_usd
        cost = np.empty_like(self.logged_cost_usd)
        for column, candidate in enumerate(self.candidates):
            priced = prices.costs_usd(
                candidate,
                input_tokens=self.input_tokens[:, column],
                output_tokens=self.output_tokens[:, column],
            )
            cost[:, column] = np.where(np.isnan(priced), self.logged_cost_usd[:, column], priced)
        return cost


def _length(deviations: FloatArray) -> FloatArray:
    """Give the Euclidean length over the first axis."""
    length: FloatArray = np.sqrt(np.add.reduce(deviations * deviations, axis=0))
    return length
