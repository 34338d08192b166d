"""Logs as one table in memory and as one Parquet file.

Trainers and evaluation read this table, whether it comes from a store or from a file somebody sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.rows import LOG_SCHEMA, SCORE_COLUMNS
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.whole_file import whole_file

__all__ = [
    "LOG_SCHEMA",
    "check_schema",
    "load_logs",
    "record_from_frame_row",
    "records_from_frame",
    "write_parquet",
]

_RECORD_FIELDS = [name for name in LOG_SCHEMA if name in LogRecord.model_fields and name != "messages"]


def write_parquet(frame: pl.DataFrame, path: str | Path) -> None:
    """Write logs to a Parquet file (zstd); the file appears complete or not at all.

    Args:
        frame: A table in `LOG_SCHEMA`.
        path: Where to write; an existing file is replaced.

    Raises:
        LogSchemaError: If the table is not in `LOG_SCHEMA`.
        LogStoreError: If the file cannot be written; what was there before still is.
    """
    check_schema(frame.schema, label="the table")
    with whole_file(path) as file:
        frame.write_parquet(file, compression="zstd")


def load_logs(location: str | Path) -> pl.DataFrame:
    """Read logs as a table, from a log store or an exported Parquet file.

    Args:
        location: Path or URL of a store, or path of a file of `write_parquet` (`.parquet`).

    Returns:
        A frame in `LOG_SCHEMA`, one row a record.

    Raises:
        LogSchemaError: If the Parquet file is missing, damaged, or holds another table.
        LogStoreError: If the store is missing or cannot be read.
    """
    if Path(location).suffix.lower() != ".parquet":
        with LogStore.open(location, create=False) as store:
            return store.to_frame()
    try:
        frame = pl.read_parquet(location)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LogSchemaError(f"'{location}' cannot be read as Parquet: {error}") from error
    check_schema(frame.schema, label=f"'{location}'")
    return frame.select(LOG_SCHEMA.names())


def check_schema(schema: Mapping[str, pl.DataType], *, label: str) -> None:
    """Make sure a table has the columns of `LOG_SCHEMA`, in any order.

    Args:
        schema: Column names and types of the table.
        label: How to name the table in the message.

    Raises:
        LogSchemaError: If a column is missing, extra or of another type; names them.
    """
    problems = [f"'{name}' is missing" for name in LOG_SCHEMA if name not in schema]
    problems += [f"'{name}' is unknown" for name in schema if name not in LOG_SCHEMA]
    problems += [
        f"'{name}' is {schema[name]} instead of {wanted}"
        for name, wanted in LOG_SCHEMA.items()
        if name in schema and schema[name] != wanted
    ]
    if problems:
        message = (
            f"The columns of {label} are not those of exported logs: {'; '.join(problems)}. "
            "Export with write_parquet, or bring foreign tables in with import_logs."
        )
        raise LogSchemaError(message)


def records_from_frame(frame: pl.DataFrame) -> Iterator[tuple[LogRecord, list[Score]]]:
    """Turn a table of logs back into records and scores, for example to merge stores.

    Args:
        frame: A table in `LOG_SCHEMA`.

    Yields:
        Each record with the scores the table has of it.

    Raises:
        LogSchemaError: If the table is not in `LOG_SCHEMA` or a row is no valid record.
    """
    check_schema(frame.schema, label="the table")
    for number, row in enumerate(frame.iter_rows(named=True)):
        try:
            yield record_from_frame_row(row)
        except ValueError as error:
            raise LogSchemaError(f"Row {number} of the table is no valid log record: {error}") from error


def record_from_frame_row(row: Mapping[str, Any]) -> tuple[LogRecord, list[Score]]:
    """Turn one row in `LOG_SCHEMA` into its record and scores.

    Args:
        row: Values by column.

    Returns:
        The record and its scores. The table does not say who scored or when: the scorer is `"export"`, the
        moment that of the call.

    Raises:
        ValueError: If the row is no valid record.
    """
    record = LogRecord(
        messages=json.loads(row["messages"] or "null"), **{name: row[name] for name in _RECORD_FIELDS}
    )
    scores = [
        Score(
            record_id=record.record_id,
            kind=kind,
            scorer="export",
            version="",
            value=row[name],
            created_at=record.created_at,
        )
        for kind, name in SCORE_COLUMNS.items()
        if row[name] is not None
    ]
    return record, scores
