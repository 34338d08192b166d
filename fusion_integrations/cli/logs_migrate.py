"""`fusion logs migrate`: bring the tables of a store to the revision that this release reads."""

from __future__ import annotations

from typing import Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal

__all__ = ["migrate"]


def migrate(
    store: Annotated[str, typer.Argument(help="Log store: SQLite file or database URL.")],
    *,
    revision: Annotated[
        str | None,
        typer.Option("--to", help="Revision to go to, older or newer.", show_default="this release's"),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Change the tables of a store that an older release wrote; records and scores stay.

    It happens as a whole or not at all. Copy the store first: the release that wrote it cannot read it
    afterwards, unless you go back with --to.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.logs.location import store_label
        from fusion_integrations.logs.migrations import migrate_store
        from fusion_integrations.logs.tables import REVISION

        label = store_label(store)
        before, after = migrate_store(store, revision=revision or REVISION)
        text = (
            f"'{label}' is of revision {after} already."
            if before == after
            else f"'{label}' went from revision {before} to {after}."
        )
        place.show({"store": label, "before": before, "after": after}, text)
