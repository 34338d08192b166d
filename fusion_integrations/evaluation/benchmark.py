"""Measure heads on a log: every query is routed by a router that learned from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.evaluation.benchmark_arena import measurable, prepare_arena
from fusion_integrations.evaluation.benchmark_report import BenchmarkReport
from fusion_integrations.evaluation.benchmark_rows import Scoreboard
from fusion_integrations.evaluation.cross_validation import Answers, route_by_others
from fusion_integrations.evaluation.splitting import Protocol
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.labels import AnyLabel, label_name
from fusion_integrations.query_level.router_dataset import RouterDataset

__all__ = ["benchmark_routers"]


def benchmark_routers(
    name: str,
    frame: pl.DataFrame,
    *,
    heads: Sequence[str],
    embedder: Embedder,
    train: pl.DataFrame | None = None,
    protocol: Protocol = "folds",
    answers: Answers = 1.0,
    label: AnyLabel = "performance",
    n_folds: int = 5,
    level: float = 0.95,
    n_threads: int = 2,
    seed: int = 0,
    n_shown: int | None = 200,
    on_head: Callable[[str], None] = lambda _: None,
) -> BenchmarkReport:
    """Compare heads with Random, Best Single, Best per Task and Oracle on one log.

    Best Single and Best per Task are chosen on the training queries the routers learn from. Near-duplicates
    never stand on both sides. Where fewer than half of the queries have an answer of every candidate,
    outcomes are doubly robust estimates, and there is no Oracle.

    Args:
        name: Of the log, for the report.
        frame: The log to measure on, in `LOG_SCHEMA`.
        heads: Names of heads.
        embedder: The routers' embedder.
        train: A log to learn from instead of the other parts of `frame`.
        protocol: How to split `frame`; see `split_queries`. Not read if `train` is given.
        answers: Which training answers the routers see; see `hide_answers`. The baselines see all.
        label: The score that routers learn, and that counts as performance.
        n_folds: Number of folds of the protocol `"folds"`.
        level: Coverage of the intervals.
        n_threads: CPU threads of training.
        seed: Seed of folds, training, hidden answers and bootstrap.
        n_shown: How many queries the report holds, those that routing changes most first; None for all.
        on_head: Told the name of each head before it is trained.

    Returns:
        The report.

    Raises:
        InvalidPolicyError: If there is no head, or one is unknown.
        NotEnoughLogsError: If there are too few queries, tasks or common candidates.

    Source:
        The scenarios of FusionFactory (arXiv 2507.10540), section 4.2 and Table 4; its fourth is the label
        `"judge_score"`.
    """
    if not heads:
        raise InvalidPolicyError("A benchmark needs at least one head.")
    arena = prepare_arena(
        frame, train, embedder=embedder, label=label, protocol=protocol, n_folds=n_folds, seed=seed
    )
    routed = {}
    for head in heads:
        on_head(head)
        routed[head] = route_by_others(head, arena, answers=answers, label=label, n_threads=n_threads)
    predicted = np.mean([found.predicted for found in routed.values()], axis=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=predicted)
    shown = outcomes.select(measured)
    board = Scoreboard(
        arena=arena, outcomes=outcomes, measured=measured, is_estimated=is_estimated, level=level
    )
    return BenchmarkReport(
        name=name,
        split=arena.split,
        answers="one a query" if answers == "one" else f"{answers:.0%}",
        label=label_name(label),
        candidates=_means(shown),
        candidate_costs=_mean_costs(shown),
        candidate_tasks=_means_by_task(shown),
        tasks=_counts_by_task(shown),
        n_queries=len(shown),
        n_groups=len(np.unique(arena.groups[measured])),
        n_left_out=int(np.any([test for _, test in arena.parts], axis=0).sum()) - len(shown),
        is_estimated=is_estimated,
        level=level,
        policies={key: policy.to_json() for key, policy in arena.policies.items()},
        rows=(*board.baseline_rows(), *(board.head_row(head, found) for head, found in routed.items())),
        queries=tuple(board.query_outcomes(routed, n_shown=n_shown)),
    )


def _means(shown: RouterDataset) -> dict[str, float]:
    means = shown.performance.mean(axis=0)
    return {candidate.id: float(mean) for candidate, mean in zip(shown.candidates, means, strict=True)}


def _mean_costs(shown: RouterDataset) -> dict[str, float | None]:
    costs = shown.cost_usd.mean(axis=0)
    return {
        candidate.id: None if np.isnan(cost) else float(cost)
        for candidate, cost in zip(shown.candidates, costs, strict=True)
    }


def _counts_by_task(shown: RouterDataset) -> dict[str, int]:
    return dict(sorted(Counter(task for task in shown.tasks if task).items()))


def _means_by_task(shown: RouterDataset) -> dict[str, dict[str, float]]:
    tasks = np.array([task or "" for task in shown.tasks])
    return {
        candidate.id: {
            str(task): float(shown.performance[tasks == task, column].mean())
            for task in np.unique(tasks)
            if task
        }
        for column, candidate in enumerate(shown.candidates)
    }
