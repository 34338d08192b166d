"""Ways to choose who answers, applied to replayed queries: routers, baselines, and what each reached.

Every comparison uses these, so that all follow one policy, one reward and one set of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import NoEligibleCandidateError, NotEnoughLogsError
from fusion_integrations.evaluation.baselines import (
    Selection,
    best_per_task,
    best_single,
    oracle,
    random_baseline,
    select_columns,
    training_means,
)
from fusion_integrations.evaluation.evaluation_report import StrategyOutcome, Support
from fusion_integrations.evaluation.replay import Replay
from fusion_integrations.query_level.decision import DecisionBasis, choose, reward
from fusion_integrations.query_level.off_policy import self_normalised_mean
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.statistics import paired_interval
from fusion_integrations.types import Candidate, PriceTable

__all__ = [
    "Strategy",
    "baseline_strategies",
    "best_single_candidate",
    "dataset_rewards",
    "eligible_columns",
    "measure",
    "routed_strategy",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Strategy:
    """A way to choose.

    Attributes:
        selection: Who answers each replayed query.
        switch_share: Share of queries for which a router left its default; None for what is no router.
    """

    selection: Selection
    switch_share: float | None = None


def baseline_strategies(replay: Replay, policy: RoutingPolicy) -> list[Strategy]:
    """Apply what needs no router.

    Args:
        replay: Held-out and training queries of the same candidates.
        policy: Its candidates bind all; its budget and wanted performance bind Best Single and Best per Task,
            by their training means. Its cost scale is set if cost counts.

    Returns:
        Random, Best Single, Best per Task and Oracle; no Oracle where outcomes are estimates, as the best of
        several of those is luck.

    Raises:
        NoEligibleCandidateError: If the policy excludes every candidate, or no cost that it weighs is known.
        NotEnoughLogsError: If no training reward is known.
    """
    test, train = replay.test, replay.train
    permitted, within_limits = eligible_columns(replay, policy)
    if not within_limits.any():
        message = (
            "The held-out logs hold no cost of any candidate that the policy can use. Pass prices, or leave "
            "the policies that weigh cost out."
        )
        raise NoEligibleCandidateError(message)
    rewards = np.where(permitted, dataset_rewards(test, policy), np.nan)
    train_rewards = np.where(within_limits, dataset_rewards(train, policy), np.nan)
    selections = [
        random_baseline(rewards),
        best_single(train_rewards, propensity=train.propensity, n_queries=len(test)),
        best_per_task(
            test.tasks,
            train_rewards=train_rewards,
            train_tasks=train.tasks,
            propensity=train.propensity,
        ),
    ]
    if replay.estimation is None:
        selections.append(oracle(rewards, cost_usd=test.cost_usd))
    return [Strategy(selection=selection) for selection in selections]


def eligible_columns(
    replay: Replay, policy: RoutingPolicy
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say who may answer the replayed queries.

    Args:
        replay: Held-out and training queries of the same candidates.
        policy: Whom it lets answer; its cost scale is set if cost counts.

    Returns:
        (k,) whom its candidates and known costs permit, and (k,) who of those keeps to its budget and wanted
        performance too, by training means.
    """
    permitted = _eligible(replay.train, replace(policy, max_cost_usd=None, min_performance=None))
    if policy.cost_weight > 0:
        permitted &= ~np.isnan(replay.test.cost_usd).any(axis=0)
    return permitted, permitted & _eligible(replay.train, policy)


def best_single_candidate(train: RouterDataset, policy: RoutingPolicy) -> Candidate:
    """Name the candidate that was best in training, among those within the policy's limits.

    Args:
        train: Training queries.
        policy: Its cost scale is set if cost counts.

    Returns:
        The candidate; ties go to the earlier one.

    Raises:
        NoEligibleCandidateError: If the policy excludes every candidate.
        NotEnoughLogsError: If no training reward is known.
    """
    rewards = np.where(_eligible(train, policy), dataset_rewards(train, policy), np.nan)
    selection = best_single(rewards, propensity=train.propensity, n_queries=1)
    return train.candidates[int(selection.weights.argmax())]


def routed_strategy(
    name: str,
    prediction: Prediction,
    policy: RoutingPolicy,
    *,
    basis: DecisionBasis,
    prices: PriceTable | None,
    columns: Sequence[Candidate],
) -> Strategy:
    """Apply a router's decisions.

    Args:
        name: The router's name.
        prediction: Its expectations for the n replayed queries, of some or all of the columns.
        policy: What it decides by.
        basis: What its decisions rest on.
        prices: Prices it is told.
        columns: The k candidates of the replay.

    Returns:
        The strategy, over all k columns; errors as in `choose`.
    """
    choice = choose(prediction, policy, basis=basis, prices=prices)
    column_of = {candidate.id: column for column, candidate in enumerate(columns)}
    chosen = np.array([column_of[candidate.id] for candidate in prediction.candidates])[choice.chosen]
    return Strategy(
        selection=select_columns(name, chosen, n_candidates=len(columns)),
        switch_share=float((choice.chosen != choice.default).mean()),
    )


def measure(
    strategy: Strategy,
    *,
    reference: Selection,
    replay: Replay,
    policy: RoutingPolicy,
    policy_name: str,
    level: float,
    seed: int,
) -> StrategyOutcome:
    """Look up, or estimate, what a strategy reached.

    Args:
        strategy: The strategy.
        reference: What its gains are over, on the same queries.
        replay: The replayed queries.
        policy: Its cost scale is set if cost counts.
        policy_name: How to name the policy in a message.
        level: Coverage of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        The outcome.

    Raises:
        NotEnoughLogsError: If the policy weighs cost and that of a chosen answer is unknown.
    """
    test, selection = replay.test, strategy.selection
    rewards = dataset_rewards(test, policy)
    performance, reached = selection.expected(test.performance), selection.expected(rewards)
    if np.isnan(reached).any():
        message = (
            f"'{selection.name}' under policy '{policy_name}' chose candidates whose cost is not in the "
            "held-out logs. Pass the prices of all candidates, or leave the policy out."
        )
        raise NotEnoughLogsError(message)
    cost = selection.expected(test.cost_usd).mean()
    gains = {
        "performance_gain": performance - reference.expected(test.performance),
        "reward_gain": reached - reference.expected(rewards),
    }
    return StrategyOutcome(
        performance=float(performance.mean()),
        cost_usd=None if np.isnan(cost) else float(cost),
        reward=float(reached.mean()),
        switch_share=strategy.switch_share,
        per_task={task: float(performance[mask].mean()) for task, mask in replay.task_masks.items()},
        candidate_shares={
            candidate.id: float(share)
            for candidate, share in zip(test.candidates, selection.weights.mean(axis=0), strict=True)
        },
        support=None if replay.estimation is None else _support(selection, replay.logged),
        **{
            name: paired_interval(gain, groups=replay.groups, level=level, seed=seed)
            for name, gain in gains.items()
        },
    )


def _support(selection: Selection, logged: RouterDataset) -> Support:
    mean, size = self_normalised_mean(logged.performance, logged.propensity, selection.weights)
    return Support(effective_sample_size=size, weighted_performance=mean)


def dataset_rewards(dataset: RouterDataset, policy: RoutingPolicy) -> npt.NDArray[np.float64]:
    """Return the (n, k) rewards of a policy whose cost scale is set; NaN where unknown."""
    return reward(
        dataset.performance,
        dataset.cost_usd,
        cost_weight=policy.cost_weight,
        cost_scale_usd=policy.cost_scale_usd or 1.0,
    ).astype(np.float64)


def _eligible(train: RouterDataset, policy: RoutingPolicy) -> npt.NDArray[np.bool_]:
    """Return (k,) whether the policy lets each candidate answer the average training query."""

    def average(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return training_means(values, propensity=train.propensity).astype(np.float32)[None, :]

    unknown = np.full((1, len(train.candidates)), np.nan, dtype=np.float32)
    prediction = Prediction(
        candidates=train.candidates,
        performance_members=average(train.performance)[None],
        input_tokens=unknown,
        output_tokens=unknown,
        logged_cost_usd=average(train.cost_usd),
    )
    basis = DecisionBasis(average=prediction, cost_scale_usd=policy.cost_scale_usd)
    # Training means know neither durations nor whose quality was validated, and nothing is drawn here.
    policy = replace(policy, max_latency_s=None, quality_of=None, max_loss=0.0, exploration="none")
    eligible: npt.NDArray[np.bool_] = choose(prediction, policy, basis=basis).excluded[0] == ""
    return eligible
