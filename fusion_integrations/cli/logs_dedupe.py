"""`fusion logs dedupe`: remove what several sources reported of one call."""

from __future__ import annotations

from typing import Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal

__all__ = ["dedupe"]


def dedupe(
    store: Annotated[str, typer.Argument(help="Log store: SQLite file or database URL.")],
    *,
    within_s: Annotated[
        float, typer.Option(help="Seconds that the sources' clocks may differ by.", min=0)
    ] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove calls that a second source reported: same query, candidate and answer, at about the same time.

    Of each call the record that says most stays, and gets the scores of the others. Records of one source are
    never taken for duplicates: there the id tells repeats apart.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.logs.store import LogStore

        with LogStore.open(store, create=False) as log_store:
            search = log_store.duplicates if dry_run else log_store.dedupe
            n_duplicates = len(search(within_s=within_s))
            label = log_store.label
        words = "would be removed from" if dry_run else "removed from"
        document = {"store": label, "n_removed": 0 if dry_run else n_duplicates, "n_duplicates": n_duplicates}
        place.show(document, f"{n_duplicates} duplicates {words} '{label}'.")
