"""Import logs that `write_parquet` exported, for example to merge the stores of several machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

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
from fusion_integrations.logs.schema import LogRecord

__all__ = ["FORMAT"]


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read a Parquet file in `LOG_SCHEMA`.

    Records keep their ids: one that the store knows is not added again, nor are its scores. Of scores the
    file holds the values alone; they are stored with the scorer `"export"`.
    """
    del options
    check_columns(path, LOG_SCHEMA.names())
    check_schema(pl.read_parquet_schema(path), label=f"'{path}'")
    yield from outcomes(read_rows(path, columns=LOG_SCHEMA.names()), lambda row: [_call(row)])


def _call(row: SourceRow) -> Call:
    record, scores = record_from_frame_row(row.values)
    return Call(
        row=row,
        fields={name: getattr(record, name) for name in LogRecord.model_fields},
        scores=[
            GivenScore(
                kind=score.kind,
                scorer=score.scorer,
                value=score.value,
                created_at=score.created_at,
                is_required=True,
            )
            for score in scores
        ],
    )


FORMAT = LogFormat(read=_read)
