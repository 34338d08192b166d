"""The options by which verbs choose records of a store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import OutcomeName
from fusion_integrations.errors import InvalidPolicyError

if TYPE_CHECKING:
    from fusion_integrations.logs.filters import LogFilter

__all__ = [
    "CandidateOption",
    "OutcomeOption",
    "SessionOption",
    "SinceOption",
    "SourceOption",
    "TaskOption",
    "UntilOption",
    "log_filter",
]

SinceOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only calls from then on: 2026-01-31, or with time and zone."),
]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only calls before then.")]
SourceOption = Annotated[list[str] | None, typer.Option(help="Only records of this source; repeatable.")]
TaskOption = Annotated[list[str] | None, typer.Option(help="Only records of this task; repeatable.")]
CandidateOption = Annotated[list[str] | None, typer.Option(help="Only this candidate's; repeatable.")]
SessionOption = Annotated[list[str] | None, typer.Option(help="Only this session's; repeatable.")]
OutcomeOption = Annotated[OutcomeName, typer.Option(help="Only answered, or only failed calls.")]


def log_filter(
    *,
    since: str | None,
    until: str | None,
    source: list[str] | None,
    task: list[str] | None,
    candidate: list[str] | None,
    session: list[str] | None,
    outcome: OutcomeName,
) -> LogFilter:
    """Make a filter of the options.

    Args:
        since: Date or moment; UTC if it has no time zone.
        until: The same.
        source: Sources.
        task: Tasks.
        candidate: Candidate ids.
        session: Sessions.
        outcome: Whether the call was answered or failed.

    Returns:
        The filter; empty if no option was given.

    Raises:
        InvalidPolicyError: If a moment is none.
    """
    from fusion_integrations.logs.filters import LogFilter

    return LogFilter(
        since=_moment("--since", since),
        until=_moment("--until", until),
        sources=source or None,
        tasks=task or None,
        candidates=candidate or None,
        sessions=session or None,
        outcome=outcome,
    )


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{option} needs a date or time as in 2026-01-31 or 2026-01-31T12:00:00Z, got '{text}'."
        raise InvalidPolicyError(message) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
