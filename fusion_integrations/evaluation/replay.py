"""Held-out queries that can be replayed: training did not see them, and it is known what candidates reach.

Where logs are complete that is looked up; where they are partial it can be estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.estimation import Estimation, describe_estimation, fit_outcome_model
from fusion_integrations.evaluation.evaluation_report import ReplayFacts
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.labels import AnyLabel, label_name
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["MIN_COMPLETE", "Replay", "replay_facts", "replay_logs"]

MIN_COMPLETE = 0.5  # share of complete queries from which the others are left out instead of estimated


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """The held-out queries that can be replayed, the training data, and what was left out.

    Attributes:
        test: The n replayed queries and what every candidate reaches; no performance is missing.
        logged: The same queries, as logged.
        train: The training queries; where outcomes are estimated, theirs are too.
        groups: n keys of sessions where they were logged, else of near-duplicates.
        n_left_out: Held-out queries that cannot be replayed.
        n_leaked: Held-out queries that training saw, themselves or as a near-duplicate.
        estimation: What estimates rest on; None if outcomes are looked up.
    """

    test: RouterDataset
    logged: RouterDataset
    train: RouterDataset
    groups: tuple[str, ...]
    n_left_out: int
    n_leaked: int
    estimation: Estimation | None = None

    @property
    def task_masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """The (n,) rows of each task, tasks in alphabetical order; queries without a label are in none."""
        labels = np.array(self.test.tasks, dtype=np.object_)
        return {task: labels == task for task in sorted({task for task in labels if task is not None})}

    @property
    def n_unseen_task(self) -> int:
        """Queries whose task was not seen in training."""
        seen = {task for task in self.train.tasks if task is not None}
        return sum(task not in seen for task in self.test.tasks)


def replay_logs(
    frame: pl.DataFrame,
    *,
    train_frame: pl.DataFrame,
    candidates: Sequence[Candidate],
    label: AnyLabel,
    prices: PriceTable | None,
    needs_cost: bool,
    estimate_by: Embedder | None = None,
    n_threads: int = 2,
    seed: int = 0,
) -> Replay:
    """Find what can be replayed.

    If at least half of the held-out queries are complete, the others are left out. Else every query with an
    answer is replayed with estimated outcomes, if there is an embedder to estimate by.

    Args:
        frame: Held-out logs.
        train_frame: Training logs.
        candidates: The columns.
        label: Which score counts as performance.
        prices: Prices of the logged tokens. None: costs as logged.
        needs_cost: Whether an answer of unknown cost is of no use. A candidate whose cost was never logged
            costs no query its place: leaving it out is the policy's matter.
        estimate_by: Embedder of the model of outcomes. None: partial logs are not estimated.
        n_threads: CPU threads of training that model.
        seed: Seed of that.

    Returns:
        The replay, with at least one query.

    Raises:
        NotEnoughLogsError: If no query is left.
        UnknownCandidateError: If a candidate answered no training query, or no held-out one where these are
            not estimated.
        LogSchemaError: If the logs lack columns.
    """
    train = RouterDataset.from_logs(train_frame, candidates=candidates, label=label, prices=prices)
    held_out = RouterDataset.from_logs(
        frame,
        candidates=candidates,
        label=label,
        prices=prices,
        absent="refuse" if estimate_by is None else "keep",
    )
    leaked = _leaked(frame, train_frame)
    fresh = held_out.select(np.array([query_id not in leaked for query_id in held_out.query_ids]))
    is_known = ~np.isnan(fresh.performance)
    if needs_cost:
        has_cost = ~np.isnan(fresh.cost_usd)
        is_known = np.concatenate([is_known, has_cost[:, has_cost.any(axis=0)]], axis=1)
    complete = np.flatnonzero(is_known.all(axis=1))
    if not len(fresh) or (estimate_by is None and not complete.size):
        raise NotEnoughLogsError(_nothing_complete(fresh, needs_cost=needs_cost))
    estimation, test = None, fresh.select(complete)
    logged, is_partial = test, len(complete) < MIN_COMPLETE * len(fresh)
    if estimate_by is not None and (is_partial or np.isnan(train.performance).any()):
        model = fit_outcome_model(train, embedder=estimate_by, n_threads=n_threads, seed=seed)
        train = model.train
        if is_partial:
            test, kinds = model.estimate(fresh)
            logged, estimation = fresh, describe_estimation(frame, fresh, kinds=kinds)
    return Replay(
        test=test,
        logged=logged,
        train=train,
        groups=test.resampling_groups,
        n_left_out=frame["query_id"].n_unique() - len(leaked) - len(test),
        n_leaked=len(leaked),
        estimation=estimation,
    )


def replay_facts(
    replay: Replay, *, label: AnyLabel, routers: Mapping[str, RouterModel], train_frame: pl.DataFrame
) -> ReplayFacts:
    """Describe a replay for a report.

    Args:
        replay: The replay.
        label: The score that counts as performance.
        routers: Routers by name.
        train_frame: The logs they should have been trained on.

    Returns:
        What it covered.
    """
    trained_on = log_fingerprint(train_frame)
    return ReplayFacts(
        candidates=tuple(candidate.id for candidate in replay.test.candidates),
        tasks={task: int(mask.sum()) for task, mask in replay.task_masks.items()},
        label=label_name(label),
        n_queries=len(replay.test),
        n_groups=len(set(replay.groups)),
        n_left_out=replay.n_left_out,
        n_leaked=replay.n_leaked,
        n_unseen_task=replay.n_unseen_task,
        trained_elsewhere=tuple(
            name for name, router in routers.items() if router.log_fingerprint not in ("", trained_on)
        ),
        estimation=replay.estimation,
    )


def _leaked(frame: pl.DataFrame, train_frame: pl.DataFrame) -> set[str]:
    """Return the ids of held-out queries that training saw, themselves or as a near-duplicate."""
    columns = ("query_id", "query_text")
    seen = train_frame.select(columns).unique()
    seen_ids, seen_keys = set(seen["query_id"]), {duplicate_key(text) for text in seen["query_text"]}
    leaked = {
        query_id
        for query_id, text in frame.select(columns).unique().iter_rows()
        if query_id in seen_ids or duplicate_key(text) in seen_keys
    }
    if len(leaked) == frame["query_id"].n_unique():
        message = (
            f"All {len(leaked)} held-out queries also occur in the training logs, themselves or as "
            "near-duplicates (equal but for numbers, case and punctuation). Split the logs with "
            "`holdout_mask` on the `duplicate_key` of each query, and train again."
        )
        raise NotEnoughLogsError(message)
    return leaked


def _nothing_complete(dataset: RouterDataset, *, needs_cost: bool) -> str:
    per_candidate = (~np.isnan(dataset.performance)).sum(axis=0)
    counts = {c.id: int(count) for c, count in zip(dataset.candidates, per_candidate, strict=True)}
    wanted = "a scored answer with known cost" if needs_cost else "a scored answer"
    return (
        f"None of the {len(dataset)} held-out queries has {wanted} of every candidate; scored answers: "
        f"{counts}. Looking outcomes up needs complete logs: collect the missing answers with "
        "`LogCollector`. `evaluate_routers` estimates on partial ones."
    )
