"""Read the small things that every format spells its own way: numbers, moments, JSON in text.

None always means "the log does not say"; what is there but cannot be read is a ValueError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

__all__ = [
    "as_list",
    "as_mapping",
    "as_moment",
    "as_number",
    "as_text",
    "decoded",
    "first",
    "name_of",
    "seconds_between",
]

_MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)


def first(values: Mapping[str, Any], *names: str) -> Any:
    """Return the first value under one of the names that is neither missing nor empty; None if none is."""
    for name in names:
        value = values.get(name)
        if value is not None and value != "" and not (isinstance(value, float) and math.isnan(value)):
            return value
    return None


def decoded(value: Any) -> Any:
    """Return what JSON text stands for; anything else, and text that is no JSON, as it is."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, from JSON text too; empty for anything else."""
    value = decoded(value)
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list, from JSON text too; empty for anything else."""
    value = decoded(value)
    return list(value) if isinstance(value, (list, tuple)) else []


def as_text(value: Any) -> str:
    """Return text as it is, and anything else as JSON text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def name_of(value: Any, *, what: str) -> str:
    """Return a name.

    Args:
        value: What stands where the name should.
        what: What is named, for the message.

    Returns:
        The name.

    Raises:
        ValueError: If it is missing or no text.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{what}: there is none" if value is None else f"{what}: no name, got {value!r:.200}"
        )
    return value


def as_number(value: Any, *, what: str) -> float | None:
    """Return a number, which may be written as text.

    Args:
        value: What stands where the number should; None or blank means unknown.
        what: What it counts, for the message.

    Returns:
        The number; None if unknown.

    Raises:
        ValueError: If it is none.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, (dict, list, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what}: not a number, got {value!r:.200}") from error
    return None if math.isnan(number) else number


def as_moment(value: Any) -> datetime | None:
    """Return a moment: ISO 8601 text, or seconds (or milliseconds) since 1970; UTC if it names no zone.

    Args:
        value: What stands where the moment should; None or blank means unknown.

    Returns:
        The moment; None if unknown.

    Raises:
        ValueError: If it is none.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        # What databases add to ISO 8601: "2026-01-02 03:04:05.678 UTC"
        value = value.strip().removesuffix(" UTC")
    moment = _MOMENT.validate_python(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from one moment to another; None if one is unknown or they are out of order."""
    if start is None or end is None or end < start:
        return None
    return (end - start).total_seconds()
