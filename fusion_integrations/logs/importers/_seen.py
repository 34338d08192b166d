"""Remember what an import has met, however long it is, in a file that vanishes with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from fusion_integrations.errors import LogStoreError
from fusion_integrations.types import fingerprint

__all__ = ["SeenIds", "Shelf", "SpanTree"]

_MAX_IN_MEMORY = 2_000_000  # ids, about 300 MB; a table's rows take up to two each


class _Scratch:
    """A private SQLite database: in memory while small, then in a temporary file that only it can reach."""

    def __init__(self, schema: str) -> None:
        with _explained():
            self._connection = sqlite3.connect("", isolation_level=None)
            self._connection.execute("PRAGMA cache_size = -65536")  # 64 MiB, then it spills
            self._connection.execute(schema)
            self._connection.execute("BEGIN")  # one transaction: nobody else reads it, nothing outlives it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class SeenIds(_Scratch):
    """Counts how often each id was met; the first two million in memory, which is ten times as fast."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE seen (id TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")
        self._in_memory: dict[str, int] = {}

    def add(self, key: str) -> int:
        """Count an id and return how often it was met before."""
        before = self._in_memory.get(key, 0)
        if before or len(self._in_memory) < _MAX_IN_MEMORY:
            self._in_memory[key] = before + 1
            return before
        sql = "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n - 1"
        with _explained():
            (found,) = self._connection.execute(sql, (key,)).fetchone()
        return int(found)


class SpanTree(_Scratch):
    """Knows of nested spans which only wrap a model call that is a span of its own."""

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE spans (id TEXT PRIMARY KEY, parent TEXT, is_call INTEGER) WITHOUT ROWID"
        )
        self._is_complete = False

    def add(self, span_id: str, parent_id: str | None, *, is_call: bool) -> None:
        """Note a span; of one noted twice both are kept.

        Args:
            span_id: Its id.
            parent_id: Id of the span it lies in; None if in none. The parent need not be known.
            is_call: Whether it reports a model call.
        """
        sql = (
            "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
            "parent = coalesce(excluded.parent, parent), is_call = max(is_call, excluded.is_call)"
        )
        with _explained():
            above = None if parent_id in (None, span_id) else fingerprint(parent_id)
            self._connection.execute(sql, (fingerprint(span_id), above, is_call))

    def is_wrapper(self, span_id: str) -> bool:
        """Return whether a model call lies below the span; note all spans before."""
        if not self._is_complete:
            self._complete()
        with _explained():
            found = self._connection.execute(
                "SELECT 1 FROM wrappers WHERE id = ?", (fingerprint(span_id),)
            ).fetchone()
        return found is not None

    def _complete(self) -> None:
        # UNION drops what it has found already, so a circle of parents ends too.
        with _explained():
            self._connection.execute("CREATE TABLE wrappers (id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._connection.execute(
                "INSERT INTO wrappers WITH RECURSIVE above(id) AS ("
                "SELECT parent FROM spans WHERE is_call AND parent IS NOT NULL UNION "
                "SELECT spans.parent FROM above JOIN spans ON spans.id = above.id "
                "WHERE spans.parent IS NOT NULL) SELECT id FROM above"
            )
        self._is_complete = True


class Shelf(_Scratch):
    """Keeps texts under a key until the row turns up that they belong to."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE shelf (key TEXT, place INTEGER, text TEXT, PRIMARY KEY (key, place))")

    def put(self, key: str, text: str) -> None:
        """Add a text under a key."""
        sql = "INSERT INTO shelf SELECT ?, count(*), ? FROM shelf WHERE key = ?"
        with _explained():
            self._connection.execute(sql, (fingerprint(key), text, fingerprint(key)))

    def take(self, key: str) -> list[str]:
        """Return the texts under a key in the order they came; they stay."""
        with _explained():
            rows = self._connection.execute(
                "SELECT text FROM shelf WHERE key = ? ORDER BY place", (fingerprint(key),)
            )
            return [text for (text,) in rows]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = (
            f"The import cannot note what it has seen: {error}. Free space in the folder for temporary "
            "files, or set SQLITE_TMPDIR. What was stored stays; importing again goes on from there."
        )
        raise LogStoreError(message) from error
