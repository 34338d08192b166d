"""Replay held-out logs: what each router would have reached beside what needs no router.

Every replayed query has an answer of every candidate, so a strategy's outcome is looked up, not estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import (
    InvalidPolicyError,
    NoEligibleCandidateError,
    NotEnoughLogsError,
    UnknownCandidateError,
)
from fusion_integrations.evaluation.baselines import (
    BASELINES,
    BEST_SINGLE,
    Selection,
    best_per_task,
    best_single,
    oracle,
    random_baseline,
    select_columns,
    training_means,
)
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.query_level.decision import Choice, DecisionBasis, choose, reward
from fusion_integrations.query_level.policy import POLICY_PRESETS, RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_dataset import Label, RouterDataset
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.statistics import paired_interval
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["evaluate_routers"]


def evaluate_routers(
    routers: Mapping[str, RouterModel],
    *,
    logs: pl.DataFrame | LogSource,
    train_logs: pl.DataFrame | LogSource,
    policies: Mapping[str, RoutingPolicy] = POLICY_PRESETS,
    prices: PriceTable | None = None,
    label: Label = "performance",
    level: float = 0.95,
    seed: int = 0,
) -> EvaluationReport:
    """Compare routers with Random, Best Single, Best per Task and Oracle on held-out logs.

    Only queries that every candidate answered are replayed; partial logs cannot be evaluated in this release.
    Queries that also occur in the training logs, themselves or as a near-duplicate, are left out. Both are
    counted in the report.

    All strategies of one policy share its reward. Its cost scale is the policy's own, else that of the first
    router, and every router decides on it. The baselines keep to the policy's candidates; Best Single and
    Best per Task keep to its budget and wanted performance by their training means, Random and Oracle do not.

    The intervals say how far other queries of the same kind could move the result. They do not cover another
    training run, and with many rows some exclude 0 by chance.

    Args:
        routers: Trained routers by name, all of the same candidates.
        logs: Held-out logs.
        train_logs: The logs the routers were trained on: the source of Best Single and Best per Task.
        policies: Policies by name.
        prices: Prices of the logged tokens, and what the routers are told. Default: costs as logged.
        label: Which score counts as performance.
        level: Coverage of the intervals, strictly between 0 and 1.
        seed: Seed of the bootstrap.

    Returns:
        The report: for each policy the baselines, then the routers in their order.

    Raises:
        NotEnoughLogsError: If no query is left to replay, or a cost that a policy weighs was not logged.
        InvalidPolicyError: If an argument is out of range, or cost counts but no cost scale is known.
        NoEligibleCandidateError: If a policy excludes every candidate.
        UnknownCandidateError: If routers differ in their candidates, or one of them is not in the logs.
        LogSchemaError: If the logs lack columns.
    """
    _check_arguments(routers, policies, level)
    first, train_frame = next(iter(routers.values())), as_frame(train_logs)
    replay = _replay(
        as_frame(logs),
        train_frame,
        template=first,
        label=label,
        prices=prices,
        needs_cost=any(policy.cost_weight > 0 for policy in policies.values()),
    )
    predictions = {name: router.predict(replay.test.texts) for name, router in routers.items()}
    rows: list[EvaluationRow] = []
    scales: dict[str, float | None] = {}
    for policy_name, asked in policies.items():
        scale = first.basis.scale_for(asked)
        scales[policy_name] = scale if asked.cost_weight > 0 else None
        policy = replace(asked, cost_scale_usd=scale)
        strategies = _baselines(replay, policy)
        for name, router in routers.items():
            choice = choose(predictions[name], policy, basis=router.basis, prices=prices)
            strategies.append(_routed(name, choice, router.candidates, replay.test.candidates))
        rows += _rows(strategies, replay, policy, policy_name=policy_name, level=level, seed=seed)
    trained_on = log_fingerprint(train_frame)
    return EvaluationReport(
        rows=tuple(rows),
        policies=dict(policies),
        cost_scale_usd=scales,
        candidates=tuple(candidate.id for candidate in replay.test.candidates),
        tasks={task: int(mask.sum()) for task, mask in replay.task_masks.items()},
        label=label,
        level=level,
        n_queries=len(replay.test),
        n_groups=len(set(replay.groups)),
        n_left_out=replay.n_left_out,
        n_leaked=replay.n_leaked,
        n_unseen_task=replay.n_unseen_task,
        trained_elsewhere=tuple(
            name for name, router in routers.items() if router.log_fingerprint not in ("", trained_on)
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Replay:
    """The held-out queries that can be replayed, the training data, and what was left out."""

    test: RouterDataset
    train: RouterDataset
    groups: tuple[str, ...]
    n_left_out: int
    n_leaked: int

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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Strategy:
    selection: Selection
    switch_share: float | None = None  # None for a baseline, which has no default to leave


def _check_arguments(
    routers: Mapping[str, RouterModel], policies: Mapping[str, RoutingPolicy], level: float
) -> None:
    if not routers or not policies:
        raise InvalidPolicyError(
            f"Evaluation needs a router and a policy, got {len(routers)} and {len(policies)}."
        )
    if not 0 < level < 1:
        raise InvalidPolicyError(f"level must lie strictly between 0 and 1, got {level}.")
    taken = sorted(set(routers) & set(BASELINES))
    if taken:
        raise InvalidPolicyError(f"{taken} are names of baselines. Give the routers other names.")
    expected = _columns_of(next(iter(routers.values())))
    for name, router in routers.items():
        if _columns_of(router) != expected:
            message = (
                f"Router '{name}' chooses among {_columns_of(router)} (id, revision), the first router among "
                f"{expected}. Evaluate routers of different candidates one by one."
            )
            raise UnknownCandidateError(message)


def _columns_of(router: RouterModel) -> list[tuple[str, str]]:
    return sorted((candidate.id, candidate.revision) for candidate in router.candidates)


def _replay(
    frame: pl.DataFrame,
    train_frame: pl.DataFrame,
    *,
    template: RouterModel,
    label: Label,
    prices: PriceTable | None,
    needs_cost: bool,
) -> _Replay:
    train = RouterDataset.from_logs(train_frame, candidates=template.candidates, label=label, prices=prices)
    held_out = RouterDataset.from_logs(frame, candidates=template.candidates, label=label, prices=prices)
    leaked = _leaked(frame, train_frame)
    fresh = held_out.select(np.array([query_id not in leaked for query_id in held_out.query_ids]))
    is_known = ~np.isnan(fresh.performance)
    if needs_cost:  # a candidate whose cost was never logged is the policy's matter, not the query's
        has_cost = ~np.isnan(fresh.cost_usd)
        is_known = np.concatenate([is_known, has_cost[:, has_cost.any(axis=0)]], axis=1)
    complete = np.flatnonzero(is_known.all(axis=1))
    if not complete.size:
        raise NotEnoughLogsError(_nothing_complete(fresh, needs_cost=needs_cost))
    test = fresh.select(complete)
    return _Replay(
        test=test,
        train=train,
        groups=tuple(duplicate_key(text) for text in test.texts),
        n_left_out=frame["query_id"].n_unique() - len(leaked) - len(test),
        n_leaked=len(leaked),
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
        f"{counts}. Replay needs complete logs, and this release does not evaluate on partial ones: collect "
        "the missing answers with `LogCollector`."
    )


def _baselines(replay: _Replay, policy: RoutingPolicy) -> list[_Strategy]:
    test, train = replay.test, replay.train
    permitted = _eligible(train, replace(policy, max_cost_usd=None, min_performance=None))
    if policy.cost_weight > 0:
        permitted &= ~np.isnan(test.cost_usd).any(axis=0)
    within_limits = permitted & _eligible(train, policy)
    if not within_limits.any():
        message = (
            "The held-out logs hold no cost of any candidate that the policy can use. Pass prices, or leave "
            "the policies that weigh cost out."
        )
        raise NoEligibleCandidateError(message)
    rewards = np.where(permitted, _rewards(test, policy), np.nan)
    train_rewards = np.where(within_limits, _rewards(train, policy), np.nan)
    selections = (
        random_baseline(rewards),
        best_single(train_rewards, propensity=train.propensity, n_queries=len(test)),
        best_per_task(
            test.tasks,
            train_rewards=train_rewards,
            train_tasks=train.tasks,
            propensity=train.propensity,
        ),
        oracle(rewards, cost_usd=test.cost_usd),
    )
    return [_Strategy(selection=selection) for selection in selections]


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
    eligible: npt.NDArray[np.bool_] = choose(prediction, policy, basis=basis).excluded[0] == ""
    return eligible


def _rewards(dataset: RouterDataset, policy: RoutingPolicy) -> npt.NDArray[np.float64]:
    return reward(
        dataset.performance,
        dataset.cost_usd,
        cost_weight=policy.cost_weight,
        cost_scale_usd=policy.cost_scale_usd or 1.0,
    ).astype(np.float64)


def _routed(
    name: str, choice: Choice, router_columns: Sequence[Candidate], columns: Sequence[Candidate]
) -> _Strategy:
    column_of = {candidate.id: column for column, candidate in enumerate(columns)}
    chosen = np.array([column_of[candidate.id] for candidate in router_columns])[choice.chosen]
    return _Strategy(
        selection=select_columns(name, chosen, n_candidates=len(columns)),
        switch_share=float((choice.chosen != choice.default).mean()),
    )


def _rows(
    strategies: list[_Strategy],
    replay: _Replay,
    policy: RoutingPolicy,
    *,
    policy_name: str,
    level: float,
    seed: int,
) -> list[EvaluationRow]:
    test, rewards = replay.test, _rewards(replay.test, policy)
    base = next(s.selection for s in strategies if s.selection.name == BEST_SINGLE)
    rows = []
    for strategy in strategies:
        selection = strategy.selection
        performance, reached = selection.expected(test.performance), selection.expected(rewards)
        if np.isnan(reached).any():
            message = (
                f"'{selection.name}' under policy '{policy_name}' chose candidates whose cost is not in the "
                "held-out logs. Pass the prices of all candidates, or leave the policy out."
            )
            raise NotEnoughLogsError(message)
        cost = selection.expected(test.cost_usd).mean()
        gains = {
            "performance_gain": performance - base.expected(test.performance),
            "reward_gain": reached - base.expected(rewards),
        }
        rows.append(
            EvaluationRow(
                policy=policy_name,
                strategy=selection.name,
                performance=float(performance.mean()),
                cost_usd=None if np.isnan(cost) else float(cost),
                reward=float(reached.mean()),
                switch_share=strategy.switch_share,
                per_task={task: float(performance[mask].mean()) for task, mask in replay.task_masks.items()},
                candidate_shares={
                    candidate.id: float(share)
                    for candidate, share in zip(test.candidates, selection.weights.mean(axis=0), strict=True)
                },
                **{
                    name: paired_interval(gain, groups=replay.groups, level=level, seed=seed)
                    for name, gain in gains.items()
                },
            )
        )
    return rows
