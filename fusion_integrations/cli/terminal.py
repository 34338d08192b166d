"""What every verb shares: text for people or one JSON document, progress, and errors without a traceback."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from fusion_integrations.errors import FusionError

__all__ = ["DebugOption", "JsonOption", "Terminal", "noise_text", "plain_table", "terminal", "usd_per_1000"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class Terminal:
    """Where a verb prints: its result to stdout, everything else to stderr.

    Args:
        as_json: Whether the result is one JSON document instead of text for people.

    Attributes:
        progress: Console on stderr, for progress and remarks.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.progress = _literal_console(stderr=True)
        self._as_json = as_json
        self._stdout = sys.stdout

    def show(self, document: Mapping[str, object], *texts: RenderableType) -> None:
        """Print the result of a verb, once.

        Args:
            document: The result as JSON data, without NaN and infinity.
            *texts: The same for people: text, which is printed as it is, or Rich tables.
        """
        if self._as_json:
            # ASCII with escapes: valid whatever the encoding of the pipe.
            print(json.dumps(document, indent=2, allow_nan=False), file=self._stdout)
            return
        console = _literal_console()
        for position, text in enumerate(texts):
            if position:
                console.print()
            # Text wraps where the terminal does, so that a command in it can be copied.
            console.print(text, soft_wrap=isinstance(text, str))

    def fail(self, error: BaseException, message: str) -> None:
        """Say why the verb ends: to people on stderr, and to programs as the one JSON document."""
        if self._as_json:
            self.show({"error": {"type": type(error).__name__, "message": message}})
        self.progress.print(f"Error: {message}", soft_wrap=True)


@contextlib.contextmanager
def terminal(*, as_json: bool, debug: bool, if_interrupted: str = "Interrupted.") -> Iterator[Terminal]:
    """Run the body of a verb: a `FusionError` ends the program with exit code 1, Ctrl-C with 130.

    Args:
        as_json: Whether the result is one JSON document. Whatever others print to stdout meanwhile goes to
            stderr then.
        debug: Whether an error shows its traceback.
        if_interrupted: What to say after Ctrl-C.

    Yields:
        Where to print.

    Raises:
        FusionError: With `debug`, as the body raised it.
        typer.Exit: If the body failed.
    """
    place = Terminal(as_json=as_json)
    handler = _Remarks(place.progress)
    logger = logging.getLogger("fusion_integrations")
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield place
    except FusionError as error:
        place.fail(error, str(error))
        if debug:
            raise
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        place.fail(error, if_interrupted)
        raise typer.Exit(130) from error
    finally:
        logger.removeHandler(handler)


class _Remarks(logging.Handler):
    """Prints each warning of the library once: a verb may train on the same logs many times."""

    def __init__(self, console: Console) -> None:
        super().__init__(level=logging.WARNING)
        self._console = console
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            self._console.print(message, soft_wrap=True)


def plain_table(title: str, *, text_columns: Sequence[str], number_columns: Sequence[str] = ()) -> Table:
    """Make an empty table whose cells fold instead of being cut off."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in text_columns:
        table.add_column(heading, overflow="fold")
    for heading in number_columns:
        table.add_column(heading, overflow="fold", justify="right")
    return table


def usd_per_1000(cost_usd: float | None) -> str:
    """Write the cost of a call as that of a thousand."""
    return "unknown" if cost_usd is None else f"{1000 * cost_usd:.4f}"


def noise_text(noise: Mapping[str, Any]) -> str:
    """Say how much of a score repeated answers leave to predict, from a router's metric `label_noise`."""
    return (
        f"Of {noise['n_repeated']} pairs of query and candidate there are several answers: no router can "
        f"explain more than {noise['ceiling']:.0%} of the variance of their scores, the rest is luck."
    )


def _literal_console(*, stderr: bool = False) -> Console:
    """Make a console that prints brackets and colons in names as they are."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
