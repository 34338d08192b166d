"""`fusion demo`: from the shipped log to a routed answer in both frameworks, with models that really run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal

if TYPE_CHECKING:
    import polars as pl

    from fusion_integrations.demo.walkthrough import SampleComparison
    from fusion_integrations.evaluation.evaluation_report import EvaluationReport
    from fusion_integrations.protocols import ChatClient, Embedder
    from fusion_integrations.query_level.router_model import RouterModel

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where to keep the trained router. Default: it is removed.")
    ] = None,
    sample: Annotated[
        int, typer.Option(help="Queries to collect again, live, from every candidate.", min=1, max=200)
    ] = 6,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a router on a log of real answers, measure it, and use it in LangChain and LlamaIndex."""
    with terminal(as_json=as_json, debug=debug) as place, tempfile.TemporaryDirectory() as scratch:
        # What is shown appears while the models work, so it is printed at once and not through `place`.
        console = Console(stderr=as_json, markup=False, emoji=False, highlight=False)
        folder = Path(scratch)
        result = _run(console, folder=folder, out=out or folder / "router", n_sample=sample)
        place.show(result)


def _run(console: Console, *, folder: Path, out: Path, n_sample: int) -> dict[str, Any]:
    from fusion_integrations.demo.candidates import DEMO_PRICES
    from fusion_integrations.demo.demo_log import demo_log_origin, load_demo_logs, split_demo_logs
    from fusion_integrations.demo.walkthrough import FRAMEWORKS, DemoStage, show_framework
    from fusion_integrations.embedders import load_embedder
    from fusion_integrations.pipeline import FusionPipeline
    from fusion_integrations.query_level.router_model import RouterModel

    origin = demo_log_origin()
    logs = load_demo_logs()
    train_logs, held_out = split_demo_logs(logs)
    _title(console, "1. The log: who answered what, at what cost, how well")
    console.print(
        f"{logs.height} real answers of {logs['candidate_id'].n_unique()} candidates to "
        f"{logs['query_id'].n_unique()} queries; {held_out['query_id'].n_unique()} of them are held out.\n"
        f"Collected with {origin['command']}\nPrices are nominal: the models run here."
    )
    clients = _load_clients(console)
    _title(console, f"2. Collecting {n_sample} queries again, live")
    comparison = _collect_again(console, logs, clients, n_sample=n_sample, store=folder / "live.sqlite")
    _title(console, "3. Training: one router a head")
    embedder = load_embedder("minilm")
    routers = _train(console, train_logs, embedder)
    _title(console, f"4. The held-out queries, replayed from the log ({embedder.identity})")
    report = _evaluate(console, routers, held_out=held_out, train_logs=train_logs)
    # The default head is saved, not the one that did best above: that choice would have seen the test.
    routers["cluster"].save_pretrained(out)
    router = RouterModel.from_pretrained(out, embedder=embedder)
    console.print(f"Saved and loaded the router: {out}, digest {router.basis.artifact[:16]}")
    stage = DemoStage(
        pipeline=FusionPipeline(router, prices=DEMO_PRICES),
        clients=clients,
        embedder=embedder,
        folder=folder,
    )
    shown = {}
    for number, framework in enumerate(FRAMEWORKS, start=5):
        _title(console, f"{number}. The same artifact in {framework}")
        shown[framework] = [_say(console, line) for line in show_framework(framework, stage)]
    return {
        "log": {"answers": logs.height, "origin": origin},
        "sample": asdict(comparison),
        "evaluation": report.to_json(),
        "shown": shown,
    }


def _load_clients(console: Console) -> dict[str, ChatClient]:
    from fusion_integrations.demo.models import DEMO_CLIENTS

    clients: dict[str, ChatClient] = {}
    for model, load in DEMO_CLIENTS.items():
        with console.status(f"Loading {model} (the first time on a machine its weights are converted)"):
            clients[model] = load(2)
    return clients


def _collect_again(
    console: Console, logs: pl.DataFrame, clients: Mapping[str, ChatClient], *, n_sample: int, store: Path
) -> SampleComparison:
    from fusion_integrations.demo.walkthrough import compare_queries, draw_queries
    from fusion_integrations.logs.store import LogStore

    with _progress(console) as progress, LogStore.open(store) as live:
        bars: dict[str, TaskID] = {}

        def show(candidate_id: str, n_done: int, n_total: int) -> None:
            if candidate_id not in bars:
                bars[candidate_id] = progress.add_task(candidate_id, total=n_total)
            progress.update(bars[candidate_id], completed=n_done)

        comparison = compare_queries(
            logs, clients, queries=draw_queries(n_sample), store=live, on_progress=show
        )
    console.print(
        f"{comparison.n_identical} of {comparison.n_answers} live answers equal the shipped ones, "
        "character by character."
    )
    for candidate_id, live_mean in comparison.live_performance.items():
        shipped_mean = comparison.shipped_performance[candidate_id]
        console.print(f"  {candidate_id}: performance {live_mean:.2f} live, {shipped_mean:.2f} shipped")
    return comparison


def _train(console: Console, train_logs: pl.DataFrame, embedder: Embedder) -> dict[str, RouterModel]:
    from fusion_integrations.demo.walkthrough import train_demo_routers
    from fusion_integrations.query_level.heads import HEAD_CONFIGS

    with _progress(console) as progress:
        bar = progress.add_task("heads", total=len(HEAD_CONFIGS))
        started: list[str] = []

        def show(head: str) -> None:
            progress.update(bar, description=f"training {head}", completed=len(started))
            started.append(head)

        routers = train_demo_routers(train_logs, embedder=embedder, on_progress=show)
        progress.update(bar, description="trained", completed=len(HEAD_CONFIGS))
    return routers


def _evaluate(
    console: Console, routers: Mapping[str, RouterModel], *, held_out: pl.DataFrame, train_logs: pl.DataFrame
) -> EvaluationReport:
    from fusion_integrations.demo.candidates import DEMO_PRICES
    from fusion_integrations.evaluation.evaluator import evaluate_routers
    from fusion_integrations.evaluation.report import render_table

    report = evaluate_routers(routers, logs=held_out, train_logs=train_logs, prices=DEMO_PRICES)
    for table in render_table(report):
        console.print(table)
    return report


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield progress


def _title(console: Console, text: str) -> None:
    console.rule(text, align="left")


def _say(console: Console, line: str) -> str:
    console.print(line, soft_wrap=True)
    return line
