"""Import logs that `write_parquet` exported, for example to merge the stores of several machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from fusion_integrations.logs.frame import LOG_SCHEMA, check_schema, record_from_frame_row
from fusion_integrations.logs.importers._intake import ImportReport, quarantine_path, store_rows
from fusion_integrations.logs.importers._readers import check_columns, read_rows
from fusion_integrations.logs.store import LogStore

__all__ = ["import_fusion"]


def import_fusion(
    path: str | Path,
    store: LogStore,
    *,
    quarantine: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import a Parquet file in `LOG_SCHEMA` into a log store.

    Records keep their ids: one that the store knows is not added again, nor are its scores. Of scores the
    file holds the values alone; they are stored with the scorer `"export"`.

    Args:
        path: The file.
        store: Where the records go.
        quarantine: File for unusable rows. Default: beside the source, `.quarantine.jsonl` appended.
        on_progress: Called with the number of rows done after every batch.

    Returns:
        How many rows were added, known and quarantined.

    Raises:
        LogSchemaError: If the file cannot be read or holds another table.
        LogStoreError: If the store or the quarantine file cannot be written.
    """
    path = Path(path)
    check_columns(path, LOG_SCHEMA.names())
    check_schema(pl.read_parquet_schema(path), label=f"'{path}'")
    return store_rows(
        read_rows(path, LOG_SCHEMA.names()),
        store,
        convert=record_from_frame_row,
        source=path.name,
        quarantine=quarantine_path(path) if quarantine is None else Path(quarantine),
        on_progress=on_progress,
    )
