"""What trainers and evaluators take as logs: a frame, or anything that gives one."""

from __future__ import annotations

from typing import Protocol

import polars as pl

__all__ = ["LogSource", "as_frame"]


class LogSource(Protocol):
    """Anything that yields a log frame, above all `LogStore`."""

    def to_frame(self) -> pl.DataFrame:
        """Return the logs in the columns of `LOG_SCHEMA`."""
        ...


def as_frame(logs: pl.DataFrame | LogSource) -> pl.DataFrame:
    """Return the frame of logs in either form."""
    return logs if isinstance(logs, pl.DataFrame) else logs.to_frame()
