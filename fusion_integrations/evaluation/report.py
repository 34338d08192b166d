"""Show an evaluation report as tables for people; printing them is the caller's choice."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.baselines import BEST_SINGLE
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow, Verdict

__all__ = ["render_table", "verdict_lines"]

_WORDS: dict[Verdict, str] = {
    "better": "better than Best Single",
    "worse": "worse than Best Single",
    "not distinguishable": "not distinguishable from Best Single",
    "too few queries": "too few independent queries to compare with Best Single",
}


def render_table(report: EvaluationReport) -> list[Table]:
    """Lay an evaluation out as tables.

    Args:
        report: The evaluation.

    Returns:
        One table a policy, its verdicts in the caption; then, if the logs name tasks, one table of the
        performance by task. The last table's caption holds the report's warnings, if there are any.
    """
    tables = [_policy_table(report, policy) for policy in report.policies]
    if report.tasks:
        tables.append(_task_table(report))
    for warning in report.warnings:
        _add_caption_line(tables[-1], f"Warning: {warning}")
    return tables


def verdict_lines(report: EvaluationReport, *, policy: str) -> list[str]:
    """Say in words how each router compares with Best Single under one policy.

    Args:
        report: The evaluation.
        policy: Name of the policy.

    Returns:
        One line a router, in their order.
    """
    return [
        f"{row.strategy}: {_WORDS[report.verdict(row)]} in reward, {row.reward_gain} "
        f"({report.level:.0%} interval, {report.n_queries} queries)."
        for row in report.rows
        if row.policy == policy and row.is_router
    ]


def _policy_table(report: EvaluationReport, policy: str) -> Table:
    table = Table(title=Text(_policy_title(report, policy)))
    table.add_column("strategy")
    for heading in ("performance", "cost (USD per 1000 queries)", "reward"):
        table.add_column(heading, justify="right")
    table.add_column(f"reward vs {BEST_SINGLE} [{report.level:.0%} interval]", justify="right")
    table.add_column(f"performance vs {BEST_SINGLE} [{report.level:.0%} interval]", justify="right")
    table.add_column("left the default", justify="right")
    rows = [row for row in report.rows if row.policy == policy]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends_baselines = following is not None and following.is_router and not row.is_router
        table.add_row(*_cells(row), end_section=ends_baselines)
    for line in verdict_lines(report, policy=policy):
        _add_caption_line(table, line)
    return table


def _policy_title(report: EvaluationReport, policy: str) -> str:
    weight, scale = report.policies[policy].cost_weight, report.cost_scale_usd[policy]
    if scale is None:
        return f"{policy}: reward = performance"
    return f"{policy}: reward = {1 - weight:g} x performance - {weight:g} x cost / {scale:.3g} USD"


def _cells(row: EvaluationRow) -> list[Text]:
    is_reference = row.strategy == BEST_SINGLE
    return [
        Text(text)
        for text in (
            row.strategy,
            f"{row.performance:.3f}",
            "unknown" if row.cost_usd is None else f"{1000 * row.cost_usd:,.4f}",
            f"{row.reward:.3f}",
            "" if is_reference else str(row.reward_gain),
            "" if is_reference else str(row.performance_gain),
            "" if row.switch_share is None else f"{row.switch_share:.1%}",
        )
    ]


def _task_table(report: EvaluationReport) -> Table:
    table = Table(title=Text("performance by task"))
    table.add_column("policy")
    table.add_column("task")
    table.add_column("queries", justify="right")
    strategies = list(dict.fromkeys(row.strategy for row in report.rows))
    for strategy in strategies:
        table.add_column(Text(strategy), justify="right")
    for policy in report.policies:
        rows = [row for row in report.rows if row.policy == policy]
        for position, (task, n_queries) in enumerate(report.tasks.items(), start=1):
            cells = [policy, task, str(n_queries), *(f"{row.per_task[task]:.3f}" for row in rows)]
            table.add_row(*map(Text, cells), end_section=position == len(report.tasks))
    return table


def _add_caption_line(table: Table, line: str) -> None:
    text = table.caption if isinstance(table.caption, Text) else Text(justify="left")
    table.caption = text.append(f"\n{line}" if text.plain else line)
