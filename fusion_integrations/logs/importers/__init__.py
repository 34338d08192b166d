"""Importers of logs you already have, one file a format.

`FORMATS` is closed: a format is code of this package, never a class path in somebody's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.importers import (
    fusion,
    fusionbench,
    helicone,
    langfuse,
    langsmith,
    litellm,
    litellm_spend,
    llmrouter,
    llmrouterbench,
    openai_batch,
    openai_stored,
    otel,
    routerbench,
    table,
    vllm_replay,
)
from fusion_integrations.logs.importers._columns import ColumnMapping
from fusion_integrations.logs.importers._contract import LogFormat, ReadOptions
from fusion_integrations.logs.importers._garbage import RareGarbageCollection
from fusion_integrations.logs.importers._intake import BadRows, ImportReport, Intake
from fusion_integrations.logs.importers._quarantine import Quarantine, quarantine_path
from fusion_integrations.logs.importers._records import RecordMaker
from fusion_integrations.logs.importers._redaction import Redaction, Redactor
from fusion_integrations.logs.importers._seen import SeenIds
from fusion_integrations.logs.schema import Assignment
from fusion_integrations.logs.store import LogStore

__all__ = ["FORMATS", "ColumnMapping", "ImportReport", "import_logs"]

FORMATS: Mapping[str, LogFormat] = {
    "fusion": fusion.FORMAT,
    "fusionbench": fusionbench.FORMAT,
    "helicone": helicone.FORMAT,
    "langfuse": langfuse.FORMAT,
    "langsmith": langsmith.FORMAT,
    "litellm": litellm.FORMAT,
    "litellm-spend": litellm_spend.FORMAT,
    "llmrouter": llmrouter.FORMAT,
    "llmrouterbench": llmrouterbench.FORMAT,
    "openai-batch": openai_batch.FORMAT,
    "openai-stored": openai_stored.FORMAT,
    "otel": otel.FORMAT,
    "routerbench": routerbench.FORMAT,
    "table": table.FORMAT,
    "vllm-replay": vllm_replay.FORMAT,
}


def import_logs(
    log_format: str,
    path: str | Path,
    store: LogStore,
    *,
    columns: ColumnMapping | None = None,
    join: str | Path | None = None,
    source: str | None = None,
    assignment: Assignment | None = None,
    quarantine: str | Path | None = None,
    bad_rows: BadRows = "set_aside",
    redact: Redaction = "secrets",
    on_progress: Callable[[int], None] | None = None,
    now: datetime | None = None,
) -> ImportReport:
    """Import logs of one of the known formats into a log store.

    Importing a source again adds only what is new: calls, and scores of calls that have an id of their own in
    the source. Rows that cannot be used go to the quarantine file with the reason and the import goes on;
    rows that are fine but no call to learn from (duplicates, answers from a cache, spans that wrap another
    call) are dropped and counted. API keys and other secrets never reach the store or the quarantine file.
    Memory does not grow with the number of rows.

    Args:
        log_format: Name of the format, one of `FORMATS`.
        path: The file, or for exports of many files the folder.
        store: Where the records go.
        columns: Which column holds what; for the format `"table"`.
        join: The second file of the export, for formats that come in two.
        source: Name of the source; part of every record's identity. Default: the format's name where rows
            have identities of their own, else the file's name.
        assignment: How candidates came to be chosen in this log. Default: what the format or the row says.
        quarantine: New file for unusable rows. Default: beside the source, `.quarantine.jsonl` appended,
            replacing that of an earlier import.
        bad_rows: What becomes of unusable rows: they are set aside in the quarantine file, or the first of
            them stops the import.
        redact: What is taken out of texts: secrets, or personal data too (e-mail addresses, phone, credit
            card and social security numbers, IP addresses; not names).
        on_progress: Called with the number of rows done after every transaction of some thousand.
        now: Moment for rows without one, and of their scores. Default: the start of the import.

    Returns:
        What became of the rows.

    Raises:
        LogSchemaError: If the format is unknown or its files cannot be read; if an option does not fit it;
            with `bad_rows="stop"`, at an unusable row.
        LogStoreError: If the store or the quarantine file cannot be written, or the file named for it exists.
        MissingDependencyError: If personal data is to be taken out without the extra `pii`.
    """
    path = Path(path)
    chosen = _format(log_format)
    name = (chosen.source or path.resolve().name) if source is None else source
    if not name.strip():
        raise LogSchemaError("The source of an import needs a non-blank name.")
    if assignment is not None and assignment not in get_args(Assignment):
        known = ", ".join(get_args(Assignment))
        raise LogSchemaError(f"assignment must be one of {known}, got '{assignment}'.")
    options = _options(log_format, chosen, columns=columns, join=None if join is None else Path(join))
    redactor = Redactor(redact)
    aside = quarantine_path(path) if quarantine is None else Path(quarantine)
    if quarantine is not None and aside.exists():
        # It may be the log itself, or hold the rows of another one.
        raise LogStoreError(
            f"There is a file '{aside}' already. Name a new one for rows that cannot be used."
        )
    with (
        RareGarbageCollection(),
        SeenIds() as seen,
        Quarantine(aside, redactor=redactor) as quarantined,
    ):
        maker = RecordMaker(
            source=name,
            assignment=chosen.assignment,
            override=assignment,
            now=now or datetime.now(UTC),
            redactor=redactor,
            seen=seen,
        )
        intake = Intake(store, maker=maker, aside=quarantined, bad_rows=bad_rows)
        intake.run(chosen.read(path, options), on_progress=on_progress)
        return intake.report(source=name, quarantine=aside)


def _format(name: str) -> LogFormat:
    if name not in FORMATS:
        raise LogSchemaError(f"There is no log format '{name}'. Known: {', '.join(FORMATS)}.")
    return FORMATS[name]


def _options(
    name: str, chosen: LogFormat, *, columns: ColumnMapping | None, join: Path | None
) -> ReadOptions:
    """Check that what was passed is what the format takes."""
    if columns is not None and not chosen.takes_columns:
        raise LogSchemaError(f"Format '{name}' takes no mapping of columns: it knows its own.")
    if columns is None and chosen.takes_columns:
        raise LogSchemaError(f"Format '{name}' needs a mapping of columns: at least query and model.")
    if join is not None and not chosen.join:
        raise LogSchemaError(f"Format '{name}' takes no second file.")
    if join is None and chosen.needs_join:
        raise LogSchemaError(f"Format '{name}' needs {chosen.join} as second file: pass join.")
    return ReadOptions(columns=columns, join=join)
