"""`fusion demo`: from the shipped log to a routed answer in both frameworks, with models that really run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fusion_integrations.cli.output import JsonOption, print_json, verb

__all__ = ["demo"]

_N_SAMPLE = 6


@verb
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where to keep the trained router. Default: a folder that is removed.")
    ] = None,
    sample: Annotated[
        int, typer.Option(help="Queries to collect again live, with every candidate.", min=1, max=200)
    ] = _N_SAMPLE,
    as_json: JsonOption = False,
) -> None:
    """Train a router on the shipped log of real answers, measure it, and use it in both frameworks."""
    console = Console(stderr=as_json)
    with tempfile.TemporaryDirectory() as scratch:
        result = _run(console, folder=Path(scratch), out=out or Path(scratch) / "router", n_sample=sample)
    if as_json:
        print_json(result)


def _run(console: Console, *, folder: Path, out: Path, n_sample: int) -> dict[str, Any]:
    from fusion_integrations.demo.candidates import DEMO_PRICES
    from fusion_integrations.demo.demo_log import demo_log_origin, load_demo_logs, split_demo_logs
    from fusion_integrations.demo.walkthrough import FRAMEWORKS, DemoStage, show_framework
    from fusion_integrations.embedders import load_embedder
    from fusion_integrations.pipeline import FusionPipeline
    from fusion_integrations.query_level.policy import BALANCE
    from fusion_integrations.query_level.router_model import RouterModel

    origin = demo_log_origin()
    logs = load_demo_logs()
    train_logs, held_out = split_demo_logs(logs)
    _title(console, "1. The log: who answered what, at what cost, how well")
    console.print(
        f"{logs.height} real answers of {logs['candidate_id'].n_unique()} candidates to "
        f"{logs['query_id'].n_unique()} queries; {held_out['query_id'].n_unique()} of them are held out.\n"
        f"Collected with [bold]{escape(origin['command'])}[/bold]\nPrices are nominal: the models run here."
    )
    clients = _load_clients(console)
    _title(console, f"2. Collecting {n_sample} queries again, live")
    comparison = _collect_again(console, logs, clients, n_sample=n_sample, store=folder / "live.sqlite")
    _title(console, "3. Training: one router a head")
    embedder = load_embedder("minilm")
    routers = _train(console, train_logs, embedder)
    _title(console, f"4. The held-out queries, replayed from the log ({escape(str(embedder.identity))})")
    report = _evaluate(console, routers, held_out=held_out, train_logs=train_logs)
    # The default head is saved, not the one that did best above: that choice would have seen the test.
    routers["cluster"].save_pretrained(out)
    router = RouterModel.from_pretrained(out, embedder=embedder)
    console.print(f"Saved and loaded the router: {escape(str(out))}, digest {router.basis.artifact[:16]}")
    stage = DemoStage(
        pipeline=FusionPipeline(router, policy=BALANCE, prices=DEMO_PRICES),
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
        "evaluation": report,
        "shown": shown,
    }


def _load_clients(console: Console) -> dict[str, Any]:
    from fusion_integrations.demo.models import DEMO_CLIENTS

    clients = {}
    for model, load in DEMO_CLIENTS.items():
        with console.status(f"Loading {model} (the first time on a machine its weights are converted)"):
            clients[model] = load()
    return clients


def _collect_again(
    console: Console, logs: Any, clients: Mapping[str, Any], *, n_sample: int, store: Path
) -> Any:
    from fusion_integrations.demo.walkthrough import compare_sample
    from fusion_integrations.logs.store import LogStore

    with _progress(console) as progress, LogStore.open(store) as live:
        bars: dict[str, Any] = {}

        def show(candidate_id: str, n_done: int, n_total: int) -> None:
            if candidate_id not in bars:
                bars[candidate_id] = progress.add_task(candidate_id, total=n_total)
            progress.update(bars[candidate_id], completed=n_done)

        comparison = compare_sample(logs, clients, n_queries=n_sample, store=live, on_progress=show)
    console.print(
        f"{comparison.n_identical} of {comparison.n_answers} live answers equal the shipped ones, "
        "character by character."
    )
    for candidate_id, live_mean in comparison.live_performance.items():
        shipped_mean = comparison.shipped_performance[candidate_id]
        console.print(f"  {candidate_id}: performance {live_mean:.2f} live, {shipped_mean:.2f} shipped")
    return comparison


def _train(console: Console, train_logs: Any, embedder: Any) -> dict[str, Any]:
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
    console: Console, routers: Mapping[str, Any], *, held_out: Any, train_logs: Any
) -> dict[str, Any]:
    from fusion_integrations.demo.candidates import DEMO_PRICES
    from fusion_integrations.evaluation.evaluator import evaluate_routers
    from fusion_integrations.evaluation.report import render_table

    report = evaluate_routers(routers, logs=held_out, train_logs=train_logs, prices=DEMO_PRICES)
    for table in render_table(report):
        console.print(table)
    return report.to_json()


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield progress


def _title(console: Console, text: str) -> None:
    console.rule(f"[bold]{text}[/bold]", align="left")


def _say(console: Console, line: str) -> str:
    console.print(escape(line), soft_wrap=True)
    return line
