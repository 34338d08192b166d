"""What an importer must provide: a way to read a source as calls, each row of it kept, dropped or refused.

An importer knows one format and nothing else; identity, redaction, storing, counting and quarantine are the
same for all and live in `_intake`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fusion_integrations.logs.importers._columns import ColumnMapping
from fusion_integrations.logs.schema import Assignment, ScoreKind

__all__ = [
    "Call",
    "Dropped",
    "GivenScore",
    "LogFormat",
    "Outcome",
    "ReadOptions",
    "Reader",
    "Rejected",
    "SourceRow",
    "explained",
    "outcomes",
    "readable_or_later",
]

_MAX_SHOWN = 200  # characters of a refused value in a reason


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """One row of a file.

    Attributes:
        number: Position from 1: the record in a CSV file (without the header), the line in a JSONL file, the
            element of a JSON array.
        values: Values by column; missing columns are missing.
        problem: Why the row cannot be read; empty if it can.
        file: The file, relative to the imported folder; empty if a file is imported.
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    file: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenScore:
    """What a source says an answer is worth.

    Attributes:
        kind: What kind of score it is.
        scorer: Who gave it; empty means the source as a whole.
        version: Version of the scorer, where the source says so.
        value: As the source has it; not checked yet.
        reason: Why, where the source says so.
        created_at: Moment of scoring; None means that of the import.
        is_required: Whether a value that is no score spoils the row. A table's mapped column was meant to be
            one; of the many things that tracing tools call scores those on another scale are left out and
            counted.
    """

    kind: ScoreKind
    value: object
    scorer: str = ""
    version: str = ""
    reason: str = ""
    created_at: datetime | None = None
    is_required: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of one candidate, as a source tells it.

    Attributes:
        row: Where it stands.
        fields: Arguments of `LogRecord`; without `source`, and without `record_id` unless the source has the
            very record.
        scores: What the answer is worth.
    """

    row: SourceRow
    fields: Mapping[str, Any]
    scores: Iterable[GivenScore] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A row that is fine but no call to learn from, for a reason that many rows share."""

    row: SourceRow
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A row that is malformed."""

    row: SourceRow
    reason: str


Outcome = Call | Dropped | Rejected


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a reader may have to know besides the path.

    Attributes:
        columns: Which column holds what, for formats that take a mapping.
        join: The second file of the export, for formats that come in two.
    """

    columns: ColumnMapping | None = None
    join: Path | None = None


Reader = Callable[[Path, ReadOptions], Iterator[Outcome]]


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """One format that logs can be imported from.

    Attributes:
        read: Yields what becomes of each row, in the order of the source.
        source: Default name of the source, part of every record's identity. None means the file's name; a
            fixed name where rows have identities of their own, so that exports may overlap.
        assignment: How candidates come to be chosen in such logs; a row may say better.
        takes_columns: Whether it needs a mapping of columns.
        join: What its second file is, or empty; for messages.
        needs_join: Whether it cannot be read without that file.
    """

    read: Reader
    source: str | None = None
    assignment: Assignment = "unknown"
    takes_columns: bool = False
    join: str = ""
    needs_join: bool = False


Convert = Callable[[SourceRow], Iterable[Outcome]]


def outcomes(rows: Iterable[SourceRow], convert: Convert) -> Iterator[Outcome]:
    """Convert rows one by one; what goes wrong with a row concerns that row alone.

    Args:
        rows: The rows of a source.
        convert: Gives what becomes of a row. A ValueError, or nesting too deep to follow, rejects the row.

    Yields:
        What became of each row.
    """
    for row in rows:
        if row.problem:
            yield Rejected(row=row, reason=row.problem)
            continue
        try:
            made = list(convert(row))
        except (ValueError, RecursionError) as error:
            yield Rejected(row=row, reason=explained(error))
            continue
        yield from made


@contextmanager
def readable_or_later() -> Iterator[None]:
    """Look at a row ahead of its turn: what is wrong with it is told when the row itself is converted."""
    with suppress(ValueError, RecursionError):
        yield


def explained(error: ValueError | RecursionError) -> str:
    """Say in one line what is wrong with a row; long values are cut."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, ValidationError):
        return str(error)
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(map(str, problem["loc"]))
        value = (
            ""
            if isinstance(problem["input"], (dict, list, tuple))
            else f", got {problem['input']!r:.{_MAX_SHOWN}}"
        )
        text = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{place}: {text}{value}" if place else text)
    return "; ".join(problems)
