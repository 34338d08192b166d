"""Replay held-out logs: what each router would have reached beside what needs no router.

Where queries have an answer of every candidate, a strategy's outcome is looked up; on partial logs it is
estimated, and the report says what the estimates rest on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.evaluation.baselines import BASELINES, BEST_SINGLE, Selection
from fusion_integrations.evaluation.cross_validation import curve_choices
from fusion_integrations.evaluation.drift import (
    BestSingleDrift,
    Drift,
    RouterDrift,
    best_single_drift,
    router_drift,
    validated_gain,
)
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.evaluation.query_outcomes import QueryOutcome, query_outcomes
from fusion_integrations.evaluation.replay import Replay, replay_facts, replay_logs
from fusion_integrations.evaluation.router_details import RouterDetails, describe_router
from fusion_integrations.evaluation.strategies import (
    Strategy,
    baseline_strategies,
    best_single_candidate,
    dataset_rewards,
    eligible_columns,
    measure,
    routed_strategy,
)
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.query_level.decision import choose
from fusion_integrations.query_level.labels import AnyLabel
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, POLICY_PRESETS, RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.types import PriceTable

__all__ = ["evaluate_routers"]


def evaluate_routers(
    routers: Mapping[str, RouterModel],
    *,
    logs: pl.DataFrame | LogSource,
    train_logs: pl.DataFrame | LogSource,
    policies: Mapping[str, RoutingPolicy] = POLICY_PRESETS,
    prices: PriceTable | None = None,
    label: AnyLabel = "performance",
    name: str = "logs",
    level: float = 0.95,
    seed: int = 0,
    n_shown: int | None = 200,
) -> EvaluationReport:
    """Compare routers with Random, Best Single, Best per Task and Oracle on held-out logs.

    If at least half of the queries have an answer of every candidate, these are replayed. If not, outcomes of
    all queries are doubly robust estimates: what a model learned from the training logs, corrected by the
    logged answers. Queries that also occur in the training logs, themselves or as a near-duplicate, are left
    out. All that is left out is counted in the report.

    All strategies of one policy share its reward. Its cost scale is the policy's own, else that of the first
    router, and every router decides on it. The baselines keep to the policy's candidates; Best Single and
    Best per Task keep to its budget and wanted performance by their training means, Random and Oracle do not.
    Where training logs are partial, these means are doubly robust too, over the same queries for every
    candidate.

    The intervals say how far other queries of the same kind could move the result. They resample whole
    sessions where these were logged, else near-duplicates together. They do not cover another training run,
    and with many rows some exclude 0 by chance.

    Args:
        routers: Trained routers by name, all of the same candidates.
        logs: Held-out logs.
        train_logs: The logs the routers were trained on: the source of Best Single and Best per Task.
        policies: Policies by name.
        prices: Prices of the logged tokens, and what the routers are told. Default: costs as logged.
        label: Which score counts as performance.
        name: Of the held-out logs, for the report.
        level: Coverage of the intervals, strictly between 0 and 1.
        seed: Seed of the bootstrap.
        n_shown: How many queries the report holds, those that routing changes most first; None for all.

    Returns:
        The report: for each policy the baselines, then the routers in their order; then what is known of each
        router beside, and what changed since training.

    Raises:
        NotEnoughLogsError: If no query is left to replay, or a cost that a policy weighs was not logged.
        InvalidPolicyError: If an argument is out of range, or cost counts but no cost scale is known.
        NoEligibleCandidateError: If a policy excludes every candidate.
        UnknownCandidateError: If routers differ in their candidates, or one of them is not in the training
            logs, or none in the held-out ones.
        LogSchemaError: If the logs lack columns.
        MissingDependencyError: If the logs are partial and the package that learns their outcomes is not
            installed.

    Source:
        Dudik, Langford and Li, Doubly Robust Policy Evaluation and Learning (2011).
    """
    _check_arguments(routers, policies, level)
    first, train_frame = next(iter(routers.values())), as_frame(train_logs)
    replay = replay_logs(
        as_frame(logs),
        train_frame=train_frame,
        candidates=first.candidates,
        label=label,
        prices=prices,
        needs_cost=any(policy.cost_weight > 0 for policy in policies.values()),
        estimate_by=first.embedder,
        seed=seed,
    )
    predictions = {each: router.predict(replay.test.texts) for each, router in routers.items()}
    rows: list[EvaluationRow] = []
    scales: dict[str, float | None] = {}
    best_single: list[BestSingleDrift] = []
    queries: list[QueryOutcome] = []
    for policy_name, asked in policies.items():
        scale = first.basis.scale_for(asked)
        scales[policy_name] = scale if asked.cost_weight > 0 else None
        policy = replace(asked, cost_scale_usd=scale)
        strategies = [
            *baseline_strategies(replay, policy),
            *_routed(routers, predictions, policy, replay=replay, prices=prices),
        ]
        bench = _Bench(replay=replay, policy_name=policy_name, policy=policy, level=level, seed=seed)
        rows += bench.rows(strategies)
        best_single.append(bench.best_single(strategies))
        queries = queries or bench.queries(strategies, n_shown=n_shown)
    facts = replay_facts(replay, label=label, routers=routers, train_frame=train_frame)
    return EvaluationReport(
        name=name,
        rows=tuple(rows),
        candidate_means=_candidate_means(replay.test),
        policies=dict(policies),
        cost_scale_usd=scales,
        level=level,
        details=_details(routers, predictions, replay=replay, prices=prices, seed=seed),
        queries=tuple(queries),
        drift=Drift(
            routers=_router_drifts(rows, routers, policies, n_groups=facts.n_groups),
            best_single=tuple(best_single),
            novel={each: _n_novel(prediction) for each, prediction in predictions.items()},
            n_queries=len(replay.test),
        ),
        **vars(facts),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """Measures strategies under one policy, whose cost scale is set."""

    replay: Replay
    policy_name: str
    policy: RoutingPolicy
    level: float
    seed: int

    def rows(self, strategies: Sequence[Strategy]) -> list[EvaluationRow]:
        reference = _reference(strategies)
        found = []
        for strategy in strategies:
            outcome = measure(
                strategy,
                reference=reference,
                replay=self.replay,
                policy=self.policy,
                policy_name=self.policy_name,
                level=self.level,
                seed=self.seed,
            )
            name = strategy.selection.name
            found.append(EvaluationRow(policy=self.policy_name, strategy=name, **vars(outcome)))
        return found

    def queries(self, strategies: Sequence[Strategy], *, n_shown: int | None) -> list[QueryOutcome]:
        return query_outcomes(
            self.replay.logged,
            {
                each.selection.name: each.selection.weights.argmax(axis=1)
                for each in strategies
                if each.switch_share is not None
            },
            reached=self.replay.test.performance,
            best_single=_reference(strategies).weights.argmax(axis=1),
            n_shown=n_shown,
            seed=self.seed,
        )

    def best_single(self, strategies: Sequence[Strategy]) -> BestSingleDrift:
        test = self.replay.test
        return best_single_drift(
            self.policy_name,
            dataset_rewards(test, self.policy),
            trained=int(_reference(strategies).weights[0].argmax()),
            eligible=eligible_columns(self.replay, self.policy)[1],
            ids=tuple(candidate.id for candidate in test.candidates),
            groups=self.replay.groups,
            level=self.level,
            seed=self.seed,
        )


def _routed(
    routers: Mapping[str, RouterModel],
    predictions: Mapping[str, Prediction],
    policy: RoutingPolicy,
    *,
    replay: Replay,
    prices: PriceTable | None,
) -> list[Strategy]:
    return [
        routed_strategy(
            name,
            predictions[name],
            policy,
            basis=router.basis,
            prices=prices,
            columns=replay.test.candidates,
        )
        for name, router in routers.items()
    ]


def _candidate_means(test: RouterDataset) -> dict[str, tuple[float, float | None]]:
    means = zip(
        test.candidates,
        test.performance.mean(axis=0).tolist(),
        test.cost_usd.mean(axis=0).tolist(),
        strict=True,
    )
    return {
        candidate.id: (performance, None if np.isnan(cost) else cost)
        for candidate, performance, cost in means
    }


def _reference(strategies: Sequence[Strategy]) -> Selection:
    return next(each.selection for each in strategies if each.selection.name == BEST_SINGLE)


def _router_drifts(
    rows: Sequence[EvaluationRow],
    routers: Mapping[str, RouterModel],
    policies: Mapping[str, RoutingPolicy],
    *,
    n_groups: int,
) -> tuple[RouterDrift, ...]:
    return tuple(
        router_drift(
            row.strategy,
            row.policy,
            validated=validated_gain(routers[row.strategy].metrics, policies[row.policy]),
            gain=row.reward_gain,
            n_groups=n_groups,
        )
        for row in rows
        if row.is_router
    )


def _n_novel(prediction: Prediction) -> int | None:
    return None if prediction.is_novel is None else int(prediction.is_novel.sum())


def _details(
    routers: Mapping[str, RouterModel],
    predictions: Mapping[str, Prediction],
    *,
    replay: Replay,
    prices: PriceTable | None,
    seed: int,
) -> dict[str, RouterDetails]:
    return {
        name: _details_of(router, predictions[name], replay=replay, prices=prices, seed=seed)
        for name, router in routers.items()
    }


def _details_of(
    router: RouterModel, prediction: Prediction, *, replay: Replay, prices: PriceTable | None, seed: int
) -> RouterDetails:
    """Measure a router by performance alone and at every cost weight; columns are those of the replay."""
    ids = [candidate.id for candidate in router.candidates]
    order = [ids.index(candidate.id) for candidate in replay.test.candidates]
    prediction = prediction.select_candidates(order)
    basis = replace(router.basis, average=router.basis.average.select_candidates(order))
    curve = curve_choices(prediction, basis=basis, prices=prices)
    validated = choose(prediction, PERFORMANCE_FIRST, basis=basis, prices=prices).chosen
    single = best_single_candidate(replay.train, PERFORMANCE_FIRST)
    return describe_router(
        prediction.performance,
        basis.se_scale * prediction.performance_se,
        outcomes=replay.test,
        logged=replay.logged,
        choices=[*curve, validated] if len(curve) else [],
        best_single=np.full(len(replay.test), replay.test.candidates.index(single)),
        groups=replay.groups,
        seed=seed,
    )


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
