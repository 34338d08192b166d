"""The files that evaluations can leave: results, a page to look at, and the formats of other benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.errors import ArtifactWriteError

if TYPE_CHECKING:
    import polars as pl

    from fusion_integrations.evaluation.exports import RoutedReport

__all__ = [
    "HtmlOption",
    "LlmRouterBenchOption",
    "ReportFiles",
    "RouterArenaOption",
]

HtmlOption = Annotated[
    Path | None,
    typer.Option(help="Write a page with plots to this HTML file; it holds texts of queries."),
]
RouterArenaOption = Annotated[
    Path | None,
    typer.Option(
        help="Write RouterArena's config and prediction files to this folder; with texts of queries."
    ),
]
LlmRouterBenchOption = Annotated[
    Path | None,
    typer.Option(help="Write LLMRouterBench result files to this folder; with texts of queries."),
]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where to write what; None: not.

    Attributes:
        out: JSON file of results.
        html: The page.
        routerarena: Folder of RouterArena files.
        llmrouterbench: Folder of LLMRouterBench files.
    """

    out: Path | None
    html: Path | None
    routerarena: Path | None
    llmrouterbench: Path | None

    @property
    def n_shown(self) -> int | None:
        """How many queries reports have to hold: all for an export, some for a page."""
        return 200 if self.routerarena is None and self.llmrouterbench is None else None

    def check(self) -> None:
        """Find out before the training whether the files can be made."""
        if self.out is not None:
            _check_file(self.out)
        if self.html is not None:
            _check_page(self.html)

    def write(
        self,
        document: object,
        reports: Sequence[RoutedReport],
        frames: Sequence[pl.DataFrame],
        *,
        page: Callable[[], str],
    ) -> list[Path]:
        """Write the files.

        Args:
            document: The results as JSON data.
            reports: The benchmarks or evaluations.
            frames: The log that each of them measured on.
            page: Makes the page.

        Returns:
            What was written.
        """
        from fusion_integrations.evaluation import export_llmrouterbench, export_routerarena

        written = []
        if self.out is not None:
            written.append(_write_file(self.out, json.dumps(document, indent=1, allow_nan=False) + "\n"))
        if self.html is not None:
            written.append(_write_file(self.html, page()))
        for report, frame in zip(reports, frames, strict=True):
            if self.routerarena is not None:
                written += export_routerarena(report, frame, self.routerarena)
            if self.llmrouterbench is not None:
                written += export_llmrouterbench(report, frame, self.llmrouterbench, now=datetime.now(UTC))
        return written


def _check_page(file: Path) -> None:
    """Make sure that a page can be made before the work for it begins.

    Args:
        file: Where it is to go.

    Raises:
        ArtifactWriteError: If its folder is missing, or a folder has its name.
        MissingDependencyError: If Plotly is not installed.
    """
    from fusion_integrations._optional import require

    require("plotly.offline", extra="report")
    _check_file(file)


def _write_file(file: Path, text: str) -> Path:
    """Write a text.

    Args:
        file: Where.
        text: What; a character that UTF-8 cannot hold, from a broken file name, becomes its escape.

    Returns:
        The file.

    Raises:
        ArtifactWriteError: If it cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ArtifactWriteError(f"'{file}' could not be written: {error}.") from error
    return file


def _check_file(file: Path) -> None:
    if file.is_dir() or not file.parent.is_dir():
        raise ArtifactWriteError(f"'{file}' cannot be written: it is a folder, or its folder does not exist.")
