"""What every candidate would have reached on partial logs: estimated, with what the logs can say of it.

A model of outcomes learns from the training logs, never from the evaluated ones; logged answers correct it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.logs.splits import grouped_folds
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.query_level.heads import ClusterHeadConfig, FittedHead, HeadInputs, fit_members
from fusion_integrations.query_level.off_policy import importance_weights
from fusion_integrations.query_level.overlap import measure_overlap
from fusion_integrations.query_level.query_kinds import Kinds, kinds_of_queries
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.unanswered import estimate_outcomes, fill_targets
from fusion_integrations.query_level.usage import UsageModel, fit_usage

__all__ = ["Estimation", "OutcomeModel", "describe_estimation", "fit_outcome_model"]

_HEAD = ClusterHeadConfig()  # learns fast, and what it gets wrong is corrected
_MAX_QUERIES = 20_000  # a mean over so many is exact to a few thousandths
_N_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """What the estimates on partial logs rest on.

    Attributes:
        n_complete: Queries that every candidate answered.
        n_answers: Scored answers by candidate id.
        n_certain: Queries with one answer, of a candidate that was chosen with certainty.
        warnings: What no estimate can make up for, one sentence each.
    """

    n_complete: int
    n_answers: Mapping[str, int]
    n_certain: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON data."""
        return {**vars(self), "n_answers": dict(self.n_answers), "warnings": list(self.warnings)}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeModel:
    """Predicts performance and cost of every candidate, learned from training logs.

    Attributes:
        train: The m queries it learned from, every outcome estimated without the query itself.
        members: Heads, each trained without another part of the queries.
        usage: Predicts cost.
        embedder: Turns texts into vectors.
        seed: Seed of the clusters of queries whose tasks are unknown.
    """

    train: RouterDataset
    members: tuple[FittedHead, ...]
    usage: UsageModel
    embedder: Embedder
    seed: int

    def estimate(self, logged: RouterDataset) -> tuple[RouterDataset, Kinds]:
        """Estimate what every candidate reaches on other queries.

        Args:
            logged: n queries of the same candidates, none of them learned from.

        Returns:
            The same queries, every performance and, where training knew one, every cost filled in: doubly
            robust. Single values may lie far outside [0, 1]; their means are what counts. With them the (n,)
            kinds of query by which candidates were asked.
        """
        features = router_features(logged.texts, embedder=self.embedder)
        performance = np.mean([member.predict(features) for member in self.members], axis=0)
        cost_usd = self.usage.predict(logged.texts, features).cost_usd
        kinds = kinds_of_queries(
            logged, lambda: features, n_embedding=self.embedder.identity.dimensions, seed=self.seed
        )
        return _estimated(logged, performance, cost_usd, kinds=kinds), kinds


def fit_outcome_model(train: RouterDataset, *, embedder: Embedder, n_threads: int, seed: int) -> OutcomeModel:
    """Learn what candidates reach from training logs.

    Args:
        train: Training queries; at most 20,000 random ones are used.
        embedder: Turns texts into vectors.
        n_threads: CPU threads of training.
        seed: Seed of every random choice.

    Returns:
        The model.

    Raises:
        NotEnoughLogsError: If there are fewer than two training queries that differ.
    """
    if len(train) > _MAX_QUERIES:
        train = train.select(np.sort(np.random.default_rng(seed).permutation(len(train))[:_MAX_QUERIES]))
    groups = train.groups
    if len(set(groups)) < 2:
        message = (
            f"The logs are partial, and {len(set(groups))} training query is too few to estimate what they "
            "lack. Pass the logs the router was trained on."
        )
        raise NotEnoughLogsError(message)
    features = router_features(train.texts, embedder=embedder)
    inputs = HeadInputs(
        features=features,
        texts=train.texts,
        targets=train.performance,
        weights=importance_weights(train.performance, train.propensity),
        tasks=train.tasks,
        column_embeddings=np.zeros((len(train.candidates), 0), dtype=np.float32),
        n_embedding=embedder.identity.dimensions,
        n_threads=n_threads,
        seed=seed,
    )
    folds = grouped_folds(groups, n_folds=min(_N_FOLDS, len(set(groups))), seed=seed)
    kinds = kinds_of_queries(train, lambda: features, n_embedding=inputs.n_embedding, seed=seed)
    members = fit_members(_HEAD, fill_targets(inputs, kinds), folds)
    unseen = np.empty_like(train.performance)
    for fold, member in enumerate(members):
        unseen[folds == fold] = member.predict(features[folds == fold])
    usage = fit_usage(
        train, features, kinds=kinds, n_embedding=embedder.identity.dimensions, n_threads=n_threads, seed=seed
    )
    filled = _estimated(train, unseen, usage.predict(train.texts, features).cost_usd, kinds=kinds)
    # Every cell has a value now, which stands for itself.
    filled = replace(filled, propensity=np.ones_like(train.propensity))
    return OutcomeModel(train=filled, members=members, usage=usage, embedder=embedder, seed=seed)


def describe_estimation(frame: pl.DataFrame, logged: RouterDataset, *, kinds: Kinds) -> Estimation:
    """Say what estimates on partial logs rest on.

    Args:
        frame: The logs.
        logged: Those of their queries that are evaluated, n.
        kinds: (n,) their kinds.

    Returns:
        The facts.
    """
    overlap = measure_overlap(frame, logged, kinds=kinds)
    found = [overlap.certainty] if overlap.certainty else []
    silent = [name for name, count in overlap.n_answers.items() if count == 0]
    if silent:
        found.append(f"No answer of {silent}: what is said of them is what similar training queries had.")
    if np.isnan(logged.propensity[~np.isnan(logged.performance)]).any():
        found.append(
            "Some answers were logged with an unknown probability: the estimates assume that who answered "
            "had nothing to do with how well."
        )
    found += overlap.assumptions
    return Estimation(
        n_complete=overlap.n_complete,
        n_answers=overlap.n_answers,
        n_certain=overlap.n_certain,
        warnings=tuple(found),
    )


def _estimated(
    logged: RouterDataset, performance: FloatArray, cost_usd: FloatArray, *, kinds: Kinds
) -> RouterDataset:
    predicted = np.clip(performance, 0.0, 1.0).astype(np.float32)
    return replace(
        logged,
        performance=estimate_outcomes(logged.performance, predicted, logged.propensity, kinds),
        cost_usd=estimate_outcomes(logged.cost_usd, cost_usd.astype(np.float32), logged.propensity, kinds),
    )
