"""Replay held-out logs: what each router would have reached beside what needs no router.

Every replayed query has an answer of every candidate, so a strategy's outcome is looked up, not estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.evaluation.baselines import BASELINES, BEST_SINGLE
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.evaluation.replay import replay_facts, replay_logs
from fusion_integrations.evaluation.strategies import baseline_strategies, measure, routed_strategy
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.query_level.labels import AnyLabel
from fusion_integrations.query_level.policy import POLICY_PRESETS, RoutingPolicy
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
    replay = replay_logs(
        as_frame(logs),
        train_frame=train_frame,
        candidates=first.candidates,
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
        strategies = baseline_strategies(replay, policy)
        for name, router in routers.items():
            strategies.append(
                routed_strategy(
                    name,
                    predictions[name],
                    policy,
                    basis=router.basis,
                    prices=prices,
                    columns=replay.test.candidates,
                )
            )
        reference = next(s.selection for s in strategies if s.selection.name == BEST_SINGLE)
        for strategy in strategies:
            outcome = measure(
                strategy,
                reference=reference,
                replay=replay,
                policy=policy,
                policy_name=policy_name,
                level=level,
                seed=seed,
            )
            rows.append(EvaluationRow(policy=policy_name, strategy=strategy.selection.name, **vars(outcome)))
    facts = replay_facts(replay, label=label, routers=routers, train_frame=train_frame)
    return EvaluationReport(
        rows=tuple(rows), policies=dict(policies), cost_scale_usd=scales, level=level, **vars(facts)
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
