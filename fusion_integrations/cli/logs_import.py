"""`fusion logs import`: bring logs you already have into a log store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from fusion_integrations.cli.choices import AssignmentName, LogFormatName
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal
from fusion_integrations.errors import LogSchemaError

if TYPE_CHECKING:
    from fusion_integrations.logs.importers import ColumnMapping, ImportReport

__all__ = ["import_logs"]

_NAMES = ", ".join(get_args(LogFormatName))


def import_logs(
    log_format: Annotated[LogFormatName, typer.Argument(metavar="FORMAT", help=f"One of: {_NAMES}.")],
    path: Annotated[Path, typer.Argument(help="The exported file, or folder of files.")],
    *,
    store: Annotated[str, typer.Option(help="Log store to fill: SQLite file or database URL.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Which column holds a field; repeat for each."),
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(
            help="Second file of the export: the batch input of openai-batch, the scores of langfuse, "
            "the default_llm.json of llmrouter, the log records of otel."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Name of the source.", show_default="file or format name")
    ] = None,
    assignment: Annotated[
        AssignmentName | None,
        typer.Option(help="How candidates came to be chosen in this log.", show_default="as the log says"),
    ] = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(help="New file for rows that cannot be used.", show_default="PATH.quarantine.jsonl"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")
    ] = False,
    redact_pii: Annotated[
        bool,
        typer.Option("--redact-pii", help="Take out e-mail addresses, phone and card numbers, and the like."),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Import logs you already have.

    Importing them again adds only what is new: calls, and scores of calls that have an id. Rows that cannot
    be used are set aside with the reason; duplicates, cached answers and spans that wrap another call are
    dropped and counted. API keys are always taken out.

    The format table needs --map: query or messages, and candidate or model; besides these you can map
    prompt_mode, response, error, performance, judge_score, task, reference, metric, input_tokens,
    output_tokens, cost_usd, latency_s, propensity, session_id, created_at and source_id.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.logs import importers
        from fusion_integrations.logs.store import LogStore

        columns = _column_mapping(mapping) if mapping else None
        with LogStore.open(store) as log_store, place.progress.status("Importing") as status:
            report = importers.import_logs(
                log_format,
                path,
                log_store,
                columns=columns,
                join=join,
                source=source,
                assignment=assignment,
                quarantine=quarantine,
                bad_rows="stop" if strict else "set_aside",
                redact="secrets_and_pii" if redact_pii else "secrets",
                on_progress=lambda n_rows: status.update(f"Importing: {n_rows} rows"),
            )
            label = log_store.label
        _refuse_useless(report)
        aside = None if report.quarantine is None else str(report.quarantine)
        place.show(asdict(report) | {"quarantine": aside, "store": label}, _text(report, store=label))


def _refuse_useless(report: ImportReport) -> None:
    if report.n_rows and report.n_rows == report.n_quarantined:
        message = (
            f"None of the {report.n_rows} rows could be used; '{report.quarantine}' says why of each. "
            "Check the format and the mapping."
        )
        raise LogSchemaError(message)


def _text(report: ImportReport, *, store: str) -> str:
    summary = (
        f"Read {report.n_rows} rows of source '{report.source}': {report.n_added} added to '{store}', "
        f"{report.n_known} were there already."
    )
    lines = [summary]
    if report.n_scores_added:
        lines.append(f"{report.n_scores_added} scores that those did not have were added.")
    lines += [f"{n} rows dropped: {reason}." for reason, n in sorted(report.n_dropped.items())]
    if report.n_scores_left_out:
        lines.append(f"{report.n_scores_left_out} scores left out: they do not lie between 0 and 1.")
    if report.quarantine is not None:
        lines.append(
            f"{report.n_quarantined} rows could not be used; '{report.quarantine}' says why of each."
        )
    return "\n".join(lines)


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
