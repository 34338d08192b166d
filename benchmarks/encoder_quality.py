"""How good a router is with each encoder: grouped cross-validation on FusionBench."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.embedders import CachingEmbedder
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.splits import grouped_folds
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.decision import choose
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.statistics import Interval, paired_interval

__all__ = [
    "Quality",
    "complete_logs",
    "fusionbench_file",
    "fusionbench_logs",
    "measure_quality",
]

_FILE = "fusionbench.parquet"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What routing with one encoder reaches on queries it was not trained on.

    Attributes:
        performance: Mean performance of the chosen candidates, the margin validated on the training part.
        best_single: Mean performance of always taking the best single one of the training part.
        gain: `performance - best_single`, with its 95% interval.
        predicted_best: Mean performance of always taking the best prediction. A margin that keeps the default
            makes encoders look alike; this does not.
        over_reference: `predicted_best` less that of the first encoder measured, with its 95% interval.
        embedding_s: Seconds to embed all queries.
        n_queries: How many those are.
    """

    performance: float
    best_single: float
    gain: Interval
    predicted_best: float
    over_reference: Interval
    embedding_s: float
    n_queries: int


def fusionbench_file() -> Path | None:
    """Return the development file under `$FUSION_DATA`, else `../shared/data`; None if it is not there."""
    file = Path(os.environ.get("FUSION_DATA", "../shared/data")) / _FILE
    return file if file.is_file() else None


def fusionbench_logs(file: Path, *, n_queries: int, seed: int) -> pl.DataFrame:
    """Read a random part of FusionBench as logs.

    Args:
        file: Its Parquet file, one row a query and LLM.
        n_queries: How many queries to take; all if there are no more.
        seed: Seed of the choice.

    Returns:
        A frame in `LOG_SCHEMA`.
    """
    rows = pl.read_parquet(file, columns=["query_id", "query", "task", "llm", "performance"])
    ids = rows["query_id"].unique().sort()
    taken = ids.sample(min(n_queries, len(ids)), seed=seed)
    named = rows.filter(pl.col("query_id").is_in(taken.implode())).rename(
        {"query": "query_text", "llm": "candidate_id"}
    )
    return complete_logs(named)


def complete_logs(rows: pl.DataFrame) -> pl.DataFrame:
    """Fill rows of query_id, query_text, task, candidate_id and performance up to `LOG_SCHEMA`."""
    named = rows.with_columns(
        model="candidate_id",
        record_id=pl.concat_str("query_id", "candidate_id", separator="/"),
        prompt_mode=pl.lit("direct"),
        assignment=pl.lit("factorial"),
        propensity=pl.lit(1.0),
    )
    return pl.concat([pl.DataFrame(schema=LOG_SCHEMA), named], how="diagonal_relaxed")


def measure_quality(
    encoders: Mapping[str, Embedder],
    logs: pl.DataFrame,
    *,
    arguments: RouterTrainingArguments,
    n_folds: int = 5,
) -> dict[str, Quality]:
    """Cross-validate a router with every encoder, near-duplicate queries in one fold.

    Args:
        encoders: Embedders by name; the first is the reference.
        logs: Complete logs: every candidate answered every query.
        arguments: Settings of the router.
        n_folds: Folds.

    Returns:
        The quality by name of the encoder.
    """
    dataset = RouterDataset.from_logs(logs)
    groups = dataset.duplicate_keys
    folds = grouped_folds(groups, n_folds=n_folds, seed=arguments.seed)
    measured: dict[str, Quality] = {}
    reference: npt.NDArray[np.float64] | None = None
    for name, encoder in encoders.items():
        start = time.perf_counter()
        remembered = CachingEmbedder(encoder)
        remembered.embed(dataset.texts)
        embedding_s = time.perf_counter() - start
        routed, single, predicted = _unseen_performance(remembered, logs, dataset, folds, arguments)
        reference = predicted if reference is None else reference
        measured[name] = Quality(
            performance=float(routed.mean()),
            best_single=float(single.mean()),
            gain=paired_interval(routed - single, groups=groups),
            predicted_best=float(predicted.mean()),
            over_reference=paired_interval(predicted - reference, groups=groups),
            embedding_s=embedding_s,
            n_queries=len(dataset),
        )
    return measured


def _unseen_performance(
    embedder: Embedder,
    logs: pl.DataFrame,
    dataset: RouterDataset,
    folds: npt.NDArray[np.int64],
    arguments: RouterTrainingArguments,
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return what the chosen, default and best predicted candidates reached, each decided out of fold."""
    routed, single, predicted = (np.empty(len(dataset)) for _ in range(3))
    trainer = RouterTrainer(arguments, embedder=embedder)
    for fold in np.unique(folds):
        held_out = np.flatnonzero(folds == fold)
        test, rows = dataset.select(held_out), np.arange(len(held_out))
        router = trainer.train(
            logs.filter(~pl.col("query_id").is_in(list(test.query_ids))), candidates=dataset.candidates
        )
        prediction = router.predict(test.texts)
        choice = choose(prediction, PERFORMANCE_FIRST, basis=router.basis)
        unbound = choose(prediction, RoutingPolicy(margin_z=0.0), basis=router.basis)
        routed[held_out] = test.performance[rows, choice.chosen]
        single[held_out] = test.performance[rows, choice.default]
        predicted[held_out] = test.performance[rows, unbound.chosen]
    return routed, single, predicted
