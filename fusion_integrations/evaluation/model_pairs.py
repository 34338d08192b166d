"""How well a router decides which queries need the stronger of two models: RouteLLM's measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PairMeasures", "measure_pair", "measure_pairs"]

_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class PairMeasures:
    """How a router of two models trades calls of the stronger for performance.

    Attributes:
        strong: Id of the stronger candidate, by its mean performance.
        weak: Id of the other.
        apgr: Average performance gap recovered over all shares of calls to the stronger one; 0.5 for random
            routing, 1 and more if calls go where they help most.
        cpt_50: Share of calls to the stronger one that recovers half of the gap, in [0, 1].
        cpt_80: The same for 80% of it.
    """

    strong: str
    weak: str
    apgr: float
    cpt_50: float
    cpt_80: float

    def to_json(self) -> dict[str, Any]:
        """Return the measures as JSON data."""
        return dict(vars(self))


def measure_pair(
    performance: npt.NDArray[np.floating],
    predicted_gain: npt.NDArray[np.floating],
    *,
    ids: tuple[str, str],
    strong: int,
) -> PairMeasures | None:
    """Send the queries of highest predicted gain to the stronger model, more and more of them.

    Among queries of equal predicted gain chance decides, so each stands for their mean.

    Args:
        performance: (n, 2) performance of both models on n queries.
        predicted_gain: (n,) what the router expects the stronger one to gain.
        ids: Ids of the two columns.
        strong: Column of the stronger one.

    Returns:
        The measures; None if the "stronger" model is not better on these queries, so that there is no gap.

    Source:
        RouteLLM (arXiv 2406.18665), section 3.2. The area is exact over all n + 1 thresholds, where the
        paper's code takes ten.
    """
    order = np.argsort(-predicted_gain, kind="stable")
    gain = (performance[:, strong] - performance[:, 1 - strong])[order].astype(np.float64)
    if gain.sum() <= 0:
        return None
    _, tied = np.unique(predicted_gain[order], return_inverse=True)
    gain = (np.bincount(tied, weights=gain) / np.bincount(tied))[tied]
    recovered = np.concatenate([[0.0], np.cumsum(gain)]) / gain.sum()
    shares = np.linspace(0, 1, len(recovered))
    return PairMeasures(
        strong=ids[strong],
        weak=ids[1 - strong],
        apgr=float(np.trapezoid(recovered, shares)),
        cpt_50=float(shares[np.argmax(recovered >= 0.5)]),
        cpt_80=float(shares[np.argmax(recovered >= 0.8)]),
    )


def measure_pairs(
    performance: npt.NDArray[np.floating],
    predicted: npt.NDArray[np.floating],
    *,
    ids: Sequence[str],
    tasks: Sequence[str | None],
) -> dict[str, PairMeasures]:
    """Measure a router of two models on all queries, and by family: the part of a task's name before "/".

    Args:
        performance: (n, k) performance of the models.
        predicted: (n, k) what the router expects.
        ids: k ids.
        tasks: n task names, or None where unknown.

    Returns:
        The measures by family, and under "all"; the stronger model is that of the queries measured. Empty
        unless there are two models; one family alone is not repeated, and one without a gap left out.
    """
    if len(ids) != 2:
        return {}
    families = np.array([(task or "").split("/")[0] for task in tasks])
    names = sorted(set(families.tolist()) - {""})
    found = {}
    for name in [_ALL, *(names if len(names) > 1 else [])]:
        rows = np.ones(len(families), dtype=np.bool_) if name == _ALL else families == name
        strong = int(performance[rows].mean(axis=0).argmax())
        pair = measure_pair(
            performance[rows],
            predicted[rows, strong] - predicted[rows, 1 - strong],
            ids=(ids[0], ids[1]),
            strong=strong,
        )
        if pair is not None:
            found[name] = pair
    return found
