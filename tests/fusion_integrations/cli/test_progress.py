from __future__ import annotations

import io

from rich.console import Console

from fusion_integrations.cli.progress import progress_bars


def test_progress_when_there_is_no_terminal_prints_a_line_a_call():
    console = Console(file=io.StringIO(), force_terminal=False, markup=False)
    with progress_bars(console) as show:
        show("[bold]a", 1, 2)
        show("[bold]a", 2, 2, "loss 0.5")
    assert console.file.getvalue() == "[bold]a: 1 of 2\n[bold]a: 2 of 2, loss 0.5\n"


def test_progress_when_there_is_a_terminal_draws_a_bar_a_name():
    console = Console(file=io.StringIO(), force_terminal=True, markup=False, width=120)
    with progress_bars(console) as show:
        show("[bold]a", 1, 2)
        show("[bold]a", 2, 2, "loss [0.5]")
        show("b", 0, 3)
    last = console.file.getvalue()
    assert "[bold]a" in last
    assert "2/2" in last
    assert "loss [0.5]" in last
    assert "0/3" in last
