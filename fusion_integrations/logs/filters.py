"""Which records of a store are meant: to export them, or to remove them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import ColumnElement, and_, true

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.rows import microseconds
from fusion_integrations.logs.tables import RECORDS

__all__ = ["LogFilter", "Outcome"]

Outcome = Literal["any", "answered", "failed"]

_MAX_VALUES = 10_000  # a statement holds some tens of thousands at most
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Records that meet every condition; without any, all records.

    Args:
        since: First moment of the call, with its time zone; None for no condition, as everywhere here.
        until: Moment before which the call was made, with its time zone.
        sources: Sources, one of which the record has; up to 10,000, as everywhere here.
        tasks: Tasks, one of which it has.
        candidates: Candidate ids, one of which answered.
        sessions: Sessions, to one of which it belongs.
        outcome: Whether the call was answered or failed.

    Raises:
        InvalidPolicyError: If a moment has no time zone, the outcome is unknown, or a condition is an empty
            list (which would match nothing), a single text (which is no list), too long, or of other values.
    """

    since: datetime | None = None
    until: datetime | None = None
    sources: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    candidates: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    outcome: Outcome = "any"

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise InvalidPolicyError(
                    f"{name} needs a time zone, got {moment.isoformat()}. Add one, or Z."
                )
        for name in ("sources", "tasks", "candidates", "sessions"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _checked(name, values))
        if self.outcome not in get_args(Outcome):
            known = ", ".join(get_args(Outcome))
            raise InvalidPolicyError(f"outcome must be one of {known}, got '{self.outcome}'.")

    @property
    def is_empty(self) -> bool:
        """Whether it lets every record through."""
        return all(getattr(self, field.name) == field.default for field in fields(self))

    def condition(self) -> ColumnElement[bool]:
        """Say it in SQL, on the columns of `records`."""
        conditions: list[ColumnElement[bool]] = []
        if self.since is not None:
            conditions.append(RECORDS.c.created_at_us >= microseconds(self.since))
        if self.until is not None:
            conditions.append(RECORDS.c.created_at_us < microseconds(self.until))
        for column, wanted in (
            (RECORDS.c.source, self.sources),
            (RECORDS.c.task, self.tasks),
            (RECORDS.c.candidate_id, self.candidates),
            (RECORDS.c.session_id, self.sessions),
        ):
            if wanted is not None:
                conditions.append(column.in_(wanted))
        if self.outcome != "any":
            conditions.append(
                RECORDS.c.error.is_not(None) if self.outcome == "failed" else RECORDS.c.error.is_(None)
            )
        return and_(true(), *conditions)


def _checked(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not 1 <= len(values) <= _MAX_VALUES:
        given = f"'{values}'" if isinstance(values, str) else f"{len(values)} values"
        raise InvalidPolicyError(f"{name} must be a list of 1 to {_MAX_VALUES} texts, got {given}.")
    for value in values:
        if not isinstance(value, str) or _SURROGATE.search(value):
            raise InvalidPolicyError(f"{name} must be texts that UTF-8 can hold, got {value!r:.200}.")
    return tuple(values)
