"""`fusion logs prune`: remove records from a store, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.log_filter import (
    CandidateOption,
    OutcomeOption,
    SessionOption,
    SinceOption,
    SourceOption,
    TaskOption,
    UntilOption,
    log_filter,
)
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal

if TYPE_CHECKING:
    from fusion_integrations.logs.store import LogStore

__all__ = ["prune"]


def prune(
    store: Annotated[str, typer.Argument(help="Log store: SQLite file or database URL.")],
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    task: TaskOption = None,
    candidate: CandidateOption = None,
    session: SessionOption = None,
    outcome: OutcomeOption = "any",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove records that meet every condition given, with their scores; there is no way back.

    The database's files are written anew afterwards, so that nothing of the removed text stays in them; other
    users of the store wait for that.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.errors import InvalidPolicyError
        from fusion_integrations.logs.store import LogStore

        where = log_filter(
            since=since,
            until=until,
            source=source,
            task=task,
            candidate=candidate,
            session=session,
            outcome=outcome,
        )
        if where.is_empty:
            raise InvalidPolicyError("Give at least one condition, for example --until 2026-01-01.")
        with LogStore.open(store, create=False) as log_store:
            label = log_store.label
            n_matching = log_store.count(where) if dry_run else log_store.remove(where)
            if not dry_run:
                _compact(log_store, n_removed=n_matching)
        words = "would be removed from" if dry_run else "removed from"
        document = {"store": label, "n_removed": 0 if dry_run else n_matching, "n_matching": n_matching}
        place.show(document, f"{n_matching} records {words} '{label}'.")


def _compact(store: LogStore, *, n_removed: int) -> None:
    from fusion_integrations.errors import LogStoreError

    try:
        store.compact()
    except LogStoreError as error:
        message = f"{n_removed} records were removed. {error} Running this command again does so too."
        raise LogStoreError(message) from error
