"""What a router expects of every candidate; turning it into a choice is the policy's job."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fusion_integrations.protocols import FloatArray
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["Prediction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Expectations for n queries and k candidates.

    Attributes:
        candidates: The k columns.
        performance_members: (m, n, k) expected performance in [0, 1] by each of m members, every member
            trained without another m-th part of the queries.
        input_tokens: (n, k) prompt tokens, estimated from the text's length; NaN if logs had none.
        output_tokens: (n, k) expected answer tokens; NaN if logs had none.
        logged_cost_usd: (n, k) expected USD a call at the prices of the logs; NaN if logs had none.
    """

    candidates: tuple[Candidate, ...]
    performance_members: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    logged_cost_usd: FloatArray

    # Computed once: explaining the decisions of n queries reads both for every row. Read-only, as the rest
    # of a prediction is meant to be.
    @cached_property
    def performance(self) -> FloatArray:
        """(n, k) expected performance, the mean of the members."""
        mean: FloatArray = self.performance_members.mean(axis=0, dtype=np.float32)
        mean.flags.writeable = False
        return mean

    @cached_property
    def performance_se(self) -> FloatArray:
        """(n, k) standard error of `performance`; see `_jackknife_se`."""
        se = _jackknife_se(self.performance_members)
        se.flags.writeable = False
        return se

    def paired_gain_se(self, base: np.ndarray) -> FloatArray:
        """Give the standard error of each candidate's predicted gain over a base candidate.

        The members are compared within themselves, so what moves both candidates alike cancels.

        Args:
            base: (n,) column index of the base candidate of each query.

        Returns:
            Array (n, k), float32, 0 at the base itself.
        """
        of_base = self.performance_members[:, np.arange(len(base)), base]
        return _jackknife_se(self.performance_members - of_base[:, :, None])

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


def _jackknife_se(members: FloatArray) -> FloatArray:
    """Give the delete-a-group jackknife standard error over the first axis.

    Source:
        Shao and Tu, The Jackknife and Bootstrap (1995), section 2.3: variance (m - 1) / m * sum of squares.
    """
    m = members.shape[0]
    se: FloatArray = np.sqrt((m - 1) * members.var(axis=0, dtype=np.float64)).astype(np.float32)
    return se
