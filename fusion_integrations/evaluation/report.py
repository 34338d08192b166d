"""Show an evaluation report as tables for people; printing them is the caller's choice."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.baselines import BEST_SINGLE
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow, Verdict

__all__ = ["render_table", "verdict_lines"]

_NUMBER_COLUMNS = (  # broken by hand so that the table fits 80 columns
    "performance",
    "USD per\n1000\nqueries",
    "reward",
    "reward gain",
    "performance gain",
    "left the\ndefault",
)
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
        One table a policy, its verdicts in the caption; then, if the logs name tasks, one table a policy of
        the performance by task. The last table's caption holds the report's warnings, if there are any.
    """
    tables = [_policy_table(report, policy) for policy in report.policies]
    if report.tasks:
        tables += [_task_table(report, policy) for policy in report.policies]
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
    table = _table(_policy_title(report, policy), text_columns=("strategy",), number_columns=_NUMBER_COLUMNS)
    rows = [row for row in report.rows if row.policy == policy]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends_baselines = following is not None and following.is_router and not row.is_router
        table.add_row(*_cells(row), end_section=ends_baselines)
    _add_caption_line(table, f"Gains are over {BEST_SINGLE}, with {report.level:.0%} intervals.")
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
            _cost_text(row.cost_usd),
            f"{row.reward:.3f}",
            "" if is_reference else str(row.reward_gain),
            "" if is_reference else str(row.performance_gain),
            "" if row.switch_share is None else f"{row.switch_share:.1%}",
        )
    ]


def _cost_text(cost_usd: float | None) -> str:
    if cost_usd is None:
        return "unknown"
    cost = 1000 * cost_usd
    return f"{cost:,.2f}" if cost >= 10 else f"{cost:.4f}"  # a small local model costs cents per 1000 queries


def _task_table(report: EvaluationReport, policy: str) -> Table:
    rows = [row for row in report.rows if row.policy == policy]
    table = _table(
        f"{policy}: performance by task",
        text_columns=("task",),
        number_columns=("queries", *(row.strategy for row in rows)),
    )
    for task, n_queries in report.tasks.items():
        table.add_row(Text(task), str(n_queries), *(f"{row.per_task[task]:.3f}" for row in rows))
    return table


def _table(title: str, *, text_columns: tuple[str, ...], number_columns: tuple[str, ...]) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (*text_columns, *number_columns):
        table.add_column(
            Text(heading),
            justify="right" if heading in number_columns else "left",
            overflow="fold",  # a narrow terminal must not cut anything off
        )
    return table


def _add_caption_line(table: Table, line: str) -> None:
    text = table.caption if isinstance(table.caption, Text) else Text(justify="left")
    table.caption = text.append(f"\n{line}" if text.plain else line)
