"""Are predictions as sure as they should be? How often stated intervals hold what came out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["IntervalCoverage", "interval_coverage"]

_LEVELS = (0.5, 0.8, 0.95)
_GROUP = 25  # queries whose mean is looked at: single scores are too noisy to show the error of a mean


@dataclass(frozen=True, kw_only=True)
class IntervalCoverage:
    """How many intervals of one level held.

    Attributes:
        level: Stated coverage.
        covered: Share of groups whose mean outcome lay in its interval.
        n_groups: Groups looked at, 25 or more answers each.
    """

    level: float
    covered: float
    n_groups: int

    def to_json(self) -> dict[str, Any]:
        """Return the coverage as JSON data."""
        return dict(vars(self))


def interval_coverage(
    predicted: npt.NDArray[np.floating], se: npt.NDArray[np.floating], observed: npt.NDArray[np.floating]
) -> tuple[IntervalCoverage, ...]:
    """Check the intervals that predictions state.

    A candidate's answers are put in groups of like prediction. The interval of a group's mean outcome is the
    mean prediction, give or take its stated error and the noise of that many single scores. A share covered
    below the level means that predictions are surer than they should be.

    Args:
        predicted: (n, k) expected performance.
        se: (n, k) its standard error, as calibrated.
        observed: (n, k) what came out, NaN where unknown.

    Returns:
        One entry a level of 50, 80 and 95%; empty if no candidate has 25 answers.
    """
    distances = []
    for column in range(predicted.shape[1]):
        known = np.flatnonzero(~np.isnan(observed[:, column]))
        order = known[np.argsort(predicted[known, column], kind="stable")]
        if len(order) < _GROUP:
            continue
        for rows in np.array_split(order, len(order) // _GROUP):
            residual = observed[rows, column].astype(np.float64) - predicted[rows, column]
            stated = float((se[rows, column].astype(np.float64) ** 2).mean())
            error = np.sqrt(stated + residual.var(ddof=1) / len(rows))
            # Where nothing varies at all, a prediction is either right or wrong.
            distance = abs(residual.mean())
            distances.append(distance / error if error > 0 else np.inf if distance > 1e-6 else 0.0)
    if not distances:
        return ()
    return tuple(
        IntervalCoverage(
            level=level,
            covered=float(np.mean(np.array(distances) <= NormalDist().inv_cdf((1 + level) / 2))),
            n_groups=len(distances),
        )
        for level in _LEVELS
    )
