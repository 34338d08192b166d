"""`fusion logs export`: write the logs of a store to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

__all__ = ["export"]


def export(
    store: Annotated[str, typer.Argument(help="Log store: SQLite file or database URL.")],
    path: Annotated[Path, typer.Argument(help="File to write: .parquet or .jsonl.")],
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    source: SourceOption = None,
    task: TaskOption = None,
    candidate: CandidateOption = None,
    session: SessionOption = None,
    outcome: OutcomeOption = "any",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write logs to a file that trainers, other stores and other programs read.

    A .parquet file is one table, with the latest score of each kind. A .jsonl file has everything, all scores
    with who gave them and why. `fusion logs import fusion` reads both.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.logs.export import export_logs
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
        with LogStore.open(store, create=False) as log_store:
            n_records = export_logs(log_store, path, where=where)
        place.show({"path": str(path), "n_records": n_records}, f"Wrote {n_records} records to '{path}'.")
