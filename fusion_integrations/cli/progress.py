"""Progress of long work on stderr: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["ShowProgress", "progress_bars"]


class ShowProgress(Protocol):
    """Moves the bar of a name, or prints its line."""

    def __call__(self, name: str, n_done: int, n_total: int, remark: str = "", /) -> None:
        """Show how many of how many are done, and a remark behind it."""
        ...


@contextlib.contextmanager
def progress_bars(console: Console) -> Iterator[ShowProgress]:
    """Show a bar a name on a terminal, elsewhere a line a call."""
    if not console.is_terminal:
        yield lambda name, n_done, n_total, remark="", /: console.print(
            f"{name}: {n_done} of {n_total}{remark and f', {remark}'}", soft_wrap=True
        )
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def show(name: str, n_done: int, n_total: int, remark: str = "", /) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=n_total, remark=remark)
            progress.update(bars[name], completed=n_done, remark=remark)

        yield show
