"""Read rows of CSV, JSON and Parquet files one after another, whatever the size of the file.

A line that cannot be read becomes a row with a problem and reading goes on: one broken line must not cost the
other million.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._contract import SourceRow
from fusion_integrations.logs.importers._json_rows import json_lines, json_rows

__all__ = ["check_columns", "read_rows", "source_files"]

# Polars panics, which is no Exception, on some damaged files.
_UNREADABLE = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException, csv.Error, MemoryError)

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSONL = (".jsonl", ".ndjson")
_JSON = ".json"
_PARQUET = ".parquet"
_KINDS = (*_DELIMITERS, *_JSONL, _JSON, _PARQUET)

# UTF-32 before UTF-16, whose mark its own begins with.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# Answers outgrow the csv module's 128 KiB; some limit stays, or an unclosed quote would read a whole file.
_MAX_FIELD = 16 * 2**20

# Enough rows to pay for opening a row group again, few enough to stay small in memory.
_PARQUET_SLICE = 5_000


def check_columns(path: Path, wanted: Sequence[str]) -> None:
    """Make sure a file has the wanted columns.

    Args:
        path: A CSV, TSV, JSONL, JSON or Parquet file.
        wanted: Names of columns. In JSON a column exists if any line has it.

    Raises:
        LogSchemaError: If the file is of no known kind, cannot be read, is text but not UTF-8, or lacks a
            column; lists the columns there are.
    """
    with _Readable(path):
        _check_encoding(path)
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


def read_rows(
    path: Path, *, columns: Sequence[str] | None = None, inside: Sequence[str] = ()
) -> Iterator[SourceRow]:
    """Read a file, or every file of a known kind in a folder and the folders in it, row by row.

    Args:
        path: A CSV, TSV, JSONL, JSON or Parquet file, by its suffix, or a folder.
        columns: The columns to read; Parquet reads no others. None means all.
        inside: Keys under which a JSON object may hold a list of the rows proper, as API pages do.

    Yields:
        Rows in file order, files in the order of their names. Empty CSV fields are None.

    Raises:
        LogSchemaError: If a file as a whole cannot be read or is text but not UTF-8, or a folder has none of
            a known kind.
    """
    for file in source_files(path):
        with _Readable(file):
            _check_encoding(file)
            for row in _rows(file, columns=columns, inside=inside):
                yield row if file == path else replace(row, file=str(file.relative_to(path)))


def source_files(path: Path) -> list[Path]:
    """List the files of a known kind that a path stands for.

    Args:
        path: A file, or a folder.

    Returns:
        The file itself, whatever it is; or the folder's files by name, without hidden ones and what earlier
        imports set aside.

    Raises:
        LogSchemaError: If a folder has no such file.
    """
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _KINDS and not _is_hidden(file, within=path) and file.is_file()
    )
    if not found:
        raise LogSchemaError(f"Folder '{path}' has no file to import. Known suffixes: {', '.join(_KINDS)}.")
    return found


def _is_hidden(file: Path, *, within: Path) -> bool:
    parts = file.relative_to(within).parts
    return any(part.startswith(".") for part in parts) or file.name.endswith(".quarantine.jsonl")


def _rows(path: Path, *, columns: Sequence[str] | None, inside: Sequence[str]) -> Iterator[SourceRow]:
    suffix = path.suffix.lower()
    if suffix == _PARQUET:
        return _parquet_rows(path, columns)
    if suffix in _JSONL:
        return json_lines(path, inside=inside)
    return json_rows(path, inside=inside) if suffix == _JSON else _csv_rows(path)


class _Readable:
    """Turns what goes wrong with a file as a whole into a `LogSchemaError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if self._path.suffix.lower() not in _KINDS:
            message = f"'{self._path}' is of no known kind. Known suffixes: {', '.join(_KINDS)}."
            raise LogSchemaError(message)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _UNREADABLE):
            reason = getattr(error, "strerror", None) or error
            raise LogSchemaError(f"'{self._path}' cannot be read: {reason}") from error


def _check_encoding(path: Path) -> None:
    """Refuse text that says of itself that it is not UTF-8: read as such, no column would have its name."""
    if path.suffix.lower() == _PARQUET:
        return
    with path.open("rb") as file:
        start = file.read(4)
    found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    if found is not None:
        raise LogSchemaError(f"'{path}' is encoded as {found}. Save it as UTF-8 and import that file.")


def _columns(path: Path, wanted: Sequence[str]) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == _PARQUET:
        return _scan(path).collect_schema().names()
    if suffix in (*_JSONL, _JSON):
        found: dict[str, None] = {}
        for row in _rows(path, columns=None, inside=()):
            found |= dict.fromkeys(row.values) if not row.problem else {}
            if found.keys() >= set(wanted):
                break
        return list(found)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return next(csv.reader(file, delimiter=_DELIMITERS[suffix]), [])


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[SourceRow]:
    table = _scan(path) if columns is None else _scan(path).select(columns)
    number = 0
    while True:
        part = table.slice(number, _PARQUET_SLICE).collect()
        for values in part.iter_rows(named=True):
            number += 1
            yield SourceRow(number=number, values=values)
        if part.height < _PARQUET_SLICE:
            return


def _scan(path: Path) -> pl.LazyFrame:
    # A name is a name: neither a pattern of names, nor a source of columns.
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


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
