"""Logs as the matrices a router learns from: one row a query, one column a candidate.

Rows are grouped by query id, never by position, so a missing answer is a missing cell and nothing shifts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs

from fusion_integrations.errors import (
    InvalidPolicyError,
    LogSchemaError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.rows import messages_from_json
from fusion_integrations.logs.splits import duplicate_key, query_groups, sessions_of_queries
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.labels import AnyLabel, label_name, label_values
from fusion_integrations.types import ABANDONED, MAX_AMOUNT, Candidate, PriceTable, context_characters

__all__ = ["RouterDataset"]

_LABEL = "_label"
_BY_POLICY = "_by_policy"
# What a log record may hold; a frame made elsewhere may hold anything.
_AMOUNTS = ("cost_usd", "input_tokens", "output_tokens", "latency_s")


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterDataset:
    """What n queries got from k candidates. A missing cell is NaN.

    Attributes:
        candidates: The k columns.
        query_ids: n ids, each once, sorted.
        texts: n query texts, as routers see them.
        context_characters: (n,) characters of the prompts beside these, as of system and tool messages.
        tasks: n task names, or None where unknown.
        sessions: n sessions, or None where a query is of none, or of several.
        performance: (n, k) mean label of the cell's answers, in [0, 1].
        cost_usd: (n, k) mean USD a call.
        input_tokens: (n, k) mean prompt tokens.
        output_tokens: (n, k) mean answer tokens.
        latency_s: (n, k) mean seconds a call.
        propensity: (n, k) probability with which the cell was logged; NaN if unknown. A collection logs 1,
            which holds among the queries it asked: where other rows lack the candidate's answer, it is NaN.
            A deterministic policy logs 1 too, which holds of that query; everyone else's was then 0. Where a
            policy chose R times for a query, it is 1 - (1 - p)^R.
    """

    candidates: tuple[Candidate, ...]
    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    context_characters: FloatArray
    tasks: tuple[str | None, ...]
    sessions: tuple[str | None, ...]
    performance: FloatArray
    cost_usd: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    latency_s: FloatArray
    propensity: FloatArray

    def __len__(self) -> int:
        return len(self.query_ids)

    @cached_property
    def duplicate_keys(self) -> tuple[str, ...]:
        """N keys, equal for near-duplicates; see `duplicate_key`."""
        return tuple(duplicate_key(text) for text in self.texts)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """N keys of what folds must not split: sessions and near-duplicates; see `query_groups`."""
        return tuple(query_groups(self.duplicate_keys, self.sessions))

    @cached_property
    def resampling_groups(self) -> tuple[str, ...]:
        """N keys of what a bootstrap resamples together: as `groups`, but sessions however large."""
        return tuple(query_groups(self.duplicate_keys, self.sessions, max_share=1.0))

    @classmethod
    def from_logs(
        cls,
        frame: pl.DataFrame,
        *,
        candidates: Sequence[Candidate] | None = None,
        label: AnyLabel = "performance",
        prices: PriceTable | None = None,
        absent: Literal["refuse", "keep"] = "refuse",
    ) -> Self:
        """Pivot a log frame.

        Failed calls and abandoned streams are missing for performance, never a 0. Several answers in one cell
        are averaged. Queries without any label are left out.

        Args:
            frame: Logs with the columns of `LOG_SCHEMA`.
            candidates: The columns wanted, in order. Default: every candidate in the logs, sorted by id.
            label: Which score to learn, or which blend of scores.
            prices: If given, cost is these prices times the logged tokens; otherwise cost is as logged.
            absent: What to do if some wanted candidates, not all, answered no query: refuse, or keep their
                columns without a value.

        Returns:
            The data set, rows sorted by query id.

        Raises:
            InvalidPolicyError: If `candidates` is empty or repeats an id, or is not given and a candidate was
                logged with several revisions.
            LogSchemaError: If the frame lacks columns or one is of another type, a row lacks its query or
                candidate, or a value is impossible: a label outside [0, 1], a propensity outside (0, 1], an
                amount below 0 or from 1e12.
            NotEnoughLogsError: If no row carries the label.
            UnknownCandidateError: If a wanted candidate answered no query, and is not to be kept.
        """
        scored = _scored(frame, label)
        columns = _candidates_in(scored) if candidates is None else _checked(candidates)
        scored = _rows_of(scored, columns, absent=absent)
        # min() passes over nulls, and what it finds does not depend on the order of the rows.
        kept = pl.col("query_text", "messages", "task").min()
        queries = scored.group_by("query_id").agg(kept).sort("query_id")
        session_of = sessions_of_queries(scored)
        cells = _Cells(scored, queries["query_id"], columns)
        input_tokens, output_tokens = cells.mean("input_tokens"), cells.mean("output_tokens")
        return cls(
            candidates=columns,
            query_ids=tuple(queries["query_id"]),
            texts=tuple(queries["query_text"]),
            context_characters=_context_characters(queries),
            tasks=tuple(queries["task"]),
            sessions=tuple(session_of.get(query_id) for query_id in queries["query_id"]),
            performance=cells.mean(_LABEL),
            cost_usd=cells.mean("cost_usd")
            if prices is None
            else _priced(columns, input_tokens, output_tokens, prices),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            latency_s=cells.mean("latency_s"),
            propensity=_chances(
                cells.mean("propensity"),
                by_policy=cells.mean(_BY_POLICY) == 1,
                n_draws=_n_draws(scored, queries["query_id"]),
            ),
        )

    def select(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """Return the data set of some rows, given as indices or as a mask of length n."""
        indices = np.arange(len(self))[rows]
        return replace(
            self,
            query_ids=tuple(self.query_ids[i] for i in indices),
            texts=tuple(self.texts[i] for i in indices),
            context_characters=self.context_characters[indices],
            tasks=tuple(self.tasks[i] for i in indices),
            sessions=tuple(self.sessions[i] for i in indices),
            performance=self.performance[indices],
            cost_usd=self.cost_usd[indices],
            input_tokens=self.input_tokens[indices],
            output_tokens=self.output_tokens[indices],
            latency_s=self.latency_s[indices],
            propensity=self.propensity[indices],
        )


def _chances(propensity: FloatArray, *, by_policy: npt.NDArray[np.bool_], n_draws: FloatArray) -> FloatArray:
    """Turn the mean propensities of answers into the probabilities with which the cells were logged.

    Args:
        propensity: (n, k) mean of the cell's answers; NaN if unknown.
        by_policy: (n, k) whether a policy chose all of them.
        n_draws: (n, 1) how often a policy chose for the query.

    Returns:
        (n, k); NaN if unknown.
    """
    # A query that came several times had as many chances to get an answer of each candidate.
    repeated = 1 - (1 - propensity) ** np.maximum(n_draws, 1)
    chances = np.where(by_policy, repeated, propensity)
    # A certainty may hold only in the collection a row is from: where the candidate lacks answers, forget it.
    is_partial = np.isnan(propensity).any(axis=0, keepdims=True)
    is_forgotten = is_partial & (propensity == 1) & ~by_policy
    pooled: FloatArray = np.where(is_forgotten, np.nan, chances).astype(np.float32)
    return pooled


def _n_draws(scored: pl.DataFrame, query_ids: pl.Series) -> FloatArray:
    """Count (n, 1) the answers of each query that a policy chose the candidate of."""
    drawn = scored.filter((pl.col(_BY_POLICY) == 1) & pl.col("propensity").is_not_null())
    counts = dict(drawn.group_by("query_id").len().iter_rows())
    return np.array([[counts.get(query_id, 0)] for query_id in query_ids], dtype=np.float32)


def _scored(frame: pl.DataFrame, label: AnyLabel) -> pl.DataFrame:
    """Return the rows that carry the label, with null for every NaN: frames made elsewhere mix the two."""
    missing = [name for name in LOG_SCHEMA if name not in frame.columns]
    if missing:
        raise LogSchemaError(f"The logs lack the columns {missing}. Load them with `load_logs`.")
    whole = _typed(frame).with_columns(
        label_values(label).alias(_LABEL),
        (pl.col("assignment") == "policy").fill_null(value=False).cast(pl.Float32).alias(_BY_POLICY),
    )
    scored = whole.filter(
        pl.col("error").is_null()
        & (
            pl.col("finish_reason").fill_null("") != ABANDONED
        )  # says nothing of the answer it would have been
        & pl.col(_LABEL).is_not_null()
    )
    name = label_name(label)
    if scored.is_empty():
        message = (
            f"None of the {frame.height} log rows has a '{name}' score. Score the answers first, "
            "or choose another label."
        )
        raise NotEnoughLogsError(message)
    _check_possible(scored, label=name)
    return scored


def _context_characters(queries: pl.DataFrame) -> FloatArray:
    """Count (n,) the characters that a query's messages hold beside its text."""
    counts = np.zeros(len(queries), dtype=np.float32)
    # One message is the query itself, and most logs hold no more: these need not be decoded.
    several = queries.with_row_index("row").filter(pl.col("messages").str.count_matches('"role"') > 1)
    for row, query_id, messages in several.select("row", "query_id", "messages").iter_rows():
        try:
            counts[row] = context_characters(messages_from_json(messages))
        except (ValueError, TypeError) as error:
            message = (
                f"The messages of query '{query_id}' are no JSON list of objects with 'role' and 'content': "
                f"{error}"
            )
            raise LogSchemaError(message) from error
    return counts


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of `LOG_SCHEMA` in its types, with null for every NaN."""
    try:
        known = frame.select(LOG_SCHEMA.names()).with_columns(cs.float().fill_nan(None))
        return known.cast(dict(LOG_SCHEMA.items()))
    except pl.exceptions.PolarsError as error:
        message = f"A column of the logs is of another type than `LOG_SCHEMA` says: {error}"
        raise LogSchemaError(message) from error


def _check_possible(scored: pl.DataFrame, *, label: str) -> None:
    correct = "Correct it, or leave it empty."
    _check_range(scored[_LABEL], label, (0, 1), closed="both", otherwise="Rescale it.")
    _check_range(scored["propensity"], "propensity", (0, 1), closed="right", otherwise=correct)
    for name in _AMOUNTS:
        _check_range(scored[name], name, (0, MAX_AMOUNT), closed="left", otherwise=correct)
    for name in ("query_id", "candidate_id"):
        if scored[name].null_count():
            message = (
                f"{scored[name].null_count()} scored log rows have no {name}. Fill it in, or leave them out."
            )
            raise LogSchemaError(message)
    text = pl.col("query_text")
    blank = scored.filter(text.is_null() | (text.str.strip_chars() == ""))["query_id"]
    if len(blank):
        message = (
            f"The query text of {len(blank)} log rows is blank, such as that of query '{blank[0]}'. Fill it "
            "in, or leave those rows out."
        )
        raise LogSchemaError(message)


def _check_range(
    values: pl.Series,
    name: str,
    bounds: tuple[float, float],
    *,
    closed: Literal["both", "left", "right"],
    otherwise: str,
) -> None:
    # Of what is unknown the comparison is null, which filters it out.
    outside = values.filter(~values.is_between(*bounds, closed=closed))
    if len(outside):
        low, high = bounds
        interval = f"{'(' if closed == 'right' else '['}{low:g}, {high:g}{')' if closed == 'left' else ']'}"
        message = (
            f"'{name}' of {len(outside)} log rows is not in {interval}, such as {outside[0]}. {otherwise}"
        )
        raise LogSchemaError(message)


def _checked(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    if not candidates:
        raise InvalidPolicyError("There are no candidates. Pass two or more, or None for all in the logs.")
    repeated = [name for name, count in Counter(c.id for c in candidates).items() if count > 1]
    if repeated:
        message = f"Several candidates have the id {repeated}. Give each model, mode and revision its own."
        raise InvalidPolicyError(message)
    return tuple(candidates)


def _candidates_in(scored: pl.DataFrame) -> tuple[Candidate, ...]:
    # max() and min() do not depend on the order of the rows, and prefer a model's name to a missing one.
    found = scored.group_by("candidate_id").agg(
        pl.col("model").max(),
        pl.col("prompt_mode").min(),
        pl.col("candidate_revision").fill_null("").unique().sort().alias("revisions"),
    )
    return tuple(
        Candidate(
            id=row["candidate_id"],
            kind="model" if row["model"] else "tool",
            model=row["model"] or "",
            prompt_mode=row["prompt_mode"] if row["model"] else "direct",
            revision=_only_revision(row["candidate_id"], row["revisions"]),
        )
        for row in found.sort("candidate_id").iter_rows(named=True)
    )


def _only_revision(candidate_id: str, revisions: list[str]) -> str:
    """Return the revision of a candidate's answers, empty (any) if some do not tell theirs."""
    named = [revision for revision in revisions if revision]
    if len(named) > 1:
        message = (
            f"Candidate '{candidate_id}' was logged with the revisions {named}: answers with an old prompt, "
            "template library or adapter say nothing about the new one. Pass `candidates` with the revision "
            "to learn from, or with an empty one to learn from all."
        )
        raise InvalidPolicyError(message)
    return named[0] if named == revisions else ""


def _rows_of(
    scored: pl.DataFrame, candidates: tuple[Candidate, ...], *, absent: Literal["refuse", "keep"]
) -> pl.DataFrame:
    wanted = pl.DataFrame(
        {"candidate_id": [c.id for c in candidates], "_revision": [c.revision for c in candidates]},
        schema={"candidate_id": pl.String, "_revision": pl.String},
    )
    rows = scored.join(wanted, on="candidate_id").filter(
        (pl.col("_revision") == "") | (pl.col("candidate_revision") == pl.col("_revision"))
    )
    present = set(rows["candidate_id"])
    unanswered = [candidate.id for candidate in candidates if candidate.id not in present]
    if unanswered and (absent == "refuse" or not present):
        known = scored.select("candidate_id", "candidate_revision").unique().sort("candidate_id").rows()
        message = (
            f"The logs hold no scored answer of {unanswered}. "
            f"They hold these candidates and revisions: {known}. "
            "Check the ids and revisions, or collect answers of those candidates."
        )
        raise UnknownCandidateError(message)
    return rows


class _Cells:
    """Averages columns of a long frame into (n, k) matrices."""

    def __init__(self, frame: pl.DataFrame, query_ids: pl.Series, candidates: tuple[Candidate, ...]) -> None:
        rows = pl.DataFrame({"query_id": query_ids}).with_row_index("_row")
        columns = pl.DataFrame({"candidate_id": [c.id for c in candidates]}).with_row_index("_column")
        self._frame = frame.join(rows, on="query_id").join(columns, on="candidate_id")
        self._shape = (len(query_ids), len(candidates))

    def mean(self, column: str) -> FloatArray:
        """Return the (n, k) mean of a column, NaN where no row has a value."""
        means = self._frame.group_by("_row", "_column").agg(pl.col(column).mean())
        matrix = np.full(self._shape, np.nan, dtype=np.float32)
        values = means[column].cast(pl.Float32).fill_null(float("nan")).to_numpy()
        matrix[means["_row"].to_numpy(), means["_column"].to_numpy()] = values
        return matrix


def _priced(
    candidates: tuple[Candidate, ...], input_tokens: FloatArray, output_tokens: FloatArray, prices: PriceTable
) -> FloatArray:
    cost = np.full(input_tokens.shape, np.nan, dtype=np.float32)
    for column, candidate in enumerate(candidates):
        cost[:, column] = prices.costs_usd(
            candidate, input_tokens=input_tokens[:, column], output_tokens=output_tokens[:, column]
        )
    return cost
