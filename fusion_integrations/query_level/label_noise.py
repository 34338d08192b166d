"""How much of a score is luck: what repeated answers to one query disagree about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fusion_integrations.query_level.labels import AnyLabel, label_values
from fusion_integrations.types import ABANDONED

__all__ = ["LabelNoise", "measure_label_noise"]

_MIN_REPEATED = 20


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Variance of a label, split.

    Attributes:
        n_repeated: Pairs of query and candidate with two or more scored answers of one revision.
        within: Variance among the answers of one pair.
        total: Variance over all answers of such pairs.
    """

    n_repeated: int
    within: float
    total: float

    @property
    def ceiling(self) -> float:
        """Largest share of the variance that any predictor can explain; the rest is noise."""
        return max(0.0, 1 - self.within / self.total) if self.total > 0 else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the noise as JSON data."""
        return {**vars(self), "ceiling": self.ceiling}


def measure_label_noise(frame: pl.DataFrame, label: AnyLabel) -> LabelNoise | None:
    """Measure the noise of a label where queries repeat.

    Args:
        frame: The logs, in `LOG_SCHEMA`.
        label: The score.

    Returns:
        The noise; None if fewer than 20 pairs of query and candidate have two scored answers.

    Source:
        One-way analysis of variance; the pooled variance within pairs.
    """
    scored = frame.with_columns(label_values(label).fill_nan(None).alias("_label")).filter(
        pl.col("_label").is_not_null()
        & pl.col("error").is_null()
        & (pl.col("finish_reason").fill_null("") != ABANDONED)
    )
    # Revisions of a candidate differ for a reason, which is no noise.
    pairs = scored.group_by("query_id", "candidate_id", "candidate_revision").agg(
        pl.len().alias("n"), pl.col("_label").var().alias("variance"), pl.col("_label")
    )
    repeated = pairs.filter(pl.col("n") >= 2)
    if repeated.height < _MIN_REPEATED:
        return None
    freedom = repeated["n"].to_numpy() - 1.0
    within = float(np.average(repeated["variance"].to_numpy(), weights=freedom))
    every = repeated["_label"].explode().to_numpy()
    return LabelNoise(n_repeated=repeated.height, within=within, total=float(every.var(ddof=1)))
