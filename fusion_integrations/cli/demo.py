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

    from fusion_integrations.collection.collector import CollectionProgress
    from fusion_integrations.demo.walkthrough import SampleComparison
    from fusion_integrations.evaluation.evaluation_report import EvaluationReport
    from fusion_integrations.evaluation.level_report import LevelReport
    from fusion_integrations.protocols import ChatClient, Embedder
    from fusion_integrations.query_level.router_model import RouterModel
    from fusion_integrations.thought_level.template_prompt import ThoughtPrompter

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
    """All three fusion levels on a log of real answers, used in LangChain and LlamaIndex, and measured."""
    with terminal(as_json=as_json, debug=debug) as place, tempfile.TemporaryDirectory() as scratch:
        # What is shown appears while the models work, so it is printed at once and not through `place`.
        console = Console(stderr=as_json, markup=False, emoji=False, highlight=False)
        folder = Path(scratch)
        result = _run(console, folder=folder, out=out or folder / "router", n_sample=sample)
        place.show(result)


def _run(console: Console, *, folder: Path, out: Path, n_sample: int) -> dict[str, Any]:
    from fusion_integrations.demo.candidates import DEMO_PRICES
    from fusion_integrations.demo.demo_log import demo_log_origin, load_demo_logs, split_demo_logs
    from fusion_integrations.demo.thoughts import demo_prompter
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
        "Prices are nominal: the models run here. Collected with:"
    )
    for command in origin["commands"]:
        console.print(f"  {command}", soft_wrap=True)
    embedder = load_embedder("minilm")
    clients = _load_clients(console)
    _title(console, "2. Levels 2 and 3: what half of the training queries taught")
    thoughts = demo_prompter(embedder, chroma_path=folder / "chroma")
    made = _describe_levels(console, clients, n_indexed=len(thoughts.store))
    _title(console, f"3. Collecting {n_sample} queries again, live")
    comparison = _collect_again(
        console, logs, clients, thoughts, n_sample=n_sample, store=folder / "live.sqlite"
    )
    _title(console, "4. Level 1: one router a head, over the LLMs as they come and over all levels")
    base_routers, routers = _train(console, train_logs, embedder)
    # The default head is saved, not the one that does best below: that choice would have seen the test.
    routers["cluster"].save_pretrained(out)
    router = RouterModel.from_pretrained(out, embedder=embedder)
    console.print(f"Saved and loaded the router: {out}, digest {router.basis.artifact[:16]}")
    stage = DemoStage(
        pipeline=FusionPipeline(router, prices=DEMO_PRICES, thoughts=thoughts),
        clients=clients,
        embedder=embedder,
        folder=folder,
    )
    shown = {}
    for number, framework in enumerate(FRAMEWORKS, start=5):
        _title(console, f"{number}. The same artifacts in {framework}")
        shown[framework] = [_say(console, line) for line in show_framework(framework, stage)]
    _title(console, f"7. Level 1 on the held-out queries, replayed from the log ({embedder.identity})")
    report = _evaluate(console, base_routers, held_out=held_out, train_logs=train_logs)
    _title(console, "8. Which level is worth it?")
    levels = _compare(console, base_routers["cluster"], router, held_out=held_out, train_logs=train_logs)
    return {
        "log": {"answers": logs.height, "origin": origin},
        "levels": made,
        "sample": asdict(comparison),
        "shown": shown,
        "evaluation": report.to_json(),
        "comparison": levels.to_json(),
    }


def _describe_levels(
    console: Console, clients: Mapping[str, ChatClient], *, n_indexed: int
) -> dict[str, Any]:
    """Say what the shipped library and student were made of, from their manifests."""
    from fusion_integrations.demo.models import STUDENT
    from fusion_integrations.demo.thoughts import demo_library
    from fusion_integrations.model_level.student_model import StudentModel

    templates, student = demo_library().metrics, clients[STUDENT]
    dropped = ", ".join(f"{count} {reason}" for reason, count in templates["n_dropped"].items()) or "none"
    leaked = templates["n_attempts_rejected"].get("leaked", 0)
    console.print(
        f"Thought templates: {templates['n_solved']} of {templates['n_queries']} queries solved; "
        f"{templates['n_kept']} templates kept, dropped: {dropped}; {leaked} attempts told the answer. "
        f"Chroma holds {n_indexed}."
    )
    if not isinstance(student, StudentModel):
        raise TypeError(f"The demo's student must be a StudentModel, not {type(student).__name__}.")
    lessons = student.metrics
    by_teacher = ", ".join(f"{count} of {name}" for name, count in lessons["n_pairs_by_teacher"].items())
    console.print(f"Student: taught {lessons['n_pairs']} answers ({by_teacher}); {student.revision}")
    return {"templates": dict(templates), "student": dict(lessons)}


def _load_clients(console: Console) -> dict[str, ChatClient]:
    from fusion_integrations.demo.models import DEMO_CLIENTS

    clients: dict[str, ChatClient] = {}
    for model, load in DEMO_CLIENTS.items():
        with console.status(f"Loading {model} (the first time on a machine its weights are converted)"):
            clients[model] = load(2)
    return clients


def _collect_again(
    console: Console,
    logs: pl.DataFrame,
    clients: Mapping[str, ChatClient],
    thoughts: ThoughtPrompter,
    *,
    n_sample: int,
    store: Path,
) -> SampleComparison:
    from fusion_integrations.demo.walkthrough import compare_queries, draw_queries
    from fusion_integrations.logs.store import LogStore

    with _progress(console) as progress, LogStore.open(store) as live:
        bars: dict[str, TaskID] = {}

        def show(news: CollectionProgress) -> None:
            if news.candidate_id not in bars:
                bars[news.candidate_id] = progress.add_task(news.candidate_id, total=news.n_total)
            progress.update(bars[news.candidate_id], completed=news.n_done)

        comparison = compare_queries(
            logs,
            clients,
            queries=draw_queries(n_sample),
            thoughts=thoughts,
            store=live,
            on_progress=show,
        )
    console.print(
        f"{comparison.n_identical} of {comparison.n_answers} live answers equal the shipped ones, "
        "character by character."
    )
    for candidate_id, live_mean in comparison.live_performance.items():
        shipped_mean = comparison.shipped_performance[candidate_id]
        console.print(f"  {candidate_id}: performance {live_mean:.2f} live, {shipped_mean:.2f} shipped")
    return comparison


def _train(
    console: Console, train_logs: pl.DataFrame, embedder: Embedder
) -> tuple[dict[str, RouterModel], dict[str, RouterModel]]:
    """Train the routers of the LLMs as they come, and those of all levels."""
    from fusion_integrations.demo.candidates import BASE_CANDIDATES, DEMO_CANDIDATES
    from fusion_integrations.demo.walkthrough import DEMO_HEADS, train_demo_routers

    with _progress(console) as progress:
        n_routers = 2 * len(DEMO_HEADS)
        bar = progress.add_task("routers", total=n_routers)
        started: list[str] = []

        def show(head: str) -> None:
            progress.update(bar, description=f"training {head}", completed=len(started))
            started.append(head)

        base, everything = (
            train_demo_routers(train_logs, embedder=embedder, candidates=candidates, on_progress=show)
            for candidates in (BASE_CANDIDATES, DEMO_CANDIDATES)
        )
        progress.update(bar, description="trained", completed=n_routers)
    return base, everything


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


def _compare(
    console: Console,
    query_router: RouterModel,
    all_router: RouterModel,
    *,
    held_out: pl.DataFrame,
    train_logs: pl.DataFrame,
) -> LevelReport:
    from fusion_integrations.demo.candidates import DEMO_PRICES, DEMO_STUDENTS
    from fusion_integrations.evaluation.level_comparison import compare_levels
    from fusion_integrations.evaluation.report import render_levels

    report = compare_levels(
        query_router=query_router,
        all_router=all_router,
        students=DEMO_STUDENTS,
        logs=held_out,
        train_logs=train_logs,
        prices=DEMO_PRICES,
    )
    for table in render_levels(report):
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
