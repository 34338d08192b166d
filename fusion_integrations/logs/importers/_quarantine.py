"""Keep what could not be imported, with the reason, so that nothing of a log is lost."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs.importers._contract import SourceRow
from fusion_integrations.logs.importers._redaction import Redactor

__all__ = ["Quarantine", "quarantine_path"]


def quarantine_path(path: Path) -> Path:
    """Name the default quarantine file of a source: beside it, `.quarantine.jsonl` appended."""
    path = path.resolve() if path.name in ("", "..") else path  # a folder may be given as "." too
    return path.with_name(f"{path.name}.quarantine.jsonl")


class Quarantine:
    """A JSONL file of refused rows that exists only if there are any.

    Args:
        path: The file; made with the first row, replacing what is there.
        redactor: Takes secrets out of the rows.

    Attributes:
        n_rows: Rows in it.
    """

    def __init__(self, path: Path, *, redactor: Redactor) -> None:
        self.n_rows = 0
        self._path = path
        self._redactor = redactor
        self._file: TextIO | None = None

    def add(self, row: SourceRow, reason: str) -> None:
        """Write a row.

        Args:
            row: The row.
            reason: Why it was refused.

        Raises:
            LogStoreError: If the file cannot be written.
        """
        line = json.dumps(self._entry(row, reason), default=str) + "\n"
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(line)
        except OSError as error:
            raise self._failure(error) from error
        self.n_rows += 1

    def __enter__(self) -> Self:
        """Return the quarantine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as failure:
            raise self._failure(failure) from failure

    def _entry(self, row: SourceRow, reason: str) -> dict[str, Any]:
        place = {"file": row.file} if row.file else {}
        entry = {**place, "row": row.number, "reason": self._redactor.text(reason)}
        try:
            values = self._redactor.data(row.values)
            json.dumps(values, default=str)
        except (RecursionError, ValueError):
            # Nesting that ends the walk here ends it for every reader: its place in the source must do.
            return {**entry, "values": None}
        return {**entry, "values": values}

    def _failure(self, error: OSError) -> LogStoreError:
        message = (
            f"The quarantine file '{self._path}' cannot be written: {error.strerror}. "
            "Pass quarantine= with a path that can."
        )
        return LogStoreError(message)
