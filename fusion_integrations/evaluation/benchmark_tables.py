"""Show benchmarks as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.baselines import BEST_SINGLE
from fusion_integrations.evaluation.benchmark_report import BenchmarkReport
from fusion_integrations.evaluation.detail_tables import (
    COST_QUALITY_CAPTION,
    cost_quality_cells,
    pairs_table,
)
from fusion_integrations.evaluation.reliability import calibration_error
from fusion_integrations.evaluation.table_parts import add_caption_line, cost_text, make_table, task_table

__all__ = ["render_benchmark"]

_MOST_TASKS = 20  # a longer table is for the page

_VERDICTS = {"better": "better", "worse": "worse", "not distinguishable": "-", "too few queries": "too few"}


def render_benchmark(reports: Sequence[BenchmarkReport]) -> list[Table]:
    """Lay benchmarks out.

    Args:
        reports: One a log.

    Returns:
        One table of all logs, one of the heads behind it, then one of the scenarios a log with costs, one of
        the tasks a log of up to 20, and one of the model pairs a log of two models.
    """
    return [
        _summary(reports),
        _heads(reports),
        *(_scenarios(report) for report in reports if len(report.policies) > 1),
        *(_tasks(report) for report in reports if 1 < len(report.tasks) <= _MOST_TASKS),
        *(_pairs(report) for report in reports if any(row.head and row.head.pairs for row in report.rows)),
    ]


def _summary(reports: Sequence[BenchmarkReport]) -> Table:
    table = make_table(
        "Routers that learned from other queries",
        text_columns=("strategy",),
        number_columns=("performance", "gain over Best Single", "verdict", "left the\ndefault"),
    )
    for report in reports:
        table.add_row(
            Text(f"{report.name}: {report.n_queries} queries, {len(report.candidates)} LLMs", "bold")
        )
        for number, row in enumerate(report.rows):
            following = report.rows[number + 1 : number + 2]
            is_reference = row.strategy == BEST_SINGLE
            table.add_row(
                Text(f"  {row.strategy}"),
                f"{row.first.performance:.3f}",
                "" if is_reference else Text(str(row.first.gain)),
                "" if is_reference else _VERDICTS[report.verdict(row)],
                "" if row.head is None else f"{row.head.switch_share:.0%}",
                end_section=not following or (row.head is None) != (following[0].head is None),
            )
    for report in reports:
        add_caption_line(table, _facts(report))
    return table


def _heads(reports: Sequence[BenchmarkReport]) -> Table:
    table = make_table(
        "The heads behind them",
        text_columns=("head",),
        number_columns=(
            "gain without margin",
            "squared\nerror",
            "calibration\nerror",
            "members",
            "seconds\nto train",
        ),
    )
    for report in reports:
        table.add_row(Text(report.name, "bold"))
        heads = [(row.strategy, row.head) for row in report.rows if row.head is not None]
        for number, (name, head) in enumerate(heads):
            table.add_row(
                Text(f"  {head.title(name)}"),
                Text(str(head.unbounded.gain)),
                f"{head.mse:.4f}",
                f"{calibration_error(head.reliability):.3f}",
                str(head.n_members),
                f"{head.train_seconds:.0f}",
                end_section=number == len(heads) - 1,
            )
    add_caption_line(
        table,
        "Without margin the best prediction is always taken. Errors are those of the predicted performance. "
        "Heads that are slow to train have 3 members instead of 5 here.",
    )
    return table


def _facts(report: BenchmarkReport) -> str:
    outcomes = "doubly robust estimates" if report.is_estimated else "looked up"
    return (
        f"{report.name}: {_what_counts(report)}{report.split}; routers learned from {report.answers} of the "
        f"answers; outcomes are {outcomes}; {report.n_left_out} queries left out; {report.level:.0%} "
        f"intervals, paired by query. {report.cost_remark}".rstrip()
    )


def _what_counts(report: BenchmarkReport) -> str:
    return "" if report.label == "performance" else f"performance is {report.label}; "


def _scenarios(report: BenchmarkReport) -> Table:
    """Lay the scenarios out one after the other, as the paper's Table 4 does side by side."""
    table = make_table(
        f"{report.name}: what performance costs",
        text_columns=("strategy",),
        number_columns=(
            "performance",
            "USD per\n1000 calls",
            "reward",
            "gain over Best Single",
            "AIQ",
            "cost at\nBest Single",
        ),
    )
    first = next(iter(report.policies))
    for name in report.policies:
        table.add_row(Text(name, "bold"))
        for row in report.rows:
            outcome = row.scenarios[name]
            # What a head offers at every cost weight is no matter of the scenario: said once.
            curve = row.head.cost_quality if row.head and name == first else None
            table.add_row(
                Text(f"  {row.strategy}"),
                f"{outcome.performance:.3f}",
                cost_text(outcome.cost_usd),
                f"{outcome.reward:.3f}",
                "" if row.strategy == BEST_SINGLE else Text(str(outcome.gain)),
                *cost_quality_cells(curve),
                end_section=row is report.rows[-1],
            )
    weights = ", ".join(f"{name} {policy['cost_weight']:g}" for name, policy in report.policies.items())
    add_caption_line(table, f"Cost weights: {weights}. {COST_QUALITY_CAPTION}")
    return table


def _tasks(report: BenchmarkReport) -> Table:
    heads = [row for row in report.rows if row.head is not None]
    best = max(heads, key=lambda row: row.first.performance)
    shown = [row for row in report.rows if row.head is None] + [best]
    performances = {row.strategy: row.per_task for row in shown}
    table = task_table(f"{report.name}: performance by task", report.tasks, performances)
    if len(heads) > 1:
        add_caption_line(table, f"Of the heads, {best.strategy}, which is the best over all.")
    return table


def _pairs(report: BenchmarkReport) -> Table:
    pairs = {row.strategy: row.head.pairs for row in report.rows if row.head and row.head.pairs}
    return pairs_table(f"{report.name}: which queries need the stronger model", pairs)
