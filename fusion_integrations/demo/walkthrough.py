"""The demo's work, step by step and without printing: what `fusion demo` shows and the tests run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import polars as pl

from fusion_integrations.collection.collector import LogCollector, ProgressCallback
from fusion_integrations.demo.candidates import DEMO_CANDIDATES, DEMO_OPTIONS, DEMO_PRICES
from fusion_integrations.demo.demo_log import DEMO_COLLECTION
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.errors import MissingDependencyError
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.protocols import ChatClient, Embedder
from fusion_integrations.query_level.heads import head_config
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, Query

__all__ = [
    "FRAMEWORKS",
    "DemoStage",
    "SampleComparison",
    "compare_queries",
    "draw_queries",
    "show_framework",
    "train_demo_routers",
]

# What the demo shows. The adapters register how as entry points, since the core imports no framework.
FRAMEWORKS = ("langchain", "llamaindex")
# The heads the demo shows beside each other; training every one would take minutes.
DEMO_HEADS = ("cluster", "xgboost")

_ENTRY_POINTS = "fusion_integrations.demo"


@dataclass(frozen=True, kw_only=True)
class DemoStage:
    """What an adapter is handed to show itself.

    Attributes:
        pipeline: Routes among the demo's LLMs; loaded from the saved artifact.
        clients: The running LLMs, by `Candidate.model`.
        embedder: The router's embedder.
        folder: A scratch folder.
    """

    pipeline: FusionPipeline
    clients: Mapping[str, ChatClient]
    embedder: Embedder
    folder: Path


@dataclass(frozen=True, kw_only=True)
class SampleComparison:
    """A live collection of a few queries beside the shipped log.

    Attributes:
        n_answers: Answers collected.
        n_identical: How many equal the shipped ones, character by character.
        live_performance: Mean performance now, by candidate.
        shipped_performance: Mean performance of the same rows in the shipped log, by candidate.
    """

    n_answers: int
    n_identical: int
    live_performance: Mapping[str, float]
    shipped_performance: Mapping[str, float]


def draw_queries(n_queries: int, *, seed: int = 0) -> list[Query]:
    """Draw demo queries that every candidate was asked, at random and without repeats."""
    tasks = generate_tasks()
    queries = tasks.routing + tasks.test
    chosen = np.random.default_rng(seed).choice(len(queries), size=n_queries, replace=False)
    return [queries[i] for i in sorted(chosen)]


def compare_queries(
    shipped: pl.DataFrame,
    clients: Mapping[str, ChatClient],
    *,
    queries: Sequence[Query],
    thoughts: ThoughtPrompter,
    store: LogStore,
    on_progress: ProgressCallback | None = None,
) -> SampleComparison:
    """Collect some demo queries again, live, and compare the answers with the shipped ones.

    Args:
        shipped: The shipped log.
        clients: The running LLMs, by `Candidate.model`.
        queries: What to ask, as `draw_queries` gives them.
        thoughts: The guidance of the shipped log.
        store: Where the live answers go.
        on_progress: See `LogCollector`.

    Returns:
        The comparison. Rounding differs between processors, so a few answers may differ.
    """
    collector = LogCollector(
        clients,
        candidates=DEMO_CANDIDATES,
        store=store,
        collection=DEMO_COLLECTION,
        prices=DEMO_PRICES,
        options=DEMO_OPTIONS,
        thoughts=thoughts,
        on_progress=on_progress,
    )
    collector.collect(queries)
    columns = ("record_id", "candidate_id", "response", "performance")
    both = store.to_frame().select(columns).join(shipped.select(columns), on="record_id", suffix="_shipped")
    means = both.group_by("candidate_id", maintain_order=True).agg(
        pl.col("performance", "performance_shipped").mean()
    )
    return SampleComparison(
        n_answers=both.height,
        n_identical=int((both["response"] == both["response_shipped"]).sum()),
        live_performance=dict(zip(means["candidate_id"], means["performance"], strict=True)),
        shipped_performance=dict(zip(means["candidate_id"], means["performance_shipped"], strict=True)),
    )


def train_demo_routers(
    train_logs: pl.DataFrame,
    *,
    embedder: Embedder,
    candidates: Sequence[Candidate] = DEMO_CANDIDATES,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, RouterModel]:
    """Train one router a head on the demo's training logs.

    Args:
        train_logs: Training rows of the demo log.
        embedder: The routers' embedder.
        candidates: Who may be chosen.
        on_progress: Told the name of each head before it is trained.

    Returns:
        The routers by head name.
    """
    routers = {}
    for name in DEMO_HEADS:
        if on_progress is not None:
            on_progress(name)
        arguments = RouterTrainingArguments(head=head_config(name))
        trainer = RouterTrainer(arguments, embedder=embedder)
        routers[name] = trainer.train(train_logs, candidates=candidates, prices=DEMO_PRICES)
    return routers


def show_framework(name: str, stage: DemoStage) -> Iterator[str]:
    """Let a framework's adapter show the trained router at work.

    Args:
        name: One of `FRAMEWORKS`.
        stage: What it works with.

    Yields:
        Lines for people, each as soon as it is known.

    Raises:
        MissingDependencyError: If the adapter is not installed.
    """
    found = list(entry_points(group=_ENTRY_POINTS, name=name))
    if not found:
        message = f"The {name} adapter is not installed. Run: pip install 'fusion-integrations[{name}]'"
        raise MissingDependencyError(message)
    yield from found[0].load()(stage)
