"""Show evaluation reports as tables for people; printing them is the caller's choice."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.baselines import BEST_PER_TASK, BEST_SINGLE
from fusion_integrations.evaluation.evaluation_report import (
    EvaluationReport,
    EvaluationRow,
    Support,
    Verdict,
)
from fusion_integrations.evaluation.level_report import FUSION_LEVELS, LevelReport, LevelRow
from fusion_integrations.evaluation.table_parts import add_caption_line, cost_text, make_table, task_table

__all__ = ["render_levels", "render_table", "reward_text", "verdict_lines"]

_NUMBER_COLUMNS = (  # broken by hand so that the table fits 80 columns
    "performance",
    "USD per\n1000\nqueries",
    "reward",
    "reward gain",
    "performance gain",
    "left the\ndefault",
)
_SUPPORT_COLUMNS = ("by logged\nanswers\nalone", "worth\nqueries")
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
        add_caption_line(tables[-1], f"Warning: {warning}")
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


def reward_text(report: EvaluationReport, policy: str) -> str:
    """Write what a policy's reward is made of.

    Args:
        report: The evaluation.
        policy: Name of the policy.

    Returns:
        A formula in words.
    """
    weight, scale = report.policies[policy].cost_weight, report.cost_scale_usd[policy]
    if scale is None:
        return "performance"
    return f"{1 - weight:g} x performance - {weight:g} x cost / {scale:.3g} USD"


def render_levels(report: LevelReport) -> list[Table]:
    """Lay a comparison of the fusion levels out as tables.

    Args:
        report: The comparison.

    Returns:
        The levels, the verdicts in the caption; what each level changes where all else is equal; and, if the
        logs name tasks, the performance by task. The last table's caption holds the report's warnings, if
        there are any.
    """
    tables = [_level_table(report), _effect_table(report)]
    if report.tasks:
        tables.append(_level_task_table(report))
    for warning in report.warnings:
        add_caption_line(tables[-1], f"Warning: {warning}")
    return tables


def _level_table(report: LevelReport) -> Table:
    columns = {"performance": [f"{row.performance:.3f}" for row in report.rows]}
    task_means = ["" if row.task_mean is None else f"{row.task_mean:.3f}" for row in report.rows]
    if report.tasks and task_means != columns["performance"]:
        columns["mean of\ntasks"] = task_means
    columns["USD per\n1000\ncalls"] = [cost_text(row.cost_usd) for row in report.rows]
    if report.cost_scale_usd is not None:
        columns["reward"] = [f"{row.reward:.3f}" for row in report.rows]
        columns["reward gain"] = [_gain_text(report, row, str(row.reward_gain)) for row in report.rows]
    columns["performance gain"] = [_gain_text(report, row, str(row.performance_gain)) for row in report.rows]
    title = f"Fusion levels on {report.n_queries} held-out queries"
    table = _level_rows_table(report, title, columns)
    add_caption_line(
        table,
        f"Gains are over '{report.reference}', the best zero-shot candidate on {report.n_reference_queries} "
        f"training queries, with {report.coverage:.0%} intervals. {BEST_SINGLE} and {BEST_PER_TASK} were "
        f"chosen on the {report.n_train_queries} training queries that every candidate answered.",
    )
    for line in report.verdicts:
        add_caption_line(table, line)
    return table


def _gain_text(report: LevelReport, row: LevelRow, gain: str) -> str:
    return "" if (row.level, row.name) == ("zero-shot", report.reference) else gain


def _effect_table(report: LevelReport) -> Table:
    table = make_table(
        "What each level changes",
        text_columns=("level", "setting", "against"),
        number_columns=("performance gain", "change in\nUSD per\n1000 calls"),
    )
    for effect in report.effects:
        change = effect.cost_change_usd
        cost = "unknown" if change is None else f"{'-' if change < 0 else '+'}{cost_text(abs(change))}"
        texts = (effect.level, effect.name, effect.against, str(effect.performance_gain), cost)
        table.add_row(*map(Text, texts))
    return table


def _level_task_table(report: LevelReport) -> Table:
    columns = {
        f"{task}\n({n_queries})": [f"{row.per_task[task]:.3f}" for row in report.rows]
        for task, n_queries in report.tasks.items()
    }
    return _level_rows_table(report, "Performance by task (number of queries)", columns)


def _level_rows_table(report: LevelReport, title: str, columns: dict[str, list[str]]) -> Table:
    """Lay out one row a setting, the fusion levels apart from what they are measured against."""
    table = make_table(title, text_columns=("level", "setting"), number_columns=tuple(columns))
    for number, row in enumerate(report.rows):
        is_fused = row.level in FUSION_LEVELS
        following = report.rows[number + 1 : number + 2]
        table.add_row(
            *map(Text, (row.level, row.name, *(cells[number] for cells in columns.values()))),
            end_section=any((other.level in FUSION_LEVELS) != is_fused for other in following),
        )
    return table


def _policy_table(report: EvaluationReport, policy: str) -> Table:
    columns = _NUMBER_COLUMNS if report.estimation is None else (*_NUMBER_COLUMNS, *_SUPPORT_COLUMNS)
    table = make_table(
        f"{policy}: reward = {reward_text(report, policy)}",
        text_columns=("strategy",),
        number_columns=columns,
    )
    rows = [row for row in report.rows if row.policy == policy]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends_baselines = following is not None and following.is_router and not row.is_router
        table.add_row(*_cells(row), end_section=ends_baselines)
    add_caption_line(table, f"Gains are over {BEST_SINGLE}, with {report.level:.0%} intervals.")
    if report.estimation is not None:
        add_caption_line(
            table,
            "Numbers are doubly robust estimates. Beside them: the performance of what was logged and would "
            "be chosen, weighted, and how many queries that is worth.",
        )
    for line in verdict_lines(report, policy=policy):
        add_caption_line(table, line)
    return table


def _cells(row: EvaluationRow) -> list[Text]:
    is_reference = row.strategy == BEST_SINGLE
    return [
        Text(text)
        for text in (
            row.strategy,
            f"{row.performance:.3f}",
            cost_text(row.cost_usd),
            f"{row.reward:.3f}",
            "" if is_reference else str(row.reward_gain),
            "" if is_reference else str(row.performance_gain),
            "" if row.switch_share is None else f"{row.switch_share:.1%}",
            *([] if row.support is None else _support_cells(row.support)),
        )
    ]


def _support_cells(support: Support) -> tuple[str, str]:
    mean = support.weighted_performance
    return "none" if mean is None else f"{mean:.3f}", f"{support.effective_sample_size:.0f}"


def _task_table(report: EvaluationReport, policy: str) -> Table:
    performances = {row.strategy: row.per_task for row in report.rows if row.policy == policy}
    return task_table(f"{policy}: performance by task", report.tasks, performances)
