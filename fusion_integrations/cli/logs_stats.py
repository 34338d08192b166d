"""`fusion logs stats`: what a log store or an exported log holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal, usd_per_1000

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

__all__ = ["stats"]

_SCORES = ("performance", "judge_score", "feedback")


def stats(
    logs: Annotated[
        str,
        typer.Argument(help="Log store (file or URL), exported .parquet file, or demo for the demo's log."),
    ],
    *,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Count logs and average their scores."""
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.cli.inputs import read_logs
        from fusion_integrations.logs.location import store_label

        frame = read_logs(logs, demo_part="all")
        totals, candidates = _totals(frame), _by_candidate(frame)
        cost = f"{totals['cost_usd']:.6f} USD"
        if totals["n_unknown_cost"]:
            cost += f" and {totals['n_unknown_cost']} answers of unknown cost"
        text = (
            f"{totals['n_records']} records: {totals['n_queries']} queries, {totals['n_tasks']} named tasks, "
            f"{totals['n_candidates']} candidates; {totals['n_scored']} scored, {totals['n_failed']} failed. "
            f"Cost: {cost}."
        )
        texts = [text, _table(candidates)] if candidates else [text]
        place.show({"logs": store_label(logs), **totals, "candidates": candidates}, *texts)


def _totals(frame: pl.DataFrame) -> dict[str, Any]:
    import polars as pl

    is_answer = pl.col("error").is_null()
    is_scored = pl.any_horizontal(pl.col(name).is_not_null() for name in _SCORES)
    return frame.select(
        n_records=pl.len(),
        n_queries=pl.col("query_id").n_unique(),
        n_candidates=pl.col("candidate_id").n_unique(),
        n_tasks=pl.col("task").drop_nulls().n_unique(),
        n_scored=(is_answer & is_scored).sum(),
        n_failed=pl.col("error").count(),
        cost_usd=pl.col("cost_usd").sum(),
        n_unknown_cost=(is_answer & pl.col("cost_usd").is_null()).sum(),
    ).row(0, named=True)


def _by_candidate(frame: pl.DataFrame) -> list[dict[str, Any]]:
    import polars as pl

    answered = pl.col("error").is_null()
    rows = frame.group_by("candidate_id").agg(
        n_records=pl.len(),
        n_failed=pl.col("error").count(),
        **{f"n_{name}": pl.col(name).filter(answered).count() for name in _SCORES},
        **{f"mean_{name}": pl.col(name).filter(answered).mean() for name in _SCORES},
        mean_cost_usd=pl.col("cost_usd").mean(),
        mean_output_tokens=pl.col("output_tokens").mean(),
    )
    return rows.sort("candidate_id").to_dicts()


def _table(candidates: list[dict[str, Any]]) -> Table:
    used = [name for name in _SCORES if any(row[f"n_{name}"] for row in candidates)]
    table = plain_table(
        "Means of the answers that have a score; how many in parentheses",
        text_columns=("candidate",),
        number_columns=(
            "records",
            "failed",
            *(name.replace("_", " ") for name in used),
            "USD per 1000 calls",
        ),
    )
    for row in candidates:
        scores = (
            f"{row[f'mean_{name}']:.3f} ({row[f'n_{name}']})" if row[f"n_{name}"] else "none" for name in used
        )
        table.add_row(
            row["candidate_id"],
            str(row["n_records"]),
            str(row["n_failed"]),
            *scores,
            usd_per_1000(row["mean_cost_usd"]),
        )
    return table
