"""What a log store says about itself in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["AddResult", "LogStats"]


@dataclass(frozen=True, kw_only=True)
class AddResult:
    """What became of the records handed to `LogStore.add`.

    Attributes:
        n_added: Records stored.
        n_known: Records left out because the store, or the same call, had one of that id.
    """

    n_added: int
    n_known: int


@dataclass(frozen=True, kw_only=True)
class LogStats:
    """The size of a log store.

    Attributes:
        n_records: Records, failed calls included.
        n_failed: Records of failed calls.
        n_queries: Different queries.
        n_scores: Scores of all kinds, outdated ones included.
        n_records_by_candidate: Records of each candidate id, most first.
    """

    n_records: int
    n_failed: int
    n_queries: int
    n_scores: int
    n_records_by_candidate: Mapping[str, int]
