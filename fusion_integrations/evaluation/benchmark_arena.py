"""What the heads of a benchmark are measured on: which queries, split how, under which policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.baselines import training_means
from fusion_integrations.evaluation.replay import MIN_COMPLETE
from fusion_integrations.evaluation.splitting import Mask, Protocol, split_queries
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.query_level.labels import AnyLabel
from fusion_integrations.query_level.policy import MIN_COST_SCALE_USD, POLICY_PRESETS, RoutingPolicy
from fusion_integrations.query_level.query_kinds import Kinds, kinds_of_queries
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.unanswered import estimate_outcomes, fill_amounts

__all__ = ["Arena", "measurable", "prepare_arena"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arena:
    """Queries, split, and the policies to decide by.

    Attributes:
        frame: The logs; training logs have query ids of their own.
        dataset: The same, pivoted: n queries, k candidates.
        parts: Masks (n,) of the training and the predicted queries, one pair a router.
        groups: (n,) keys of what is resampled together: sessions where logged, else near-duplicates.
        policies: By name, performance alone first; those that weigh cost only where every cost is known.
        split: How queries are kept apart, in words.
        embedder: That of the routers; without task names it tells kinds of query apart.
        seed: Seed of every random choice.
    """

    frame: pl.DataFrame
    dataset: RouterDataset
    parts: Sequence[tuple[Mask, Mask]]
    groups: npt.NDArray[np.str_]
    policies: dict[str, RoutingPolicy]
    split: str
    embedder: Embedder
    seed: int

    @cached_property  # baselines under each policy ask again
    def training_kinds(self) -> list[Kinds]:
        """The kinds of each part's training queries, by what was logged of these."""
        return [self.kinds_among(train) for train, _ in self.parts]

    def kinds_among(self, rows: Mask) -> Kinds:
        """Sort some of the n queries, a mask, into kinds by what was logged of these."""
        return kinds_of_queries(
            self.dataset.select(rows),
            lambda: self._features[rows],
            n_embedding=self.embedder.identity.dimensions,
            seed=self.seed,
        )

    @cached_property
    def _features(self) -> FloatArray:
        return router_features(self.dataset.texts, embedder=self.embedder)


def prepare_arena(
    frame: pl.DataFrame,
    train: pl.DataFrame | None,
    *,
    embedder: Embedder,
    label: AnyLabel = "performance",
    protocol: Protocol,
    n_folds: int,
    seed: int,
) -> Arena:
    """Pivot the logs and split their queries.

    Args:
        frame: The log to measure on, in `LOG_SCHEMA`.
        train: A log to learn from instead; its near-duplicates of measured queries are left out.
        embedder: The routers' embedder.
        label: The score that counts as performance.
        protocol: How to split `frame` if there is no `train`; see `split_queries`.
        n_folds: Number of folds of the protocol `"folds"`.
        seed: Seed of the folds, and of all that is done in the arena.

    Returns:
        The arena.

    Raises:
        NotEnoughLogsError: If the logs have too few queries, tasks or common candidates.
    """
    logs = frame if train is None else _joined(frame, train)
    dataset = RouterDataset.from_logs(logs, label=label)
    if train is None:
        parts = list(
            split_queries(protocol, groups=dataset.groups, tasks=dataset.tasks, n_folds=n_folds, seed=seed)
        )
        together = "sessions and near-duplicates" if any(dataset.sessions) else "near-duplicates"
        split = {
            "folds": f"{n_folds} folds, {together} together",
            "tasks": "each task predicted from all others",
            "families": "each task family predicted from all others",
        }[protocol]
    else:
        measured = set(frame["query_id"])
        is_train = np.array([query_id not in measured for query_id in dataset.query_ids])
        keys = np.array(dataset.duplicate_keys)
        parts = [(is_train & ~np.isin(keys, keys[~is_train]), ~is_train)]
        split = "trained on another log"
    if not all(learned.any() for learned, _ in parts):
        message = (
            "No query is left to learn from: every training query is a near-duplicate of one to measure on "
            "(equal but for numbers, case and punctuation). Pass other logs to learn from, or more of them."
        )
        raise NotEnoughLogsError(message)
    return Arena(
        frame=logs,
        dataset=dataset,
        parts=parts,
        groups=np.array(dataset.resampling_groups),
        policies=_policies(dataset, parts),
        split=split,
        embedder=embedder,
        seed=seed,
    )


def measurable(arena: Arena, *, predicted: FloatArray) -> tuple[RouterDataset, Mask, bool]:
    """Say which queries can be measured on, and what every candidate reaches there.

    Args:
        arena: The queries.
        predicted: (n, k) performance predicted by routers that did not see the query; NaN where none did, or
            none had learned anything of the candidate: what they expect of the others then stands in.

    Returns:
        The data set of outcomes, the mask (n,) of measured queries, and whether outcomes that were never
        logged had to be estimated.

    Raises:
        NotEnoughLogsError: If no query can be measured on.
    """
    dataset = arena.dataset
    routed = np.any([test for _, test in arena.parts], axis=0)
    complete = ~np.isnan(dataset.performance).any(axis=1)
    if len(arena.policies) > 1:
        complete &= ~np.isnan(dataset.cost_usd).any(axis=1)
    measured = routed & complete
    if measured.sum() >= MIN_COMPLETE * routed.sum() and measured.any():
        return dataset, measured, False
    if not routed.any():
        raise NotEnoughLogsError("No query is left to measure on. Collect more logs, or split them anew.")
    # The measured queries alone: in logs trained on, candidates may have answered more or less often.
    part = dataset.select(routed)
    kinds = arena.kinds_among(routed)
    mean_cost = _mean_costs(part, kinds)
    performance, cost_usd = dataset.performance.copy(), dataset.cost_usd.copy()
    expected = predicted[routed]
    expected = np.where(np.isnan(expected), np.nanmean(expected, axis=1, keepdims=True), expected)
    performance[routed] = estimate_outcomes(part.performance, expected, part.propensity, kinds)
    cost_usd[routed] = estimate_outcomes(part.cost_usd, mean_cost, part.propensity, kinds)
    return replace(dataset, performance=performance, cost_usd=cost_usd), routed, True


def _mean_costs(part: RouterDataset, kinds: Kinds) -> FloatArray:
    """Give (n, k) mean costs, of a candidate's unanswered kinds what is assumed."""
    means = training_means(part.cost_usd, propensity=part.propensity)
    filled = fill_amounts(part.cost_usd, ~np.isnan(part.performance), kinds)
    is_assumed = np.isnan(part.cost_usd) & ~np.isnan(filled)
    return np.where(is_assumed, filled, means).astype(np.float32)


def _joined(frame: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Put training logs under ids of their own, and keep the candidates that both logs have."""
    common = sorted(set(frame["candidate_id"]) & set(train["candidate_id"]))
    if len(common) < 2:
        raise NotEnoughLogsError(f"The two logs have {len(common)} LLMs in common; routing needs two.")
    prefix = "train:"
    while frame["query_id"].str.starts_with(prefix).any():  # ids may begin in any way
        prefix = f"_{prefix}"
    both = pl.concat([train.with_columns(query_id=pl.lit(prefix) + pl.col("query_id")), frame])
    return both.filter(pl.col("candidate_id").is_in(common))


def _policies(dataset: RouterDataset, parts: Sequence[tuple[Mask, Mask]]) -> dict[str, RoutingPolicy]:
    without_cost = {name: policy for name, policy in POLICY_PRESETS.items() if not policy.needs_cost}
    if not _can_weigh_cost(dataset, parts):
        return without_cost
    scale = float(np.nanmean(dataset.cost_usd, axis=0).max())
    if scale < MIN_COST_SCALE_USD:  # everything is free, or all but: nothing to weigh
        return without_cost
    return {name: replace(policy, cost_scale_usd=scale) for name, policy in POLICY_PRESETS.items()}


def _can_weigh_cost(dataset: RouterDataset, parts: Sequence[tuple[Mask, Mask]]) -> bool:
    """Whether every router can learn every candidate's cost, and measuring it costs few measured queries."""
    has_cost = ~np.isnan(dataset.cost_usd)
    routed = np.any([test for _, test in parts], axis=0)
    if not all(has_cost[part].any(axis=0).all() for part in (routed, *(train for train, _ in parts))):
        return False
    complete = routed & ~np.isnan(dataset.performance).any(axis=1)
    wanted = MIN_COMPLETE * routed.sum()
    return bool(complete.sum() < wanted or (complete & has_cost.all(axis=1)).sum() >= wanted)
