"""Read JSON lines, arrays and documents row by row.

An array is cut at its top-level commas instead of being parsed as a whole: memory holds one element, and a
broken element costs only itself.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fusion_integrations.logs.importers._contract import SourceRow

__all__ = ["json_lines", "json_rows"]

_CHUNK = 2**20  # bytes

# Room for a long conversation with its documents; without a limit an unclosed quote would read a whole file.
_MAX_VALUE = 256 * 2**20  # characters

_MAX_SHOWN = 10_000  # characters of a broken value that are kept

_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["\[\]{},]')


def json_lines(path: Path, *, inside: Sequence[str] = ()) -> Iterator[SourceRow]:
    """Read a file of one JSON object a line.

    Args:
        path: The file.
        inside: Keys under which an object may hold a list of the rows proper, as API pages do.

    Yields:
        Rows, numbered by line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield from _parsed(line, number=number, inside=inside)


def json_rows(path: Path, *, inside: Sequence[str] = ()) -> Iterator[SourceRow]:
    """Read a JSON file: an array of objects, an object, or objects one after another or one a line.

    Args:
        path: The file.
        inside: Keys under which an object may hold a list of the rows proper, as API pages do; such an object
            is held in memory.

    Yields:
        Rows, numbered by their position in the file from 1.
    """
    if _is_lines(path):
        yield from json_lines(path, inside=inside)
        return
    with path.open("rb") as file:
        for number, (text, problem) in enumerate(_values(_text(file)), start=1):
            if problem:
                yield _unreadable(number, problem, text)
            else:
                yield from _parsed(text, number=number, inside=inside)


def _parsed(text: str | bytes, *, number: int, inside: Sequence[str]) -> Iterator[SourceRow]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield _unreadable(number, f"not JSON: {error}", text)
        return
    if not isinstance(value, dict):
        yield _unreadable(number, "not a JSON object", text)
        return
    parts = next((value[key] for key in inside if isinstance(value.get(key), list)), None)
    if parts is None:
        yield SourceRow(number=number, values=value)
        return
    for part in parts:
        if isinstance(part, Mapping):
            yield SourceRow(number=number, values=part)
        else:
            yield SourceRow(number=number, values={"value": part}, problem="not a JSON object")


def _unreadable(number: int, problem: str, text: str | bytes) -> SourceRow:
    shown = text if isinstance(text, str) else text.decode(errors="replace")
    shown = shown.rstrip()
    if len(shown) > _MAX_SHOWN:
        problem += f"; only its first {_MAX_SHOWN} characters are kept here"
    values: dict[str, Any] = {"line": shown[:_MAX_SHOWN]}
    return SourceRow(number=number, values=values, problem=problem)


def _is_lines(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(_CHUNK)
        has_more = bool(file.readline(_CHUNK))
    try:
        return has_more and first.endswith(b"\n") and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _text(file: BinaryIO) -> Iterator[str]:
    """Decode a file chunk by chunk; bytes that are no UTF-8 become surrogates, which no record accepts."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
    while chunk := file.read(_CHUNK):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _values(chunks: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Cut text into the elements of an array, or into the values that stand one after another.

    Args:
        chunks: The text.

    Yields:
        A value's text, and what is wrong with it or "".
    """
    cutter = _Cutter()
    for chunk in chunks:
        yield from cutter.feed(chunk)
        if cutter.n_pending > _MAX_VALUE:
            yield (
                cutter.rest,
                f"does not end within {_MAX_VALUE} characters; the rest of the file was not read",
            )
            return
    if cutter.rest.strip():
        yield cutter.rest, "the file ends inside of it"


class _Cutter:
    """Finds where values end; knows of JSON only strings, brackets and commas."""

    def __init__(self) -> None:
        self._buffer = ""
        self._at = 0  # where to go on searching
        self._depth = 0
        self._level: int | None = None  # depth at which values stand: 1 in an array, else 0
        self._is_string = False

    @property
    def rest(self) -> str:
        """What no value was made of yet."""
        return self._buffer

    @property
    def n_pending(self) -> int:
        """How many characters that is."""
        return len(self._buffer)

    def feed(self, chunk: str) -> Iterator[tuple[str, str]]:
        self._buffer += chunk
        if self._level is None and not self._begin():
            return
        start = 0
        while found := (_IN_STRING if self._is_string else _OUTSIDE).search(self._buffer, self._at):
            sign = found.group()
            if sign == "\\":
                if found.end() == len(self._buffer):
                    break  # what it escapes is in the next chunk
                self._at = found.end() + 1
                continue
            self._at = found.end()
            if self._step(sign):
                text = self._buffer[start : found.end() - (self._level or 0)]
                start = found.end()
                if text.strip():
                    yield text, ""
        else:
            self._at = len(self._buffer)
        self._buffer = self._buffer[start:]
        self._at -= start

    def _begin(self) -> bool:
        """Find out at which depth values stand; False while there is only white space."""
        text = self._buffer.lstrip()
        if not text:
            self._buffer = ""
            return False
        self._level = 1 if text[0] == "[" else 0
        if self._level:
            self._depth = 1
            text = text[1:]
        self._buffer, self._at = text, 0
        return True

    def _step(self, sign: str) -> bool:
        """Take a sign in; whether a value ends with it."""
        if sign == '"':
            self._is_string = not self._is_string
        elif sign in "[{":
            self._depth += 1
        elif sign in "]}":
            self._depth -= 1
            return self._depth == 0
        else:
            return self._level == 1 and self._depth == 1
        return False
