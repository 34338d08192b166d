"""Measures how far a judge agrees with the metrics, where logs have both, and what sways it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import LogSchemaError, NotEnoughLogsError
from fusion_integrations.statistics import Interval, paired_interval

__all__ = ["JudgeAgreement", "judge_agreement"]

_COLUMNS = ("query_id", "candidate_id", "response", "performance", "judge_score")


@dataclass(frozen=True, kw_only=True)
class JudgeAgreement:
    """How judge and metric agree on the answers that both scored.

    Attributes:
        n: Answers with both scores.
        bias: Mean of judge minus metric with its 95 % interval, queries resampled; above 0 the judge is
            milder.
        correlation: Pearson's, in [-1, 1]; None where either score is constant.
        rank_correlation: Spearman's, likewise.
        accuracy: Share of answers that both put on the same side of the threshold.
        kappa: The same beyond chance (Cohen's); None where chance alone agrees.
        verbosity: Correlation of judge minus metric with the logarithm of the answer's length; above 0 the
            judge favours long answers. None where either is constant.
        bias_by_candidate: Mean of judge minus metric of each candidate: a judge may favour its own kin.
    """

    n: int
    bias: Interval
    correlation: float | None
    rank_correlation: float | None
    accuracy: float
    kappa: float | None
    verbosity: float | None
    bias_by_candidate: Mapping[str, float]


def judge_agreement(frame: pl.DataFrame, *, threshold: float = 0.5, seed: int = 0) -> JudgeAgreement:
    """Compare judge scores with metric scores.

    Args:
        frame: Logs with the columns of `LOG_SCHEMA`; rows without both scores are left out.
        threshold: Scores of at least this count as right.
        seed: Seed of the resampling.

    Returns:
        The agreement.

    Raises:
        LogSchemaError: If the frame lacks columns.
        NotEnoughLogsError: If no answer has both scores.
    """
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise LogSchemaError(f"The logs lack the columns {missing}. Load them with `load_logs`.")
    both = frame.filter(pl.col("performance").is_not_null() & pl.col("judge_score").is_not_null())
    if both.is_empty():
        raise NotEnoughLogsError(
            "No answer has both a metric's and a judge's score. Score the same logs with both first."
        )
    metric, judge = both["performance"].to_numpy(), both["judge_score"].to_numpy()
    differences = judge - metric
    lengths = np.log1p(both["response"].fill_null("").str.len_chars().to_numpy())
    is_right, is_praised = metric >= threshold, judge >= threshold
    by_candidate = both.group_by("candidate_id").agg(
        (pl.col("judge_score") - pl.col("performance")).mean().alias("bias")
    )
    return JudgeAgreement(
        n=both.height,
        bias=paired_interval(differences, groups=both["query_id"].to_list(), seed=seed),
        correlation=_correlation(metric, judge),
        rank_correlation=_correlation(
            both["performance"].rank().to_numpy(), both["judge_score"].rank().to_numpy()
        ),
        accuracy=float(np.mean(is_right == is_praised)),
        kappa=_kappa(is_right, is_praised),
        verbosity=_correlation(differences, lengths),
        bias_by_candidate=dict(by_candidate.sort("candidate_id").iter_rows()),
    )


def _correlation(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _kappa(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float | None:
    by_chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    return None if by_chance == 1 else float((np.mean(first == second) - by_chance) / (1 - by_chance))
