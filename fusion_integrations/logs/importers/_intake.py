"""Move rows of any source into a log store: in batches, repeatable, with bad rows set aside.

Every importer needs exactly this; an importer itself only says how one row becomes a record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pydantic import ValidationError

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs.importers._readers import SourceRow
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore

__all__ = ["ImportReport", "quarantine_path", "store_rows"]

_BATCH = 1_000  # rows a transaction
_MAX_SHOWN = 200  # characters of a refused value in a reason

_Convert = Callable[[Mapping[str, Any]], tuple[LogRecord, list[Score]]]


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of the rows of an import; every row is added, known or quarantined.

    Attributes:
        source: The source the records carry.
        n_rows: Rows read.
        n_added: Rows that became new records.
        n_known: Rows whose record the store had already.
        n_quarantined: Rows that could not be used.
        quarantine: File with those rows and the reason of each; None if there were none.
    """

    source: str
    n_rows: int
    n_added: int
    n_known: int
    n_quarantined: int
    quarantine: Path | None


def quarantine_path(path: Path) -> Path:
    """Name the default quarantine file of a source: beside it, `.quarantine.jsonl` appended."""
    return path.with_name(f"{path.name}.quarantine.jsonl")


def store_rows(
    rows: Iterable[SourceRow],
    store: LogStore,
    *,
    convert: _Convert,
    source: str,
    quarantine: Path,
    on_progress: Callable[[int], None] | None,
) -> ImportReport:
    """Convert rows and store them, a transaction for every 1000.

    Args:
        rows: The rows; memory holds one batch of them.
        store: Where the records go.
        convert: Turns the values of a row into a record and its scores; a ValueError quarantines the row.
        source: The source for the report.
        quarantine: Where bad rows go; made when the first is found, replacing what is there.
        on_progress: Called with the number of rows done after every batch.

    Returns:
        The counts.

    Raises:
        LogStoreError: If the store or the quarantine file cannot be written. Batches before are stored;
            importing again goes on from there.
    """
    n_rows = n_added = n_known = 0
    remaining = iter(rows)
    with _Quarantine(quarantine) as aside:
        while batch := list(islice(remaining, _BATCH)):
            converted = [
                (row, *made) for row in batch if (made := _converted(row, convert, aside)) is not None
            ]
            known = store.get(record.record_id for _, record, _ in converted)
            records: list[LogRecord] = []
            scores: list[Score] = []
            for row, record, row_scores in converted:
                twin = known.setdefault(record.record_id, record)
                if twin is record:
                    records.append(record)
                    scores += row_scores
                elif _is_same_call(twin, record):
                    n_known += 1
                else:
                    aside.add(row, _clash(record, twin))
            result = store.add(records, scores)
            n_rows += len(batch)
            n_added += result.n_added
            n_known += result.n_known
            if on_progress is not None:
                on_progress(n_rows)
    return ImportReport(
        source=source,
        n_rows=n_rows,
        n_added=n_added,
        n_known=n_known,
        n_quarantined=aside.n_rows,
        quarantine=quarantine if aside.n_rows else None,
    )


class _Quarantine:
    """A JSONL file of refused rows that exists only if there are any."""

    def __init__(self, path: Path) -> None:
        self.n_rows = 0
        self._path = path
        self._file: TextIO | None = None

    def add(self, row: SourceRow, reason: str) -> None:
        entry = {"row": row.number, "reason": reason, "values": dict(row.values)}
        try:
            line = json.dumps(entry, default=str) + "\n"
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(line)
        except OSError as error:
            raise self._failure(error) from error
        self.n_rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError as failure:
            raise self._failure(failure) from failure

    def _failure(self, error: OSError) -> LogStoreError:
        message = (
            f"The quarantine file '{self._path}' cannot be written: {error.strerror}. "
            "Pass quarantine= with a path that can."
        )
        return LogStoreError(message)


def _converted(row: SourceRow, convert: _Convert, aside: _Quarantine) -> tuple[LogRecord, list[Score]] | None:
    if row.problem:
        aside.add(row, row.problem)
        return None
    try:
        return convert(row.values)
    except ValidationError as error:
        aside.add(row, _explain(error))
    except (ValueError, RecursionError) as error:
        aside.add(row, str(error))
    return None


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(map(str, problem["loc"]))
        value = (
            ""
            if isinstance(problem["input"], (dict, list, tuple))
            else f", got {problem['input']!r:.{_MAX_SHOWN}}"
        )
        problems.append(f"{place}: {problem['msg']}{value}" if place else problem["msg"])
    return "; ".join(problems)


def _is_same_call(first: LogRecord, second: LogRecord) -> bool:
    return (first.query_id, first.candidate_id, first.response, first.error) == (
        second.query_id,
        second.candidate_id,
        second.response,
        second.error,
    )


def _clash(record: LogRecord, twin: LogRecord) -> str:
    # Leaving it out silently would lose an answer; storing it would need a second identity.
    return (
        f"source id '{record.source_id}' of source '{record.source}' already belongs to another call "
        f"(query {twin.query_id}, candidate '{twin.candidate_id}'). Map a column that is unique to each row, "
        "map none, or pass another source."
    )
