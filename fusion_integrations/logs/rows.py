"""How log records and scores become database rows, and rows become a table in memory.

The only place that knows both shapes, so the store holds no format and the frame no SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
from sqlalchemy import RowMapping

from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.tables import RECORDS
from fusion_integrations.types import Message, canonical_json, query_text

__all__ = [
    "LOG_SCHEMA",
    "SCORE_COLUMNS",
    "frame_from_rows",
    "messages_from_json",
    "messages_to_json",
    "microseconds",
    "record_from_row",
    "record_to_row",
    "score_from_row",
    "score_to_row",
]

LOG_SCHEMA = pl.Schema(
    {
        "record_id": pl.String(),
        "query_id": pl.String(),
        "messages": pl.String(),  # JSON: [{"role": ..., "content": ...}, ...]
        "task": pl.String(),
        "reference": pl.String(),
        "metric": pl.String(),
        "candidate_id": pl.String(),
        "candidate_revision": pl.String(),
        "model": pl.String(),
        "prompt_mode": pl.String(),
        "planned_candidate_id": pl.String(),
        "response": pl.String(),
        "error": pl.String(),
        "finish_reason": pl.String(),
        "input_tokens": pl.Int64(),
        "output_tokens": pl.Int64(),
        "cost_usd": pl.Float64(),
        "latency_s": pl.Float64(),
        "assignment": pl.String(),
        "propensity": pl.Float64(),
        "eligible": pl.List(pl.String()),
        "session_id": pl.String(),
        "created_at": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        "source_id": pl.String(),
        "sample": pl.Int64(),
        "query_text": pl.String(),
        "performance": pl.Float64(),
        "judge_score": pl.Float64(),
        "feedback": pl.Float64(),
    }
)

SCORE_COLUMNS: Mapping[str, str] = {
    "performance": "performance",
    "judge": "judge_score",
    "feedback": "feedback",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROW_FIELDS = [
    column.name for column in RECORDS.columns if column.name not in ("record_no", "eligible", "created_at_us")
]
# What the database keeps as JSON text or a number is read as such, then decoded column by column.
_RAW_SCHEMA = {
    column.name: {"eligible": pl.String(), "created_at_us": pl.Int64()}.get(column.name)
    or LOG_SCHEMA[column.name]
    for column in RECORDS.columns
    if column.name != "record_no"
}
_QUERY_SCHEMA = {"query_id": pl.String(), "messages": pl.String(), "query_text": pl.String()}
_SCORE_SCHEMA = {"record_id": pl.String(), "kind": pl.String(), "value": pl.Float64()}


def microseconds(moment: datetime) -> int:
    """Count the microseconds from 1970 UTC to a moment; exact, negative before."""
    return (moment - _EPOCH) // _MICROSECOND


def messages_to_json(messages: Sequence[Message]) -> str:
    """Serialise a conversation; equal conversations give equal text."""
    return canonical_json([{"role": message.role, "content": message.content} for message in messages])


def messages_from_json(text: str) -> tuple[Message, ...]:
    """Read what `messages_to_json` wrote."""
    return tuple(Message(**message) for message in json.loads(text))


def record_to_row(record: LogRecord) -> dict[str, object]:
    """Turn a record into a row of the table `records`."""
    row: dict[str, object] = {**vars(record)}  # of a model these are its fields; a getattr each takes longer
    del row["messages"], row["created_at"]
    row["eligible"] = canonical_json(record.eligible) if record.eligible else "[]"
    row["created_at_us"] = microseconds(record.created_at)
    return row


def record_from_row(row: RowMapping) -> LogRecord:
    """Turn a row of `records` with its query's messages back into the record; ValueError if it is none."""
    fields = {name: row[name] for name in _ROW_FIELDS}
    return LogRecord(
        **fields,
        messages=json.loads(row["messages"]),
        eligible=json.loads(row["eligible"]),
        created_at=_EPOCH + row["created_at_us"] * _MICROSECOND,
    )


def score_to_row(score: Score) -> dict[str, object]:
    """Turn a score into a row of the table `scores`."""
    return {
        "record_id": score.record_id,
        "kind": score.kind,
        "scorer": score.scorer,
        "version": score.version,
        "value": score.value,
        "reason": score.reason,
        "created_at_us": microseconds(score.created_at),
    }


def score_from_row(row: RowMapping) -> Score:
    """Turn a row of `scores` back into the score; ValueError if it is none."""
    names = ("record_id", "kind", "scorer", "version", "value", "reason")
    fields = {name: row[name] for name in names}
    return Score(**fields, created_at=_EPOCH + row["created_at_us"] * _MICROSECOND)


def frame_from_rows(
    *,
    records: Iterable[Sequence[Sequence[object]]],
    queries: Iterable[Sequence[Sequence[str]]],
    scores: Iterable[Sequence[Sequence[object]]],
) -> pl.DataFrame:
    """Join pages of rows to one table in `LOG_SCHEMA`.

    Pages are turned into columns as they come, so only one page at a time exists as Python objects.

    Args:
        records: Pages of rows (columns of `records` but `record_no`), oldest first.
        queries: Pages of (query_id, messages); every query of the records, more do no harm.
        scores: Pages of (record_id, kind, value), oldest first.

    Returns:
        One row a record, in the order given.
    """
    frame = _stack(records, _RAW_SCHEMA)
    texts = _stack(([_with_text(row) for row in page] for page in queries), _QUERY_SCHEMA)
    latest = _stack(scores, _SCORE_SCHEMA).unique(["record_id", "kind"], keep="last", maintain_order=True)
    frame = frame.join(texts, on="query_id", how="left", maintain_order="left")
    for kind, name in SCORE_COLUMNS.items():
        of_kind = latest.filter(pl.col("kind") == kind).select("record_id", pl.col("value").alias(name))
        frame = frame.join(of_kind, on="record_id", how="left", maintain_order="left")
    return frame.with_columns(
        pl.col("eligible").str.json_decode(pl.List(pl.String())),
        pl.from_epoch("created_at_us", time_unit="us").dt.replace_time_zone("UTC").alias("created_at"),
    ).select(LOG_SCHEMA.names())


def _stack(pages: Iterable[Sequence[Sequence[object]]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=schema)]
    frames += [pl.DataFrame([tuple(row) for row in page], schema=schema, orient="row") for page in pages]
    return pl.concat(frames)


def _with_text(query: Sequence[str]) -> tuple[str, str, str]:
    query_id, messages = query
    return query_id, messages, query_text(messages_from_json(messages))
