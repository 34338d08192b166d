"""What is known of a router beyond what it reached: what it offers at every budget, and its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations.evaluation.cost_quality import CostQuality, measure_cost_quality
from fusion_integrations.evaluation.interval_coverage import IntervalCoverage, interval_coverage
from fusion_integrations.evaluation.model_pairs import PairMeasures, measure_pairs
from fusion_integrations.evaluation.reliability import ReliabilityBin, calibration_error, cell_reliability
from fusion_integrations.query_level.router_dataset import RouterDataset

__all__ = ["RouterDetails", "describe_router"]


@dataclass(frozen=True, kw_only=True)
class RouterDetails:
    """A router beyond its rows.

    Attributes:
        mse: Mean squared error of the predicted performance of logged answers.
        reliability: Predicted against observed performance.
        cost_quality: None where the cost of a candidate is unknown, or the same for all.
        pairs: RouteLLM's measures by task family, and under "all"; empty unless there are two candidates.
        intervals: How often stated intervals held; empty if the logs are too few to tell.
    """

    mse: float
    reliability: tuple[ReliabilityBin, ...]
    cost_quality: CostQuality | None
    pairs: Mapping[str, PairMeasures]
    intervals: tuple[IntervalCoverage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON data."""
        return {
            "mse": self.mse,
            "reliability": [each.to_json() for each in self.reliability],
            "calibration_error": calibration_error(self.reliability),
            "intervals": [each.to_json() for each in self.intervals],
            "cost_quality": None if self.cost_quality is None else self.cost_quality.to_json(),
            "pairs": {name: pair.to_json() for name, pair in self.pairs.items()},
        }


def describe_router(
    predicted: npt.NDArray[np.floating],
    se: npt.NDArray[np.floating],
    *,
    outcomes: RouterDataset,
    logged: RouterDataset,
    choices: Sequence[npt.NDArray[np.intp]],
    best_single: npt.NDArray[np.intp],
    groups: Sequence[str],
    seed: int,
) -> RouterDetails:
    """Measure a router on held-out queries.

    Args:
        predicted: (n, k) expected performance.
        se: (n, k) its standard error, as calibrated.
        outcomes: What every candidate reaches on the n queries.
        logged: The same queries, as logged.
        choices: (n,) chosen columns each, one a cost weight.
        best_single: (n,) column of the best single candidate in training.
        groups: n keys of queries to resample together.
        seed: Seed of the bootstrap.

    Returns:
        The details.
    """
    observed, rows = logged.performance, np.arange(len(logged))
    known = ~np.isnan(observed)
    return RouterDetails(
        mse=float(((predicted[known] - observed[known]) ** 2).mean()),
        reliability=cell_reliability(predicted, observed, groups=groups, seed=seed),
        intervals=interval_coverage(predicted, se, observed),
        cost_quality=measure_cost_quality(
            choices,
            performance=outcomes.performance,
            cost_usd=outcomes.cost_usd,
            quality=float(outcomes.performance[rows, best_single].mean()),
            quality_cost_usd=float(outcomes.cost_usd[rows, best_single].mean()),
        ),
        pairs=measure_pairs(
            outcomes.performance,
            predicted,
            ids=[candidate.id for candidate in outcomes.candidates],
            tasks=outcomes.tasks,
        ),
    )
