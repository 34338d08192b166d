"""Show benchmarks as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.baselines import BEST_SINGLE
from fusion_integrations.evaluation.benchmark_report import BenchmarkReport, BenchmarkRow
from fusion_integrations.evaluation.table_parts import add_caption_line, cost_text, make_table

__all__ = ["render_benchmark"]

_VERDICTS = {"better": "better", "worse": "worse", "not distinguishable": "-", "too few queries": "too few"}


def render_benchmark(reports: Sequence[BenchmarkReport]) -> list[Table]:
    """Lay benchmarks out.

    Args:
        reports: One a log.

    Returns:
        One table for all logs, then one of the scenarios a log with costs, and one of the model pairs.
    """
    return [
        _summary(reports),
        *(_scenarios(report) for report in reports if len(report.policies) > 1),
        *(_pairs(report) for report in reports if any(row.head and row.head.pairs for row in report.rows)),
    ]


def _summary(reports: Sequence[BenchmarkReport]) -> Table:
    table = make_table(
        "Routers that learned from other queries",
        text_columns=("log", "strategy"),
        number_columns=(
            "perfor-\nmance",
            "gain over\nBest Single",
            "verdict",
            "left the\ndefault",
            "best prediction\nalways taken",
            "error of\nprediction",
            "seconds to\ntrain",
        ),
    )
    for report in reports:
        for number, row in enumerate(report.rows):
            name = f"{report.name}\n{report.n_queries} queries, {len(report.candidates)} LLMs"
            following = report.rows[number + 1 : number + 2]
            table.add_row(
                Text(name if number == 0 else ""),
                *map(Text, _summary_cells(report, row)),
                end_section=not following or (row.head is None) != (following[0].head is None),
            )
    for report in reports:
        add_caption_line(table, _facts(report))
    return table


def _summary_cells(report: BenchmarkReport, row: BenchmarkRow) -> list[str]:
    is_reference = row.strategy == BEST_SINGLE
    cells = [
        row.strategy,
        f"{row.first.performance:.3f}",
        "" if is_reference else str(row.first.gain),
        "" if is_reference else _VERDICTS[report.verdict(row)],
    ]
    if row.head is None:
        return [*cells, "", "", "", ""]
    return [
        *cells,
        f"{row.head.switch_share:.0%}",
        str(row.head.unbounded.gain),
        f"{row.head.mse:.4f}",
        f"{row.head.train_seconds:.0f}",
    ]


def _facts(report: BenchmarkReport) -> str:
    outcomes = "doubly robust estimates" if report.is_estimated else "looked up"
    return (
        f"{report.name}: {report.split}; routers learned from {report.answers} of the answers; outcomes are "
        f"{outcomes}; {report.n_left_out} queries left out; {report.level:.0%} intervals, paired by query."
    )


def _scenarios(report: BenchmarkReport) -> Table:
    names = list(report.policies)
    table = make_table(
        f"{report.name}: what performance costs",
        text_columns=("strategy",),
        number_columns=(
            *(f"{name}:\nreward" for name in names),
            *(f"{name}:\ngain" for name in names[1:]),
            "USD per\n1000 calls",
            "AIQ",
            "cost at quality\nof Best Single",
        ),
    )
    for row in report.rows:
        outcomes = list(row.scenarios.values())
        curve = row.head.cost_quality if row.head else None
        share = None if curve is None else curve.cost_at_best_single
        table.add_row(
            *map(
                Text,
                (
                    row.strategy,
                    *(f"{outcome.reward:.3f}" for outcome in outcomes),
                    *(str(outcome.gain) for outcome in outcomes[1:]),
                    cost_text(row.first.cost_usd),
                    "" if curve is None else f"{curve.aiq:.3f}",
                    "" if curve is None else "not reached" if share is None else f"{share:.0%}",
                ),
            )
        )
    weights = ", ".join(f"{name} {policy['cost_weight']:g}" for name, policy in report.policies.items())
    add_caption_line(
        table,
        f"Cost weights: {weights}. USD are those under the first. AIQ is the mean performance over budgets "
        "from the cheapest to the dearest candidate; the last column is read off the cost-quality curve.",
    )
    return table


def _pairs(report: BenchmarkReport) -> Table:
    heads = [row for row in report.rows if row.head and row.head.pairs]
    families = list(heads[0].head.pairs) if heads[0].head else []
    table = make_table(
        f"{report.name}: which queries need the stronger model",
        text_columns=("head",),
        number_columns=tuple(f"{family}:\nAPGR  CPT50  CPT80" for family in families),
    )
    for row in heads:
        pairs = row.head.pairs if row.head else {}
        table.add_row(
            Text(row.strategy),
            *(
                f"{pairs[name].apgr:.3f}  {pairs[name].cpt_50:.0%}  {pairs[name].cpt_80:.0%}"
                if name in pairs
                else ""
                for name in families
            ),
        )
    add_caption_line(
        table,
        "APGR: share of the gap between the models recovered, over all shares of calls to the stronger one; "
        "random routing has 0.5. CPT50: share of such calls that recovers half of the gap.",
    )
    return table
