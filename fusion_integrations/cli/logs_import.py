"""`fusion logs import table`: bring logs you already have into a log store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import AssignmentName
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal
from fusion_integrations.errors import LogSchemaError

if TYPE_CHECKING:
    from fusion_integrations.logs.importers import ColumnMapping

__all__ = ["import_table"]


def import_table(
    path: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file.")],
    *,
    store: Annotated[str, typer.Option(help="Log store to fill: SQLite file or database URL.")],
    mapping: Annotated[
        list[str],
        typer.Option("--map", metavar="FIELD=COLUMN", help="Which column holds a field; repeat for each."),
    ],
    source: Annotated[str | None, typer.Option(help="Name of the source.", show_default="file name")] = None,
    assignment: Annotated[
        AssignmentName, typer.Option(help="How candidates came to be chosen in this log.")
    ] = "unknown",
    quarantine: Annotated[
        Path | None,
        typer.Option(help="File for rows that cannot be used.", show_default="PATH.quarantine.jsonl"),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Import a table, one row a call.

    Importing it again adds nothing. Rows that cannot be used are set aside with the reason.

    Map query or messages, and candidate or model; besides these you can map prompt_mode, response, error,
    performance, judge_score, task, reference, metric, input_tokens, output_tokens, cost_usd, latency_s,
    propensity, session_id, created_at and source_id.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.logs import importers
        from fusion_integrations.logs.store import LogStore

        columns = _column_mapping(mapping)
        with LogStore.open(store) as log_store, place.progress.status("Importing") as status:
            report = importers.import_table(
                path,
                log_store,
                columns=columns,
                source=source,
                assignment=assignment,
                quarantine=quarantine,
                on_progress=lambda n_rows: status.update(f"Importing: {n_rows} rows"),
            )
        if report.n_rows and report.n_rows == report.n_quarantined:
            message = (
                f"None of the {report.n_rows} rows could be used; '{report.quarantine}' says why of each. "
                "Check the mapping."
            )
            raise LogSchemaError(message)
        text = (
            f"Read {report.n_rows} rows of source '{report.source}': {report.n_added} added to '{store}', "
            f"{report.n_known} were there already."
        )
        aside = None if report.quarantine is None else str(report.quarantine)
        if aside is not None:
            text += f"\n{report.n_quarantined} rows could not be used; '{aside}' says why of each."
        place.show(asdict(report) | {"quarantine": aside, "store": store}, text)


def _column_mapping(mapping: list[str]) -> ColumnMapping:
    from pydantic import ValidationError

    from fusion_integrations.logs.importers import ColumnMapping

    by_field: dict[str, str] = {}
    for pair in mapping:
        name, _, column = pair.partition("=")
        if not name or not column:
            raise LogSchemaError(f"--map needs FIELD=COLUMN, got '{pair}'.")
        if name in by_field:
            raise LogSchemaError(f"--map gives two columns for '{name}': '{by_field[name]}' and '{column}'.")
        by_field[name] = column
    unknown = sorted(by_field.keys() - ColumnMapping.model_fields.keys())
    if unknown:
        known = ", ".join(ColumnMapping.model_fields)
        raise LogSchemaError(f"--map knows no field {', '.join(map(repr, unknown))}. Known: {known}.")
    try:
        return ColumnMapping(**by_field)
    except ValidationError as error:
        problems = "; ".join(problem["msg"] for problem in error.errors(include_url=False))
        raise LogSchemaError(f"--map: {problems}") from error
