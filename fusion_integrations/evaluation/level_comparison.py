"""Which fusion level is worth it? Zero-shot, query, thought and model level on the same held-out queries.

No level wins everywhere, so each is measured alone, and so is the router that chooses among all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError, UnknownCandidateError
from fusion_integrations.evaluation.baselines import BEST_SINGLE, Selection, select_columns
from fusion_integrations.evaluation.level_report import FusionLevel, Level, LevelEffect, LevelReport, LevelRow
from fusion_integrations.evaluation.replay import Replay, replay_facts, replay_logs
from fusion_integrations.evaluation.strategies import (
    Strategy,
    baseline_strategies,
    best_single_candidate,
    dataset_rewards,
    measure,
    routed_strategy,
)
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.query_level.labels import AnyLabel
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.statistics import paired_interval
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["compare_levels"]

_MIN_TRAINING = 20  # as many answers as RouterTrainer wants before it trusts a candidate's mean


def compare_levels(
    *,
    query_router: RouterModel,
    all_router: RouterModel,
    students: Mapping[str, str],
    logs: pl.DataFrame | LogSource,
    train_logs: pl.DataFrame | LogSource,
    policy: RoutingPolicy = PERFORMANCE_FIRST,
    prices: PriceTable | None = None,
    label: AnyLabel = "performance",
    coverage: float = 0.95,
    seed: int = 0,
) -> LevelReport:
    """Compare the fusion levels on held-out logs, each with the best zero-shot candidate.

    A candidate belongs to the model level if its model is a student, else to the thought level if its prompt
    mode is `"thought"`, else it is zero-shot. Each is a row; the query level is a router of the zero-shot
    candidates, all levels is a router of all candidates. The baselines may choose among all candidates.

    Held-out queries are replayed as by `evaluate_routers`: those that some candidate did not answer, or that
    training saw, are left out and counted.

    Training logs are partial where some queries taught the templates and the student, so that only the others
    were put to these. A candidate that was asked easier queries would look better. So the reference, Best
    Single and Best per Task are chosen by means over the training queries that every candidate in question
    answered: the zero-shot ones for the reference, all for the baselines.

    Each interval is of one row alone: with many rows some exclude 0 by chance. See also `evaluate_routers`.

    Args:
        query_router: A router of the zero-shot candidates.
        all_router: A router of all candidates; their order is that of the rows.
        students: Name of the base model by name of the student model.
        logs: Held-out logs.
        train_logs: All logs that the routers, the templates and the students learned from.
        policy: What routers and baselines maximise. Its limits do not bind the rows of single candidates.
        prices: Prices of the logged tokens, and what the routers are told. Default: costs as logged.
        label: Which score counts as performance.
        coverage: Coverage of the intervals, strictly between 0 and 1.
        seed: Seed of the bootstrap.

    Returns:
        The report.

    Raises:
        NotEnoughLogsError: If a candidate has no answer in the training or in the held-out logs, no held-out
            query or fewer than 20 training queries have one of every candidate, or a cost that the policy
            weighs was not logged.
        InvalidPolicyError: If an argument is out of range, there is neither a thought nor a model level, or
            cost counts but no cost scale is known.
        NoEligibleCandidateError: If the policy excludes every candidate, or every zero-shot one.
        UnknownCandidateError: If `query_router` chooses among others than the zero-shot candidates, or no
            candidate has a student as its model.
        LogSchemaError: If the logs lack columns.

    Source:
        FusionFactory (arXiv 2507.10540 v1), Table 6.
    """
    candidates = all_router.candidates
    levels = {candidate.id: _level_of(candidate, students) for candidate in candidates}
    zero_shot = tuple(candidate for candidate in candidates if levels[candidate.id] == "zero-shot")
    _check_arguments(query_router.candidates, zero_shot, candidates, students, coverage)
    frame, train_frame = as_frame(logs), as_frame(train_logs)
    for which, part in (("training", train_frame), ("held-out", frame)):
        _check_answered(part, candidates, levels, label=label, which=which)
    scaled = replace(policy, cost_scale_usd=all_router.basis.scale_for(policy))
    zero_shot_policy = _keep_to(zero_shot, scaled)
    replay = replay_logs(
        frame,
        train_frame=train_frame,
        candidates=candidates,
        label=label,
        prices=prices,
        needs_cost=policy.cost_weight > 0,
    )
    replay = replace(replay, train=_answered_by_all(replay.train, scaled))
    train = RouterDataset.from_logs(train_frame, candidates=zero_shot, label=label, prices=prices)
    train = _answered_by_all(train, scaled)
    reference = best_single_candidate(train, zero_shot_policy)
    bench = _Bench(
        replay=replay,
        students=students,
        levels=levels,
        reference=reference,
        query=_routed(query_router, replay, zero_shot_policy, prices),
        everything=_routed(all_router, replay, scaled, prices),
        baselines=tuple(baseline_strategies(replay, scaled)),
        policy=scaled,
        coverage=coverage,
        seed=seed,
    )
    routers = {"query level": query_router, "all levels": all_router}
    return LevelReport(
        rows=bench.rows(),
        effects=bench.effects(),
        reference=reference.id,
        students=dict(students),
        without_counterpart=bench.without_counterpart(),
        policy=policy,
        cost_scale_usd=scaled.cost_scale_usd if policy.cost_weight > 0 else None,
        coverage=coverage,
        n_train_queries=len(replay.train),
        n_reference_queries=len(train),
        **vars(replay_facts(replay, label=label, routers=routers, train_frame=train_frame)),
    )


def _level_of(candidate: Candidate, students: Mapping[str, str]) -> Level:
    if candidate.model in students:
        return "model level"
    return "thought level" if candidate.prompt_mode == "thought" else "zero-shot"


def _check_arguments(
    routed: Sequence[Candidate],
    zero_shot: Sequence[Candidate],
    candidates: Sequence[Candidate],
    students: Mapping[str, str],
    coverage: float,
) -> None:
    if not 0 < coverage < 1:
        raise InvalidPolicyError(f"coverage must lie strictly between 0 and 1, got {coverage}.")
    models = {candidate.model for candidate in candidates}
    strangers = sorted(set(students) - models)
    if strangers:
        message = (
            f"No candidate of all_router has the student {strangers} as its model; models: {sorted(models)}."
        )
        raise UnknownCandidateError(message)
    if len(zero_shot) == len(candidates):
        message = (
            f"All candidates of all_router are zero-shot: {[candidate.id for candidate in candidates]}. "
            "Train it on thought or student candidates too, and name the students."
        )
        raise InvalidPolicyError(message)
    found, wanted = (sorted((c.id, c.revision) for c in side) for side in (routed, zero_shot))
    if found != wanted:
        message = (
            f"query_router chooses among {found} (id, revision), but the zero-shot candidates of all_router "
            f"are {wanted}. Train it on these."
        )
        raise UnknownCandidateError(message)


def _check_answered(
    frame: pl.DataFrame,
    candidates: Sequence[Candidate],
    levels: Mapping[str, Level],
    *,
    label: AnyLabel,
    which: str,
) -> None:
    missing: dict[str, list[str]] = {}
    for candidate in candidates:
        try:
            RouterDataset.from_logs(frame, candidates=[candidate], label=label)
        except UnknownCandidateError:
            name = f"'{candidate.id}'" + (f" (revision {candidate.revision})" if candidate.revision else "")
            missing.setdefault(levels[candidate.id], []).append(name)
    if missing:
        lacking = "; ".join(f"{level}: {', '.join(names)}" for level, names in missing.items())
        message = (
            f"The {which} logs hold no scored answer of these candidates, so their level cannot be compared: "
            f"{lacking}. Put the {which} queries to them with `LogCollector` (of training "
            "queries, those that taught neither templates nor student) and score the answers."
        )
        raise NotEnoughLogsError(message)


def _answered_by_all(train: RouterDataset, policy: RoutingPolicy) -> RouterDataset:
    """Keep the training queries with a known reward of every candidate, all counting alike.

    Candidates without any known reward, whose cost was never logged, are the policy's matter.
    """
    is_known = ~np.isnan(dataset_rewards(train, policy))
    complete = np.flatnonzero(is_known[:, is_known.any(axis=0)].all(axis=1))
    if len(complete) < _MIN_TRAINING:
        counts = {c.id: int(n) for c, n in zip(train.candidates, is_known.sum(axis=0), strict=True)}
        message = (
            f"Only {len(complete)} training queries have a scored answer of every candidate; at least "
            f"{_MIN_TRAINING} are needed to say fairly which candidate was best. Answers: {counts}. Put the "
            "same training queries, which taught neither templates nor student, to all of them with "
            "`LogCollector`."
        )
        raise NotEnoughLogsError(message)
    shared = train.select(complete)
    # Propensities tell which cells of a column were rare; these rows have every cell.
    return replace(shared, propensity=np.ones_like(shared.propensity))


def _keep_to(candidates: Sequence[Candidate], policy: RoutingPolicy) -> RoutingPolicy:
    """Drop from what the policy allows what a router of these candidates does not know."""
    if policy.allowed is None:
        return policy
    return replace(policy, allowed=policy.allowed & {candidate.id for candidate in candidates})


def _routed(
    router: RouterModel, replay: Replay, policy: RoutingPolicy, prices: PriceTable | None
) -> Strategy:
    return routed_strategy(
        f"router of {len(router.candidates)} candidates",
        router.predict(replay.test.texts),
        policy,
        basis=router.basis,
        prices=prices,
        columns=replay.test.candidates,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """Measures every setting on one replay."""

    replay: Replay
    students: Mapping[str, str]
    levels: Mapping[str, Level]
    reference: Candidate
    query: Strategy
    everything: Strategy
    baselines: tuple[Strategy, ...]
    policy: RoutingPolicy
    coverage: float
    seed: int

    def rows(self) -> tuple[LevelRow, ...]:
        settings: list[tuple[Level, Sequence[Strategy]]] = [
            ("zero-shot", self._alone_at("zero-shot")),
            ("query level", [self.query]),
            ("thought level", self._alone_at("thought level")),
            ("model level", self._alone_at("model level")),
            ("all levels", [self.everything]),
            ("baseline", self.baselines),
        ]
        return tuple(self._row(level, strategy) for level, found in settings for strategy in found)

    def effects(self) -> tuple[LevelEffect, ...]:
        best_single = next(s.selection for s in self.baselines if s.selection.name == BEST_SINGLE)
        return (
            *(
                self._effect(level, self._alone(one), self._alone(other))
                for level, one, others in self._counterparts()
                for other in others
            ),
            self._effect("all levels", self.everything.selection, self.query.selection),
            self._effect("all levels", self.everything.selection, best_single),
        )

    def without_counterpart(self) -> tuple[str, ...]:
        return tuple(f"{one.id} ({level})" for level, one, others in self._counterparts() if not others)

    def _counterparts(self) -> Iterator[tuple[FusionLevel, Candidate, list[Candidate]]]:
        """Yield who differs from whom in one level alone: templates or none, student or its base model."""
        candidates = self.replay.test.candidates
        for one in candidates:
            if one.prompt_mode == "thought":
                others = [c for c in candidates if c.model == one.model and c.prompt_mode == "direct"]
                yield "thought level", one, others
        for one in candidates:
            if one.model in self.students:
                base = self.students[one.model]
                others = [c for c in candidates if c.model == base and c.prompt_mode == one.prompt_mode]
                yield "model level", one, others

    def _alone(self, candidate: Candidate) -> Selection:
        candidates = self.replay.test.candidates
        columns = np.full(len(self.replay.test), candidates.index(candidate))
        return select_columns(candidate.id, columns, n_candidates=len(candidates))

    def _alone_at(self, level: Level) -> list[Strategy]:
        return [
            Strategy(selection=self._alone(candidate))
            for candidate in self.replay.test.candidates
            if self.levels[candidate.id] == level
        ]

    def _row(self, level: Level, strategy: Strategy) -> LevelRow:
        outcome = measure(
            strategy,
            reference=self._alone(self.reference),
            replay=self.replay,
            policy=self.policy,
            policy_name=f"cost_weight={self.policy.cost_weight:g}",
            level=self.coverage,
            seed=self.seed,
        )
        return LevelRow(level=level, name=strategy.selection.name, **vars(outcome))

    def _effect(self, level: FusionLevel, ours: Selection, theirs: Selection) -> LevelEffect:
        test = self.replay.test
        change = float((ours.expected(test.cost_usd) - theirs.expected(test.cost_usd)).mean())
        gain = paired_interval(
            ours.expected(test.performance) - theirs.expected(test.performance),
            groups=self.replay.groups,
            level=self.coverage,
            seed=self.seed,
        )
        return LevelEffect(
            level=level,
            name=ours.name,
            against=theirs.name,
            performance_gain=gain,
            cost_change_usd=None if np.isnan(change) else change,
        )
