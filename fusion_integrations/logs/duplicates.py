"""Find calls that several sources reported, each under an id of its own.

Within one source the id tells repeats apart, so only records of different sources can be one call: a tracer's
export and the application's own log, or one file imported under two names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from sqlalchemy import Connection, Row, Select, or_, select

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.tables import RECORDS

__all__ = ["Duplicate", "find_duplicates"]

_PAGE = 5_000  # rows in memory at a time

# What is worth keeping. How the candidate came to be chosen comes first: without it a routed call is no
# evidence of its own.
_ORIGIN = (RECORDS.c.propensity.is_not(None), RECORDS.c.assignment != "unknown", RECORDS.c.eligible != "[]")
_KNOWLEDGE = (
    RECORDS.c.planned_candidate_id,
    RECORDS.c.metric,
    RECORDS.c.cost_usd,
    RECORDS.c.output_tokens,
    RECORDS.c.input_tokens,
    RECORDS.c.latency_s,
    RECORDS.c.reference,
    RECORDS.c.task,
    RECORDS.c.session_id,
)
_CALL = (RECORDS.c.query_id, RECORDS.c.candidate_id, RECORDS.c.sample)

_RECORDS_BY_CALL: Select[tuple[object, ...]] = (
    select(
        RECORDS.c.record_id,
        RECORDS.c.source,
        RECORDS.c.candidate_revision,
        RECORDS.c.created_at_us,
        *_CALL,
        RECORDS.c.response,
        RECORDS.c.error,
        RECORDS.c.session_id,
        *(known.label(f"origin_{number}") for number, known in enumerate(_ORIGIN)),
        *(column.is_not(None).label(f"knows_{column.name}") for column in _KNOWLEDGE),
    )
    .where(
        # A record without its answer says too little to tell calls apart.
        or_(RECORDS.c.response.is_not(None), RECORDS.c.error.is_not(None))
    )
    .order_by(*_CALL, RECORDS.c.created_at_us, RECORDS.c.record_no)
)


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two records of one call.

    Attributes:
        kept: Id of the record that says most about the call.
        removed: Id of the other.
    """

    kept: str
    removed: str


@dataclass(kw_only=True)
class _Call:
    """Records of one call, found so far."""

    started_us: int
    revision: str = ""
    session_id: str | None = None
    records: dict[str, Row[tuple[object, ...]]] = field(default_factory=dict)  # by source

    def accepts(self, row: Row[tuple[object, ...]], *, within_us: int) -> bool:
        return (
            row.created_at_us - self.started_us <= within_us
            and row.source not in self.records
            and _agree(row.candidate_revision, self.revision)
            and _agree(row.session_id, self.session_id)
        )

    def add(self, row: Row[tuple[object, ...]]) -> None:
        self.records[row.source] = row
        self.revision = self.revision or row.candidate_revision
        self.session_id = self.session_id or row.session_id

    def duplicates(self) -> Iterator[Duplicate]:
        best = max(self.records.values(), key=_knowledge)  # of equals the first
        for row in self.records.values():
            if row is not best:
                yield Duplicate(kept=best.record_id, removed=row.record_id)


def find_duplicates(connection: Connection, *, within_s: float) -> list[Duplicate]:
    """Find records of different sources that report one call.

    Args:
        connection: An open transaction.
        within_s: Seconds that the sources' clocks may differ by, at most.

    Returns:
        Each record that has a better one of the same query, candidate, sample and answer, and of no other
        session or revision.

    Raises:
        InvalidPolicyError: If `within_s` is negative or not finite.
    """
    if not (math.isfinite(within_s) and within_s >= 0):
        raise InvalidPolicyError(f"within_s must be a finite number >= 0, got {within_s}.")
    rows = connection.execute(_RECORDS_BY_CALL, execution_options={"yield_per": _PAGE})
    within_us = round(within_s * 1e6)
    duplicates: list[Duplicate] = []
    for _, same in groupby(rows, key=lambda row: (row.query_id, row.candidate_id, row.sample)):
        for call in _calls(same, within_us=within_us):
            duplicates += call.duplicates()
    return duplicates


def _calls(rows: Iterable[Row[tuple[object, ...]]], *, within_us: int) -> Iterator[_Call]:
    calls: dict[tuple[str | None, str | None], list[_Call]] = {}
    for row in rows:
        found = calls.setdefault((row.response, row.error), [])
        call = next((each for each in found if each.accepts(row, within_us=within_us)), None)
        if call is None:
            call = _Call(started_us=row.created_at_us)
            found.append(call)
        call.add(row)
    for found in calls.values():
        yield from found


def _agree(one: str | None, other: str | None) -> bool:
    """Tell whether two values may be one, where either may be unknown."""
    return one == other or not one or not other


def _knowledge(row: Row[tuple[object, ...]]) -> tuple[int, int]:
    return (
        sum(bool(getattr(row, f"origin_{number}")) for number in range(len(_ORIGIN))),
        sum(bool(getattr(row, f"knows_{column.name}")) for column in _KNOWLEDGE),
    )
