"""Time a routing decision with and without its embedding, for every encoder, beside the quality each buys.

Everything that is compared is measured in one run, in turns, so that a busy machine slows all of it alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from encoder_quality import (
    Quality,
    complete_logs,
    fusionbench_file,
    fusionbench_logs,
    measure_quality,
)
from rich.console import Console
from rich.table import Table

from fusion_integrations._optional import require
from fusion_integrations.demo.demo_log import load_demo_logs
from fusion_integrations.embedders import (
    CachingEmbedder,
    MicroBatchingEmbedder,
    OnnxMiniLMEmbedder,
    load_embedder,
)
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer

__all__ = ["ENCODERS", "Latency", "Settings", "Speed", "main", "make_encoders", "measure_speed"]

# Torch first: it is what the others are compared with.
ENCODERS = ("minilm-torch", "minilm", "minilm-int8", "wordllama", "hash")
_PACKAGES = ("numpy", "onnxruntime", "torch", "sentence-transformers", "wordllama", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured.

    Attributes:
        threads: CPU threads of every model run and matrix product.
        n_candidates: Candidates of the router.
        n_queries: Queries routed one by one, and in one batch.
        n_rounds: Turns into which they are divided; concurrent and batch runs are repeated as often.
        n_callers: Concurrent callers.
        n_runs: Runs at a time of the micro-batching embedder: the cores it may use.
        n_quality_queries: Queries of the quality measurement.
        seed: Seed of every random choice.
    """

    threads: int = 1
    n_candidates: int = 40
    n_queries: int = 200
    n_rounds: int = 5
    n_callers: int = 8
    n_runs: int = 2
    n_quality_queries: int = 2000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a call.

    Attributes:
        p50_ms: Median.
        p99_ms: 99th percentile.
    """

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measurements of one encoder.

    Attributes:
        decision: `route()` with the embedding given.
        route: `route()` with the embedding computed.
        batch_per_s: Queries a second of `route_batch`.
        concurrent: One call each of `n_callers` callers at once.
        concurrent_per_s: Queries a second of all callers.
        micro_batched: As `concurrent`, with `MicroBatchingEmbedder`.
        micro_batched_per_s: Queries a second of all callers.
    """

    decision: Latency
    route: Latency
    batch_per_s: float
    concurrent: Latency
    concurrent_per_s: float
    micro_batched: Latency
    micro_batched_per_s: float


def make_encoders(names: Sequence[str], *, threads: int) -> dict[str, Embedder]:
    """Make embedders that use a given number of threads a call."""
    makers: dict[str, Callable[[], Embedder]] = {
        "minilm": lambda: OnnxMiniLMEmbedder(n_threads=threads),
        "minilm-int8": lambda: OnnxMiniLMEmbedder(n_threads=threads, precision="int8"),
    }
    if "minilm-torch" in names:
        require("torch", extra="embed-torch").set_num_threads(threads)
    return {name: makers[name]() if name in makers else load_embedder(name) for name in names}


def measure_speed(encoders: Mapping[str, Embedder], settings: Settings) -> dict[str, Speed]:
    """Time routers that differ in their encoder only.

    Args:
        encoders: Embedders by name.
        settings: How much to measure.

    Returns:
        Measurements by name.
    """
    texts, logs = _many_candidates(settings)
    subjects = {name: _Subject(encoder, logs, settings=settings) for name, encoder in encoders.items()}
    for turn in range(settings.n_rounds):
        for subject in subjects.values():
            subject.measure_turn(texts, turn)
    return {name: subject.speed() for name, subject in subjects.items()}


def _many_candidates(settings: Settings) -> tuple[list[str], pl.DataFrame]:
    """Return demo queries, and logs in which made-up candidates are good at different tasks."""
    rng = np.random.default_rng(settings.seed)
    queries = (
        load_demo_logs().unique("query_id").sort("query_id").sample(settings.n_queries, seed=settings.seed)
    )
    k = settings.n_candidates
    talent = {task: rng.random(k) for task in sorted(queries["task"].unique())}
    rows = [
        (query_id, text, task, f"candidate-{column:02}", float(rng.random() < talent[task][column]))
        for query_id, text, task in queries.select("query_id", "query_text", "task").iter_rows()
        for column in range(k)
    ]
    names = ["query_id", "query_text", "task", "candidate_id", "performance"]
    return queries["query_text"].to_list(), complete_logs(pl.DataFrame(rows, schema=names, orient="row"))


class _Subject:
    """A router with one encoder, and what was timed of it so far; all times in seconds."""

    def __init__(self, encoder: Embedder, logs: pl.DataFrame, *, settings: Settings) -> None:
        texts = logs["query_text"].unique(maintain_order=True).to_list()
        known = CachingEmbedder(encoder)
        known.embed(texts)
        arguments = RouterTrainingArguments(
            n_members=5, n_calibration_folds=2, n_threads=settings.threads, seed=settings.seed
        )
        self._settings = settings
        self._known = RouterTrainer(arguments, embedder=known).train(logs)
        self._router = _with_embedder(self._known, encoder)
        self._shared = _with_embedder(self._known, MicroBatchingEmbedder(encoder, n_runs=settings.n_runs))
        self._times: dict[str, list[float]] = {
            name: [] for name in ("decision", "route", "batch", "concurrent", "micro_batched")
        }
        self._rates: dict[str, list[float]] = {name: [] for name in ("concurrent", "micro_batched")}

    def measure_turn(self, texts: Sequence[str], turn: int) -> None:
        """Time a part of the queries one by one, and all of them in a batch and from several callers."""
        part = texts[turn :: self._settings.n_rounds]
        for name, router in (("decision", self._known), ("route", self._router)):
            router.route(texts[0])  # what a first call prepares is not part of a decision
            self._times[name] += [_seconds_to_route(router, text) for text in part]
        start = time.perf_counter()
        self._router.route_batch(texts)
        self._times["batch"].append(time.perf_counter() - start)
        for name, router in (("concurrent", self._router), ("micro_batched", self._shared)):
            with ThreadPoolExecutor(self._settings.n_callers) as pool:
                start = time.perf_counter()
                self._times[name] += pool.map(partial(_seconds_to_route, router), texts)
                self._rates[name].append(len(texts) / (time.perf_counter() - start))

    def speed(self) -> Speed:
        """Summarise what was timed."""
        latency = {name: _latency(times) for name, times in self._times.items() if name != "batch"}
        return Speed(
            **latency,
            batch_per_s=self._settings.n_queries / float(np.median(self._times["batch"])),
            concurrent_per_s=float(np.median(self._rates["concurrent"])),
            micro_batched_per_s=float(np.median(self._rates["micro_batched"])),
        )


def _with_embedder(router: RouterModel, embedder: Embedder) -> RouterModel:
    return RouterModel(weights=router.weights, basis=router.basis, embedder=embedder)


def _seconds_to_route(router: RouterModel, text: str) -> float:
    start = time.perf_counter()
    router.route(text)
    return time.perf_counter() - start


def _latency(times: Sequence[float]) -> Latency:
    p50, p99 = np.percentile(np.array(times) * 1e3, [50, 99])
    return Latency(p50_ms=float(p50), p99_ms=float(p99))


def _speed_table(speeds: Mapping[str, Speed], settings: Settings) -> Table:
    reference = next(iter(speeds.values()))
    table = Table(
        title=f"route() among {settings.n_candidates} candidates, {settings.threads} thread(s) a run"
    )
    for heading in (
        "encoder",
        "decision alone\np50 / p99 ms",
        "with embedding\np50 / p99 ms",
        "faster\n(p50)",
        "batch\nqueries/s",
        f"{settings.n_callers} callers\nqueries/s, p50 / p99 ms",
        "micro-batched\nqueries/s, p50 / p99 ms",
        "micro-batched\nthroughput",
    ):
        table.add_column(heading, justify="left" if heading == "encoder" else "right")
    for name, speed in speeds.items():
        table.add_row(
            name,
            f"{speed.decision.p50_ms:.2f} / {speed.decision.p99_ms:.2f}",
            f"{speed.route.p50_ms:.2f} / {speed.route.p99_ms:.2f}",
            f"{reference.route.p50_ms / speed.route.p50_ms:.1f} x",
            f"{speed.batch_per_s:,.0f}",
            f"{speed.concurrent_per_s:,.0f}, {speed.concurrent.p50_ms:.1f} / {speed.concurrent.p99_ms:.1f}",
            f"{speed.micro_batched_per_s:,.0f}, "
            f"{speed.micro_batched.p50_ms:.1f} / {speed.micro_batched.p99_ms:.1f}",
            f"{speed.micro_batched_per_s / speed.concurrent_per_s:.2f} x",
        )
    return table


def _quality_table(qualities: Mapping[str, Quality]) -> Table:
    first, n = next(iter(qualities)), next(iter(qualities.values())).n_queries
    table = Table(title=f"Router on {n} FusionBench queries, grouped 5-fold, 95% intervals")
    headings = (
        "encoder",
        "performance",
        "Best Single",
        "gain",
        "best prediction",
        f"against {first}",
        "texts/s",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "encoder" else "right")
    for name, quality in qualities.items():
        table.add_row(
            name,
            f"{quality.performance:.3f}",
            f"{quality.best_single:.3f}",
            str(quality.gain),
            f"{quality.predicted_best:.3f}",
            str(quality.over_reference),
            f"{quality.n_queries / quality.embedding_s:,.0f}",
        )
    return table


def _document(
    speeds: Mapping[str, Speed], qualities: Mapping[str, Quality], settings: Settings
) -> dict[str, Any]:
    reference = next(iter(speeds.values()))
    return {
        "command": f"python {' '.join(sys.argv)}",
        "settings": asdict(settings),
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _PACKAGES},
        },
        "speed": {name: asdict(speed) for name, speed in speeds.items()},
        "times_faster_than_first_p50": {
            name: reference.route.p50_ms / speed.route.p50_ms for name, speed in speeds.items()
        },
        "quality": {name: asdict(quality) for name, quality in qualities.items()},
    }


def main() -> None:
    """Measure, print two tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads a model run")
    parser.add_argument("--rounds", type=int, default=5, help="turns in which everything is measured")
    parser.add_argument("--quality-queries", type=int, default=2000, help="0 leaves the quality out")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    settings = Settings(threads=given.threads, n_rounds=given.rounds, n_quality_queries=given.quality_queries)
    console = Console()
    with require("threadpoolctl", extra="train").threadpool_limits(settings.threads):
        encoders = make_encoders(given.encoders, threads=settings.threads)
        speeds = measure_speed(encoders, settings)
        console.print(_speed_table(speeds, settings))
        qualities: dict[str, Quality] = {}
        file = fusionbench_file()
        if file is None:
            console.print("No fusionbench.parquet in $FUSION_DATA or ../shared/data: quality is left out.")
        elif settings.n_quality_queries:
            logs = fusionbench_logs(file, n_queries=settings.n_quality_queries, seed=settings.seed)
            arguments = RouterTrainingArguments(
                n_members=3, n_calibration_folds=2, n_threads=settings.threads, seed=settings.seed
            )
            qualities = measure_quality(encoders, logs, arguments=arguments)
            console.print(_quality_table(qualities))
    if given.json:
        text = json.dumps(_document(speeds, qualities, settings), indent=2)
        given.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
