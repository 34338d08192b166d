"""What an interval allows to be said of a gain over Best Single."""

from __future__ import annotations

from typing import Literal

from fusion_integrations.statistics import Interval

__all__ = ["MIN_GROUPS", "Verdict", "verdict_of"]

Verdict = Literal["better", "worse", "not distinguishable", "too few queries"]

# Resampling few groups gives intervals that are too narrow: Cameron, Gelbach and Miller, Bootstrap-Based
# Improvements for Inference with Clustered Errors (2008), name five to thirty as few.
MIN_GROUPS = 30


def verdict_of(gain: Interval, *, n_groups: int) -> Verdict:
    """Say no more of a gain than its interval allows.

    Args:
        gain: The gain over the reference.
        n_groups: Groups of queries that the interval resamples.

    Returns:
        The verdict; with too few groups there is none, whatever the interval.
    """
    if n_groups < MIN_GROUPS:
        return "too few queries"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not distinguishable"
