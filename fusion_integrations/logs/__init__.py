"""Step 1 of the data flow: who answered what, at what cost, and what it was worth."""

from __future__ import annotations

from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.logs.duplicates import Duplicate
from fusion_integrations.logs.export import export_logs
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.frame import LOG_SCHEMA, load_logs, records_from_frame, write_parquet
from fusion_integrations.logs.importers import FORMATS, ColumnMapping, ImportReport, import_logs
from fusion_integrations.logs.schema import (
    Assignment,
    LogRecord,
    Score,
    ScoreKind,
    collection_record_id,
    import_record_id,
)
from fusion_integrations.logs.splits import (
    duplicate_key,
    grouped_folds,
    holdout_mask,
    query_groups,
    split_by_query,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.store_counts import AddResult, LogStats

__all__ = [
    "FORMATS",
    "LOG_SCHEMA",
    "AddResult",
    "Assignment",
    "BackgroundWriter",
    "ColumnMapping",
    "Duplicate",
    "ImportReport",
    "LogFilter",
    "LogRecord",
    "LogStats",
    "LogStore",
    "Score",
    "ScoreKind",
    "WriterStats",
    "collection_record_id",
    "duplicate_key",
    "export_logs",
    "grouped_folds",
    "holdout_mask",
    "import_logs",
    "import_record_id",
    "load_logs",
    "log_fingerprint",
    "query_groups",
    "records_from_frame",
    "split_by_query",
    "write_parquet",
]
