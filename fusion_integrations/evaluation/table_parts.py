"""Parts that the tables of evaluations and benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["add_caption_line", "cost_text", "make_table", "task_table"]


def cost_text(cost_usd: float | None) -> str:
    """Write the cost of a call as that of a thousand."""
    if cost_usd is None:
        return "unknown"
    cost = 1000 * cost_usd
    return f"{cost:,.2f}" if cost >= 10 else f"{cost:.4f}"  # a small local model costs cents per 1000 queries


def make_table(title: str, *, text_columns: tuple[str, ...], number_columns: tuple[str, ...]) -> Table:
    """Make an empty table that folds its cells instead of cutting them off."""
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (*text_columns, *number_columns):
        table.add_column(
            Text(heading),
            justify="right" if heading in number_columns else "left",
            overflow="fold",  # a narrow terminal must not cut anything off
        )
    return table


def task_table(
    title: str, tasks: Mapping[str, int], performances: Mapping[str, Mapping[str, float]]
) -> Table:
    """Lay out performance by task.

    Args:
        title: Of the table.
        tasks: Number of queries by task.
        performances: Performance by strategy and task.

    Returns:
        One row a task, one column a strategy.
    """
    table = make_table(title, text_columns=("task",), number_columns=("queries", *performances))
    for task, n_queries in tasks.items():
        table.add_row(Text(task), str(n_queries), *(f"{each[task]:.3f}" for each in performances.values()))
    return table


def add_caption_line(table: Table, line: str) -> None:
    """Add a line of text under a table."""
    text = table.caption if isinstance(table.caption, Text) else Text(justify="left")
    table.caption = text.append(f"\n{line}" if text.plain else line)
