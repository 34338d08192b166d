"""Read rows of CSV, JSONL and Parquet files one after another, whatever the size of the file.

A line that cannot be read becomes a row with a problem and reading goes on: one broken line must not cost the
other million.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fusion_integrations.errors import LogSchemaError

__all__ = ["SourceRow", "check_columns", "read_rows"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSONL = (".jsonl", ".ndjson")
_PARQUET = ".parquet"

# Answers outgrow the csv module's 128 KiB; some limit stays, or an unclosed quote would read a whole file.
_MAX_FIELD = 16 * 2**20

# Enough rows to pay for opening a row group again, few enough to stay small in memory.
_PARQUET_SLICE = 5_000


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One row of a file.

    Attributes:
        number: Position from 1: the record in a CSV file (without the header), the line in a JSONL file.
        values: Values by column; missing columns are missing.
        problem: Why the row cannot be read; empty if it can.
    """

    number: int
    values: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


def check_columns(path: Path, wanted: Sequence[str]) -> None:
    """Make sure a file has the wanted columns.

    Args:
        path: A CSV, TSV, JSONL or Parquet file.
        wanted: Names of columns. In JSONL a column exists if any line has it.

    Raises:
        LogSchemaError: If the file is of no known kind, cannot be read, or lacks a column; lists the columns
            there are.
    """
    with _Readable(path):
        columns = _columns(path, wanted)
    missing = [name for name in wanted if name not in columns]
    if missing:
        message = (
            f"'{path}' has no column {', '.join(map(repr, missing))}. "
            f"Map one of those it has: {', '.join(map(repr, columns)) or 'none'}."
        )
        raise LogSchemaError(message)
    repeated = [name for name in wanted if columns.count(name) > 1]
    if repeated:
        message = (
            f"'{path}' has several columns {', '.join(map(repr, repeated))}. Rename all but one of each."
        )
        raise LogSchemaError(message)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[SourceRow]:
    """Read a file row by row.

    Args:
        path: A CSV, TSV, JSONL or Parquet file, by its suffix.
        columns: The columns to read; Parquet reads no others.

    Yields:
        Rows in file order. Empty CSV fields are None.

    Raises:
        LogSchemaError: If the file as a whole cannot be read.
    """
    with _Readable(path):
        suffix = path.suffix.lower()
        if suffix == _PARQUET:
            yield from _parquet_rows(path, columns)
        elif suffix in _JSONL:
            yield from _jsonl_rows(path)
        else:
            yield from _csv_rows(path)


class _Readable:
    """Turns what goes wrong with a file as a whole into a `LogSchemaError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        suffixes = (*_DELIMITERS, *_JSONL, _PARQUET)
        if self._path.suffix.lower() not in suffixes:
            message = f"'{self._path}' is of no known kind. Known suffixes: {', '.join(suffixes)}."
            raise LogSchemaError(message)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, pl.exceptions.PolarsError, csv.Error)):
            reason = getattr(error, "strerror", None) or error
            raise LogSchemaError(f"'{self._path}' cannot be read: {reason}") from error


def _columns(path: Path, wanted: Sequence[str]) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == _PARQUET:
        return pl.scan_parquet(path).collect_schema().names()
    if suffix in _JSONL:
        found: dict[str, None] = {}
        for row in _jsonl_rows(path):
            found |= dict.fromkeys(row.values) if not row.problem else {}
            if found.keys() >= set(wanted):
                break
        return list(found)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return next(csv.reader(file, delimiter=_DELIMITERS[suffix]), [])


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[SourceRow]:
    table = pl.scan_parquet(path).select(columns)
    number = 0
    while True:
        part = table.slice(number, _PARQUET_SLICE).collect()
        for values in part.iter_rows(named=True):
            number += 1
            yield SourceRow(number=number, values=values)
        if part.height < _PARQUET_SLICE:
            return


def _jsonl_rows(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _unreadable(number, f"not JSON: {error}", line)
                continue
            if isinstance(values, dict):
                yield SourceRow(number=number, values=values)
            else:
                yield _unreadable(number, "not a JSON object", line)


def _csv_rows(path: Path) -> Iterator[SourceRow]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    # Bytes that are not UTF-8 become surrogates, which no record accepts: the row is refused, not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=True)
        header = next(reader, [])
        number = 0
        while True:
            number += 1
            first_line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield SourceRow(
                    number=number, problem=f"not CSV: {error}, lines {first_line}-{reader.line_num}"
                )
                continue
            if not fields:
                number -= 1  # a blank line is no record
            elif len(fields) == len(header):
                values = {name: text or None for name, text in zip(header, fields, strict=True)}
                yield SourceRow(number=number, values=values)
            else:
                problem = f"{len(fields)} fields where the header has {len(header)}"
                yield SourceRow(number=number, values={"fields": fields}, problem=problem)


def _unreadable(number: int, problem: str, line: bytes) -> SourceRow:
    return SourceRow(number=number, values={"line": line.decode(errors="replace").rstrip()}, problem=problem)
