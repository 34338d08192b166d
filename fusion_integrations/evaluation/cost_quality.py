"""What quality costs: points of mean cost and mean performance, and the hull over them.

Any two strategies can be mixed by chance, so every point on the line between them can be had: the hull of the
points is what a strategy offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CostQuality", "aiq", "cost_at_quality", "measure_cost_quality", "quality_hull"]

Points = npt.NDArray[np.float64]

_ROUNDING = 1e-6  # means of the same numbers in another order differ by less


@dataclass(frozen=True, kw_only=True)
class CostQuality:
    """What a router offers at every budget.

    Attributes:
        points: Pairs of mean USD a call and mean performance, one a cost weight, and the validated choice.
        aiq: Average performance over the budgets between the cheapest and the dearest candidate.
        cost_at_best_single: Cost at which the performance of Best Single is reached, as a share of its cost;
            None if it never is, or Best Single is free and it is not.
    """

    points: tuple[tuple[float, float], ...]
    aiq: float
    cost_at_best_single: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the curve as JSON data."""
        return {**vars(self), "points": [list(point) for point in self.points]}


def measure_cost_quality(
    choices: Sequence[npt.NDArray[np.intp]],
    *,
    performance: npt.NDArray[np.floating],
    cost_usd: npt.NDArray[np.floating],
    quality: float,
    quality_cost_usd: float,
) -> CostQuality | None:
    """Measure what choices at several cost weights offer.

    Args:
        choices: (n,) chosen columns each.
        performance: (n, k) what every candidate reaches.
        cost_usd: (n, k) what it costs, NaN where unknown.
        quality: Mean performance of Best Single.
        quality_cost_usd: Its mean cost.

    Returns:
        The curve; None if there are no choices, the cost of a candidate is unknown, or all cost the same.
    """
    costs = cost_usd.mean(axis=0)
    if not len(choices) or np.isnan(costs).any() or costs.min() == costs.max():
        return None
    rows = np.arange(len(performance))
    points = tuple(
        (float(cost_usd[rows, chosen].mean()), float(performance[rows, chosen].mean())) for chosen in choices
    )
    reached = cost_at_quality(points, quality=quality)
    return CostQuality(
        points=points,
        aiq=aiq(points, cost_range=(float(costs.min()), float(costs.max()))),
        cost_at_best_single=None if reached is None else _share(reached, quality_cost_usd),
    )


def _share(cost: float, whole: float) -> float | None:
    """Divide costs; of nothing there is no share but the whole."""
    if whole > 0:
        return cost / whole
    return 1.0 if cost == 0 else None


def quality_hull(points: Iterable[tuple[float, float]]) -> Points:
    """Give the upper hull of cost-performance points, without the parts that cost more for no more.

    Args:
        points: Pairs (cost, performance), one or more, finite.

    Returns:
        Array (m, 2), cost and performance both rising.

    Source:
        The non-decreasing convex hull of RouterBench (arXiv 2403.12031), section 3.2.
    """
    hull: list[tuple[float, float]] = []
    # Of equal costs the better first: the others are then no better than what is there.
    for cost, performance in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if hull and performance <= hull[-1][1]:
            continue
        while len(hull) >= 2 and _is_below(hull[-1], hull[-2], (cost, performance)):
            hull.pop()
        hull.append((cost, performance))
    return np.array(hull, dtype=np.float64)


def cost_at_quality(points: Iterable[tuple[float, float]], *, quality: float) -> float | None:
    """Give the lowest cost at which the hull reaches a quality.

    Args:
        points: Pairs (cost, performance).
        quality: Wanted mean performance.

    Returns:
        The cost, in the unit of the points; None if the hull stays below.
    """
    hull = quality_hull(points)
    costs, performances = hull[:, 0], hull[:, 1]
    if quality > performances[-1] + _ROUNDING:
        return None
    # Left of the first point np.interp keeps its cost: nothing cheaper is on offer.
    return float(np.interp(quality, performances, costs))


def aiq(points: Iterable[tuple[float, float]], *, cost_range: tuple[float, float]) -> float:
    """Give the average performance that the hull offers over a range of budgets.

    Args:
        points: Pairs (cost, performance).
        cost_range: Lowest and highest budget, the same for all that is compared. Below its cheapest point
            the hull is taken to rise from 0 performance at the lowest budget, as if queries went unanswered.

    Returns:
        Area under the hull over the range, divided by its width.

    Source:
        Average Improvement in Quality, RouterBench (arXiv 2403.12031), section 3.3.
    """
    low, high = cost_range
    hull = quality_hull(points)
    start = [[low, 0.0]] if hull[0, 0] > low else []
    budgets = np.unique(np.clip(np.concatenate([[low, high], hull[:, 0]]), low, high))
    path = np.array([*start, *hull.tolist()])
    offered = np.interp(budgets, path[:, 0], path[:, 1])
    return float(np.trapezoid(offered, budgets) / (high - low))


def _is_below(middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> bool:
    """Tell whether a point lies on or below the line between its neighbours."""
    rise = (right[1] - left[1]) * (middle[0] - left[0])
    return (middle[1] - left[1]) * (right[0] - left[0]) <= rise
