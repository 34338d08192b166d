"""`fusion logs split`: a part to train on, and a part that shares no question with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal

__all__ = ["split"]


def split(
    logs: Annotated[str, typer.Argument(help="Log store (file or URL), or exported .parquet file.")],
    folder: Annotated[Path, typer.Argument(help="Where to write train.parquet and test.parquet.")],
    *,
    test_share: Annotated[
        float, typer.Option(help="Share of the queries to hold out.", min=0.001, max=0.999)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the random choice.", min=0)] = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Split logs so that no query of one part is in the other, nor one that differs in numbers only.

    Queries of one session stay on one side too, unless it holds more than a tenth of all.

    To split by time instead, use `fusion logs export` with --until and --since.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.cli.inputs import read_logs
        from fusion_integrations.errors import LogStoreError
        from fusion_integrations.logs.frame import write_parquet
        from fusion_integrations.logs.splits import split_by_query

        train, test = split_by_query(read_logs(logs, demo_part="all"), fraction=test_share, seed=seed)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogStoreError(f"Folder '{folder}' cannot be made: {error.strerror}.") from error
        parts = {"train": train, "test": test}
        for name, part in parts.items():
            write_parquet(part, folder / f"{name}.parquet")
        document = {
            name: {
                "path": str(folder / f"{name}.parquet"),
                "n_records": part.height,
                "n_queries": part["query_id"].n_unique(),
            }
            for name, part in parts.items()
        }
        lines = [
            f"{name}: {each['n_queries']} queries, {each['n_records']} records in '{each['path']}'."
            for name, each in document.items()
        ]
        place.show(document, "\n".join(lines))
