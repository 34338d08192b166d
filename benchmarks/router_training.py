"""Time and memory of router training as logs grow, on synthetic logs with their embeddings given.

    python benchmarks/router_training.py --json benchmarks/results/router_training.json

Each size runs in a process of its own, so that peak memory is that of one training. The queries fall into
twenty tasks in which candidates differ; texts are short, embeddings 384 numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.protocols import EmbedderIdentity, FloatArray
from fusion_integrations.query_level.heads import head_config
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_trainer import RouterTrainer

N_TASKS = 20
DIMENSIONS = 384
# (queries, candidates, answers a query)
SIZES = (
    (1_000, 10, 10),
    (10_000, 10, 10),
    (100_000, 10, 10),
    (1_000_000, 10, 1),
    (10_000, 40, 1),
    (10_000, 40, 40),
)
HEADS = ("cluster", "linear", "knn", "stack")


class GivenEmbedder:
    """Looks vectors up, as if a service had embedded the log: the text of query i ends in i.

    Args:
        centers: (n, 384) where the vector of each query lies but for noise.
    """

    def __init__(self, centers: FloatArray) -> None:
        self._centers = centers
        self._noise = 2 * np.random.default_rng(1).normal(size=(4096, DIMENSIONS)).astype(np.float32)

    @property
    def identity(self) -> EmbedderIdentity:
        """Made up."""
        return EmbedderIdentity(
            name="given", engine="table", precision="fp32", dimensions=DIMENSIONS, max_tokens=256
        )

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Give (n, 384) unit vectors; what is no query gets some vector."""
        rows = np.array([int(text.rsplit(" ", 1)[1]) if text[-1].isdigit() else 0 for text in texts], int)
        vectors = self._centers[rows] + self._noise[rows % len(self._noise)]
        unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def main() -> None:
    """Run every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--head", action="append", help="head to train; repeat for each; default: the quick ones"
    )
    parser.add_argument("--max-queries", type=int, help="leave larger sizes out")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a child process measures, as JSON
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    sizes = [size for size in SIZES if not arguments.max_queries or size[0] <= arguments.max_queries]
    rows = []
    for head in arguments.head or HEADS:
        for n_queries, n_candidates, n_answers in sizes:
            job = {
                "head": head,
                "n_queries": n_queries,
                "n_candidates": n_candidates,
                "n_answers": n_answers,
                "n_threads": arguments.threads,
            }
            rows.append(run_alone(job))
            Console(stderr=True).print(rows[-1], highlight=False)
    show(rows)
    if arguments.json:
        command = "python benchmarks/router_training.py " + " ".join(sys.argv[1:])
        arguments.json.write_text(json.dumps({"command": command.strip(), "rows": rows}, indent=1) + "\n")


def run_alone(job: dict[str, object]) -> dict[str, object]:
    """Measure one training in a process of its own."""
    threads = str(job["n_threads"])
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
    output = subprocess.run(  # noqa: S603
        [sys.executable, __file__, "--one", json.dumps(job)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | limits,
    ).stdout
    found: dict[str, object] = json.loads(output)
    return found


def measure(
    *, head: str, n_queries: int, n_candidates: int, n_answers: int, n_threads: int
) -> dict[str, object]:
    """Train one router and route with it.

    Args:
        head: Name of the head.
        n_queries: Queries of the log.
        n_candidates: Candidates of the log.
        n_answers: Answers a query, of so many different candidates at random.
        n_threads: CPU threads of training.

    Returns:
        The arguments with what was measured: seconds of training, peak memory of the process in GiB, and how
        much of the possible gain over the best single candidate new queries of the same kind get.
    """
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(N_TASKS, DIMENSIONS)).astype(np.float32)
    skill = rng.uniform(0.3, 0.8, size=(N_TASKS, n_candidates))
    n_new = 2_000
    task = rng.integers(N_TASKS, size=n_queries + n_new)

    embedder = GivenEmbedder(centers[task])
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"])
    texts = [
        f"{a} {b} query number {i}" for i, (a, b) in enumerate(words[rng.integers(8, size=(n_queries, 2))])
    ]
    rows = np.repeat(np.arange(n_queries), n_answers)
    columns = np.concatenate(
        [
            rng.permuted(np.tile(np.arange(n_candidates), (min(10_000, n_queries - start), 1)), axis=1)[
                :, :n_answers
            ]
            for start in range(0, n_queries, 10_000)
        ]
    ).ravel()
    scores = (rng.random(len(rows)) < skill[task[rows], columns]).astype(np.float64)
    names = np.array([f"llm-{number:02}" for number in range(n_candidates)])
    frame = pl.DataFrame(
        {
            "record_id": rows.astype(str),
            "query_id": np.char.add("q", rows.astype(str)),
            "query_text": np.array(texts, dtype=object)[rows],
            "task": np.char.add("task-", task[rows].astype(str)),
            "candidate_id": names[columns],
            "model": names[columns],
            "prompt_mode": ["direct"] * len(rows),
            "performance": scores,
        }
    )
    missing = {name: wanted for name, wanted in LOG_SCHEMA.items() if name not in frame.columns}
    frame = frame.with_columns(pl.lit(None, dtype=wanted).alias(name) for name, wanted in missing.items())
    arguments = RouterTrainingArguments(head=head_config(head), n_threads=n_threads)
    start = time.perf_counter()
    router = RouterTrainer(arguments, embedder=embedder).train(frame)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    new = np.arange(n_queries, n_queries + n_new)
    decisions = router.route_batch([f"new query number {i}" for i in new], policy=RoutingPolicy())
    chosen = np.array([int(decision.candidate.id[-2:]) for decision in decisions])
    value = skill[task[new], chosen].mean()
    single, best = skill[task[new]].mean(axis=0).max(), skill[task[new]].max(axis=1).mean()
    return {
        "head": head,
        "n_queries": n_queries,
        "n_candidates": n_candidates,
        "n_answers": n_answers,
        "n_threads": n_threads,
        "n_rows": len(rows),
        "seconds": round(seconds, 1),
        "peak_gib": round(peak, 2),
        "share_of_possible_gain": round(float((value - single) / (best - single)), 3),
    }


def show(rows: list[dict[str, object]]) -> None:
    """Print the rows as a table."""
    table = Table(
        title="Training a router", caption="Peak memory is that of the whole process, the log included."
    )
    headings = (
        "head",
        "queries",
        "candidates",
        "answers a query",
        "seconds",
        "peak GiB",
        "share of possible gain",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "head" else "right")
    for row in rows:
        keys = ("n_queries", "n_candidates", "n_answers", "seconds", "peak_gib", "share_of_possible_gain")
        table.add_row(str(row["head"]), *(f"{row[key]:,}" for key in keys))
    Console().print(table)


if __name__ == "__main__":
    main()
