"""Do predictions mean what they say? Predicted against observed, in bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations.statistics import Interval, paired_interval

__all__ = ["ReliabilityBin", "calibration_error", "cell_reliability", "reliability_table"]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Predictions of like size.

    Attributes:
        n: Number of predictions.
        predicted: Their mean.
        observed: Mean of what came out, with its interval.
    """

    n: int
    predicted: float
    observed: Interval

    def to_json(self) -> dict[str, Any]:
        """Return the bin as JSON data."""
        return {"n": self.n, "predicted": self.predicted, "observed": vars(self.observed)}


def reliability_table(
    predicted: npt.NDArray[np.floating],
    observed: npt.NDArray[np.floating],
    *,
    groups: Sequence[str],
    n_bins: int = 10,
    seed: int = 0,
) -> list[ReliabilityBin]:
    """Compare predictions with what came out, in bins of equally many.

    Args:
        predicted: (m,) predictions.
        observed: (m,) what came out.
        groups: m keys; values of one key (one query's, near-duplicates') are resampled together.
        n_bins: Number of bins; fewer where predictions are equal.
        seed: Seed of the bootstrap.

    Returns:
        The bins, by rising prediction.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, n_bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, predicted, side="left")
    keys = np.asarray(groups, dtype=np.str_)
    return [
        ReliabilityBin(
            n=int(rows.sum()),
            predicted=float(predicted[rows].mean()),
            observed=paired_interval(
                np.asarray(observed[rows]), groups=keys[rows].tolist(), n_resamples=500, seed=seed
            ),
        )
        for rows in (bin_of == number for number in np.unique(bin_of))
    ]


def cell_reliability(
    predicted: npt.NDArray[np.floating],
    observed: npt.NDArray[np.floating],
    *,
    groups: Sequence[str],
    seed: int = 0,
) -> tuple[ReliabilityBin, ...]:
    """Compare predictions of every candidate with logged answers, in bins.

    Args:
        predicted: (n, k) predictions.
        observed: (n, k) what came out, NaN where nothing was logged.
        groups: n keys of queries to resample together.
        seed: Seed of the bootstrap.

    Returns:
        The bins, by rising prediction.
    """
    rows, columns = np.nonzero(~np.isnan(observed))
    return tuple(
        reliability_table(
            predicted[rows, columns],
            observed[rows, columns],
            groups=[groups[row] for row in rows.tolist()],
            seed=seed,
        )
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Give the expected calibration error: mean distance of predicted from observed, by number.

    Source:
        Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3.
    """
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.predicted - each.observed.mean) for each in bins) / max(total, 1)
