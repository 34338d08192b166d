"""Import logs that `export_logs` wrote, for example to merge the stores of several machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from fusion_integrations.logs.export import SCORES_FIELD
from fusion_integrations.logs.frame import LOG_SCHEMA, check_schema, record_from_frame_row
from fusion_integrations.logs.importers._contract import (
    Call,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
)
from fusion_integrations.logs.importers._files import check_columns, read_rows
from fusion_integrations.logs.schema import LogRecord, Score

__all__ = ["FORMAT"]


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read a Parquet file in `LOG_SCHEMA`, or JSON lines.

    Records keep their ids: one that the store knows is not added again, nor are its scores. Of scores the
    Parquet file holds the values alone; they are stored with the scorer `"export"`.
    """
    del options
    if path.suffix.lower() == ".jsonl":
        if path.is_file() and path.stat().st_size == 0:
            return  # an export of no records
        check_columns(path, ["record_id", "messages", SCORES_FIELD])
        yield from outcomes(read_rows(path), lambda row: [_call_of_line(row)])
        return
    check_columns(path, LOG_SCHEMA.names())
    check_schema(pl.read_parquet_schema(path), label=f"'{path}'")
    yield from outcomes(read_rows(path, columns=LOG_SCHEMA.names()), lambda row: [_call_of_table_row(row)])


def _call_of_table_row(row: SourceRow) -> Call:
    return _call(row, *record_from_frame_row(row.values))


def _call_of_line(row: SourceRow) -> Call:
    record = LogRecord(**{name: value for name, value in row.values.items() if name != SCORES_FIELD})
    given = row.values.get(SCORES_FIELD)
    if not isinstance(given, list) or not all(isinstance(score, dict) for score in given):
        raise ValueError(f"{SCORES_FIELD}: not a list of objects")
    return _call(row, record, [Score(**{**score, "record_id": record.record_id}) for score in given])


def _call(row: SourceRow, record: LogRecord, scores: list[Score]) -> Call:
    return Call(
        row=row,
        fields={name: getattr(record, name) for name in LogRecord.model_fields},
        scores=[
            GivenScore(
                kind=score.kind,
                scorer=score.scorer,
                version=score.version,
                value=score.value,
                reason=score.reason,
                created_at=score.created_at,
                is_required=True,
            )
            for score in scores
        ],
    )


FORMAT = LogFormat(read=_read)
