"""Choose the best logged answers to each query: what templates are written from and students taught with."""

from __future__ import annotations

from typing import Literal

import polars as pl

from fusion_integrations.errors import InvalidPolicyError, LogSchemaError
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.types import ABANDONED

__all__ = ["AnswerCriterion", "top_answers"]

AnswerCriterion = Literal["performance", "judge", "hybrid"]

# What each criterion ranks by, best first; the first column is also what `min_score` bounds.
_RANKED_BY: dict[AnswerCriterion, tuple[str, ...]] = {
    "performance": ("performance",),
    "judge": ("judge_score",),
    "hybrid": ("performance", "judge_score"),
}


def top_answers(
    frame: pl.DataFrame, *, criterion: AnswerCriterion, k: int, min_score: float = 0.5
) -> pl.DataFrame:
    """Return the k best answers of every solved query.

    Failed calls, abandoned streams and answers without the criterion's score never count, nor do blank ones.
    Among equally good answers the cheaper comes first, then the shorter, then by candidate id: the published
    code prefers the longest, which teaches verbosity.

    Args:
        frame: Logs with the columns of `LOG_SCHEMA`.
        criterion: `"performance"`, `"judge"`, or `"hybrid"`: performance, then the judge among equals.
        k: Most answers of a query, at least 1. Several answers of one candidate may be among them.
        min_score: A query is solved by answers that reach this score, in [0, 1]; for `"hybrid"` this bounds
            the performance.

    Returns:
        Their rows with a further column `rank` from 1 to k, sorted by query id and rank.

    Raises:
        InvalidPolicyError: If an argument is out of range.
        LogSchemaError: If the frame lacks columns.

    Source:
        FusionFactory (arXiv 2507.10540), thought-level fusion (top 3) and model-level fusion (top 5).
    """
    if criterion not in _RANKED_BY:
        known = ", ".join(f"'{name}'" for name in _RANKED_BY)
        raise InvalidPolicyError(f"There is no criterion '{criterion}'. Use one of {known}.")
    if k < 1:
        raise InvalidPolicyError(f"k must be at least 1, got {k}.")
    if not 0 <= min_score <= 1:
        raise InvalidPolicyError(f"min_score must lie in [0, 1], got {min_score}.")
    missing = [name for name in LOG_SCHEMA if name not in frame.columns]
    if missing:
        raise LogSchemaError(f"The logs lack the columns {missing}. Load them with `load_logs`.")
    ranked_by = _RANKED_BY[criterion]
    # NaN would sort as the best of scores; frames made elsewhere mix it with null.
    numbers = pl.col("performance", "judge_score", "cost_usd").cast(pl.Float64).fill_nan(None)
    scored = frame.with_columns(numbers).filter(
        pl.col("error").is_null()
        & (pl.col("finish_reason").fill_null("") != ABANDONED)
        & (pl.col("response").fill_null("").str.strip_chars() != "")
        & (pl.col(ranked_by[0]) >= min_score)
    )
    length = pl.col("response").str.len_chars()
    order = [pl.col("query_id"), *map(pl.col, ranked_by), pl.col("cost_usd"), length]
    descending = [False, *(True for _ in ranked_by), False, False]
    return (
        scored.sort(
            *order,
            "candidate_id",
            "record_id",
            descending=[*descending, False, False],
            nulls_last=True,
        )
        .with_columns((pl.col("query_id").cum_count().over("query_id")).cast(pl.Int64).alias("rank"))
        .filter(pl.col("rank") <= k)
    )
