"""Confidence intervals of paired differences; the one place where the toolkit resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import NotEnoughLogsError

__all__ = ["Interval", "bootstrap_means", "paired_interval"]

_CHUNK = 4_000_000  # resampled group indices held at once, to bound memory


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: The observed mean.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the interval as text, for example `+0.012 [-0.003, +0.027]`."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap_means(
    differences: npt.NDArray[np.floating],
    *,
    groups: Sequence[str] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Resample the mean of differences, whole groups at a time.

    Args:
        differences: (n,) one value a query.
        groups: n keys; queries of one key (near-duplicates, a session) are drawn together. None: each alone.
        n_resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        (n_resamples,) resampled means.

    Raises:
        NotEnoughLogsError: If there are no differences.
    """
    if len(differences) == 0:
        raise NotEnoughLogsError("There are no queries to compare on: every difference is missing.")
    values = np.asarray(differences, dtype=np.float64)
    if groups is None:
        index = np.arange(len(values))
    else:
        _, index = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    step = max(1, _CHUNK // len(sums))
    for start in range(0, n_resamples, step):
        drawn = rng.integers(0, len(sums), size=(min(step, n_resamples - start), len(sums)))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def paired_interval(
    differences: npt.NDArray[np.floating],
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Give the percentile bootstrap interval of a mean paired difference.

    Args:
        differences: (n,) ours minus theirs, one value a query.
        groups: As in `bootstrap_means`.
        level: Coverage, in (0, 1).
        n_resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The interval.

    Raises:
        NotEnoughLogsError: If there are no differences.
    """
    means = bootstrap_means(differences, groups=groups, n_resamples=n_resamples, seed=seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(np.mean(differences)), low=float(low), high=float(high))
