"""`fusion benchmark router`: every head on every log of a folder, beside what needs no router."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import EmbedderName, HeadName, LabelOption, SplitName
from fusion_integrations.cli.report_files import (
    HtmlOption,
    LlmRouterBenchOption,
    ReportFiles,
    RouterArenaOption,
)
from fusion_integrations.cli.terminal import DebugOption, JsonOption, Terminal, terminal
from fusion_integrations.errors import (
    FusionError,
    InvalidPolicyError,
    LogSchemaError,
    NotEnoughLogsError,
    UnknownCandidateError,
)

if TYPE_CHECKING:
    import polars as pl

    from fusion_integrations.cli.inputs import DemoLogPart
    from fusion_integrations.cli.progress import ShowProgress
    from fusion_integrations.evaluation.benchmark_report import BenchmarkReport
    from fusion_integrations.evaluation.cross_validation import Answers

__all__ = ["benchmark_router"]


_DataOption = Annotated[
    str,
    typer.Option(
        help="Log store; folder of .parquet files, or one: exported logs, or tables of one row a query and "
        "LLM with the columns query_id, query, llm, performance, and any of task, cost, input_tokens, "
        "output_tokens, propensity, judge_score; or the word demo for the demo's log."
    ),
]
_TestOption = Annotated[
    str | None,
    typer.Option(
        help="Logs to measure on instead, as --data: each file by routers trained on those of --data that "
        "have LLMs in common with it.",
        show_default="other parts of the same file",
    ),
]
_HeadOption = Annotated[
    list[HeadName] | None,
    typer.Option(
        help="Head to measure; repeat for each. bert takes minutes a fold: only where named.",
        show_default="all but bert",
    ),
]
_AnswersOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Share of the training answers that routers see, or the word one for one a query; repeat.",
        show_default="1.0",
    ),
]


def benchmark_router(
    *,
    data: _DataOption,
    test: _TestOption = None,
    head: _HeadOption = None,
    split: Annotated[
        SplitName, typer.Option(help="How to keep training and measured queries of a file apart.")
    ] = "folds",
    answers: _AnswersOption = None,
    label: LabelOption = "performance",
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    embedder: Annotated[EmbedderName, typer.Option(help="What turns queries into vectors.")] = "minilm",
    out: Annotated[Path | None, typer.Option(help="Write the results to this JSON file too.")] = None,
    html: HtmlOption = None,
    export_routerarena: RouterArenaOption = None,
    export_llmrouterbench: LlmRouterBenchOption = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of training.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure routers on logs, each query by a router that has not seen it.

    They stand beside Random, Best Single, Best per Task and Oracle, with paired intervals. A log that cannot
    be measured on is named with the reason, and the others are measured.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.cli.progress import progress_bars
        from fusion_integrations.embedders import CachingEmbedder, load_embedder
        from fusion_integrations.evaluation import benchmark_routers
        from fusion_integrations.query_level.heads import HEAD_NAMES
        from fusion_integrations.query_level.labels import parse_label

        quick = [name for name in HEAD_NAMES if name != "bert"]
        files = ReportFiles(
            out=out, html=html, routerarena=export_routerarena, llmrouterbench=export_llmrouterbench
        )
        files.check()
        shares = [_share(text) for text in answers or ["1.0"]]
        heads, wanted = list(dict.fromkeys(head or quick)), parse_label(label)
        skipped: dict[str, FusionError] = {}
        pairs = _pairs(data, test, skipped)
        known = CachingEmbedder(load_embedder(embedder))
        measured: list[tuple[BenchmarkReport, pl.DataFrame]] = []
        with progress_bars(place.progress) as progress:
            for (name, frame, train), share in product(pairs, shares):
                title = name if len(shares) == 1 else f"{name}, answers {share}"
                with _named(title, skipped):
                    report = benchmark_routers(
                        title,
                        frame,
                        heads=heads,
                        embedder=known,
                        train=train,
                        protocol=split,
                        answers=share,
                        label=wanted,
                        n_folds=folds,
                        n_threads=threads,
                        seed=seed,
                        n_shown=files.n_shown,
                        on_head=_counter(progress, f"{name}, answers {share}", heads),
                    )
                    measured.append((report, frame))
        _tell(measured, skipped, place=place, files=files)


def _tell(
    measured: Sequence[tuple[BenchmarkReport, pl.DataFrame]],
    skipped: dict[str, FusionError],
    *,
    place: Terminal,
    files: ReportFiles,
) -> None:
    """Show what came out, and write it to the files asked for."""
    from fusion_integrations.evaluation import render_benchmark, render_page

    reports = [report for report, _ in measured]
    _refuse_nothing(reports, skipped)
    reasons = {title: str(error) for title, error in skipped.items()}
    document = {"reports": [report.to_json() for report in reports], "skipped": reasons}
    remarks = [f"Not measured: {_reason(title, error)}" for title, error in skipped.items()]
    # Shown first: a file that cannot be written must not take the result with it.
    place.show(document, *render_benchmark(reports), *remarks)
    page = partial(render_page, reports, remarks=remarks)
    files.write(document, reports, frames=[frame for _, frame in measured], page=page)


@contextmanager
def _named(title: str, skipped: dict[str, FusionError]) -> Iterator[None]:
    """Put the error of a log that cannot be measured on under its title, and go on."""
    try:
        yield
    except (LogSchemaError, NotEnoughLogsError, UnknownCandidateError) as error:
        skipped[title] = error


def _refuse_nothing(reports: Sequence[object], skipped: dict[str, FusionError]) -> None:
    """Let a run of which nothing came out fail, with the reason or all of them."""
    if reports:
        return
    if len(skipped) == 1:
        raise next(iter(skipped.values()))
    reasons = " ".join(_reason(title, error) for title, error in skipped.items())
    raise NotEnoughLogsError(f"None of the logs could be measured on. {reasons}")


def _reason(title: str, error: FusionError) -> str:
    return str(error) if f"'{title}'" in str(error) else f"{title}: {error}"


def _counter(progress: ShowProgress, name: str, heads: Sequence[str]) -> Callable[[str], None]:
    def show(head: str) -> None:
        progress(name, heads.index(head), len(heads), f"training {head}")

    return show


def _share(text: str) -> Answers:
    if text == "one":
        return "one"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise InvalidPolicyError(f"--answers must be a share above 0 and up to 1, or 'one', got '{text}'.")
    return share


def _logs(source: str, skipped: dict[str, FusionError], *, demo_part: DemoLogPart) -> dict[str, pl.DataFrame]:
    """Read a store, or the tables of a folder, by name; those that are none go to `skipped`."""
    from fusion_integrations.cli.inputs import DEMO, log_name, read_logs
    from fusion_integrations.evaluation import read_score_table, score_tables_in

    path = Path(source)
    if source == DEMO or "://" in source or (path.is_file() and path.suffix.lower() != ".parquet"):
        return {log_name(source): read_logs(source, demo_part=demo_part)}
    found = {}
    for path in score_tables_in(source):
        with _named(str(path), skipped):
            found[path.stem] = read_score_table(path)
    return found


def _pairs(
    data: str, test: str | None, skipped: dict[str, FusionError]
) -> list[tuple[str, pl.DataFrame, pl.DataFrame | None]]:
    """Read the logs to measure on, each with the logs to learn from, None for its own other parts."""
    import polars as pl

    logs = _logs(data, skipped, demo_part="all" if test is None else "train")
    if test is None:
        return [(name, frame, None) for name, frame in logs.items()]
    found: list[tuple[str, pl.DataFrame, pl.DataFrame | None]] = []
    for test_name, frame in _logs(test, skipped, demo_part="test").items():
        llms = set(frame["candidate_id"])
        related = [
            each.with_columns(query_id=pl.lit(f"{name}:") + pl.col("query_id"))
            for name, each in logs.items()
            if len(llms & set(each["candidate_id"])) >= 2
        ]
        if not related:
            message = (
                f"No file of {data} has two LLMs in common with '{test_name}', so there is nothing to learn "
                f"its routing from. It has {sorted(llms)}."
            )
            skipped[test_name] = NotEnoughLogsError(message)
            continue
        found.append((test_name, frame, pl.concat(related)))
    return found
