"""Turn who answered into what was reached: the rows of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fusion_integrations.evaluation.baselines import (
    BEST_PER_TASK,
    BEST_SINGLE,
    Matrix,
    Selection,
    best_per_task,
    best_single,
    oracle,
    random_baseline,
    select_columns,
)
from fusion_integrations.evaluation.benchmark_arena import Arena
from fusion_integrations.evaluation.benchmark_report import (
    BenchmarkRow,
    HeadDetails,
    ScenarioOutcome,
)
from fusion_integrations.evaluation.cross_validation import RoutedQueries
from fusion_integrations.evaluation.query_outcomes import QueryOutcome, query_outcomes
from fusion_integrations.evaluation.router_details import describe_router
from fusion_integrations.evaluation.splitting import Mask
from fusion_integrations.evaluation.strategies import dataset_rewards
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.query_kinds import Kinds
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.unanswered import complete_kinds, fill_amounts
from fusion_integrations.statistics import Interval, paired_interval

__all__ = ["Scoreboard"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scoreboard:
    """Measures strategies on the measured queries of an arena, against Best Single.

    Attributes:
        arena: The queries and policies.
        outcomes: What every candidate reaches, n queries.
        measured: (n,) queries to measure on.
        is_estimated: Whether outcomes are estimates; the best of several is then mostly luck.
        level: Coverage of intervals.
    """

    arena: Arena
    outcomes: RouterDataset
    measured: Mask
    is_estimated: bool
    level: float

    def baseline_rows(self) -> list[BenchmarkRow]:
        """Measure Random, Best Single, Best per Task and, where outcomes were looked up, Oracle."""
        first = next(iter(self._baselines.values()))
        return [
            self._row(strategy, {name: found[strategy] for name, found in self._baselines.items()})
            for strategy in first
        ]

    def head_row(self, head: str, routed: RoutedQueries) -> BenchmarkRow:
        """Measure a head."""
        selections = {
            name: select_columns(head, np.maximum(chosen, 0), n_candidates=self._k)
            for name, chosen in routed.chosen.items()
        }
        return self._row(head, selections, head=self._details(routed))

    def query_outcomes(
        self, routed: Mapping[str, RoutedQueries], *, n_shown: int | None
    ) -> list[QueryOutcome]:
        """Pick queries to show: those where a head's choice changed most, then others at random."""
        first = next(iter(self.arena.policies))
        best = self._baselines[first][BEST_SINGLE].weights.argmax(axis=1)
        return query_outcomes(
            self.arena.dataset.select(self.measured),
            {head: found.chosen[first][self.measured] for head, found in routed.items()},
            reached=self.outcomes.performance[self.measured],
            best_single=best[self.measured],
            n_shown=n_shown,
            seed=self.arena.seed,
        )

    @property
    def _k(self) -> int:
        return len(self.outcomes.candidates)

    @cached_property  # every row is compared with them
    def _baselines(self) -> dict[str, dict[str, Selection]]:
        return {name: self._baselines_under(policy) for name, policy in self.arena.policies.items()}

    def _baselines_under(self, policy: RoutingPolicy) -> dict[str, Selection]:
        """Choose Best Single and Best per Task on each part's training queries; n queries each."""
        logged, n = self.arena.dataset, len(self.arena.dataset)
        rewards = dataset_rewards(self.outcomes, policy)
        single, per_task = np.zeros((n, self._k)), np.zeros((n, self._k))
        tasks = np.array(logged.tasks, dtype=np.object_)
        for (train, test), kinds in zip(self.arena.parts, self.arena.training_kinds, strict=True):
            known, propensity = _training_rewards(logged.select(train), policy, kinds)
            single[test] = best_single(known, propensity=propensity, n_queries=int(test.sum())).weights
            per_task[test] = best_per_task(
                tasks[test].tolist(),
                train_rewards=known,
                train_tasks=tasks[train].tolist(),
                propensity=propensity,
            ).weights
        found = [
            random_baseline(np.where(np.isnan(rewards).all(axis=1, keepdims=True), 0.0, rewards)),
            Selection(name=BEST_SINGLE, weights=single),
            Selection(name=BEST_PER_TASK, weights=per_task),
        ]
        if not self.is_estimated:
            found.append(oracle(rewards, cost_usd=self.outcomes.cost_usd))
        return {selection.name: selection for selection in found}

    def _row(
        self, strategy: str, selections: Mapping[str, Selection], *, head: HeadDetails | None = None
    ) -> BenchmarkRow:
        first = next(iter(selections.values()))
        performance = first.expected(self.outcomes.performance)
        tasks = np.array([task or "" for task in self.outcomes.tasks])[self.measured]
        return BenchmarkRow(
            strategy=strategy,
            scenarios={name: self._outcome(found, name) for name, found in selections.items()},
            per_task={
                str(task): float(performance[self.measured][tasks == task].mean())
                for task in np.unique(tasks)
                if task
            },
            candidate_shares={
                candidate.id: float(share)
                for candidate, share in zip(
                    self.outcomes.candidates, first.weights[self.measured].mean(axis=0), strict=True
                )
            },
            head=head,
        )

    def _outcome(self, selection: Selection, policy_name: str) -> ScenarioOutcome:
        policy = self.arena.policies[policy_name]
        rewards = dataset_rewards(self.outcomes, policy)
        reached = selection.expected(rewards)
        reference = self._baselines[policy_name][BEST_SINGLE].expected(rewards)
        cost = selection.expected(self.outcomes.cost_usd)[self.measured].mean()
        return ScenarioOutcome(
            performance=float(selection.expected(self.outcomes.performance)[self.measured].mean()),
            cost_usd=None if np.isnan(cost) else float(cost),
            reward=float(reached[self.measured].mean()),
            gain=self._interval(reached - reference),
        )

    def _interval(self, differences: npt.NDArray[np.float64]) -> Interval:
        return paired_interval(
            differences[self.measured],
            groups=self.arena.groups[self.measured].tolist(),
            level=self.level,
            seed=self.arena.seed,
        )

    def _details(self, routed: RoutedQueries) -> HeadDetails:
        first, rows = next(iter(self.arena.policies)), np.flatnonzero(self.measured)
        best = np.where(np.isnan(routed.predicted), -1.0, routed.predicted).argmax(axis=1)
        logged = self.arena.dataset.select(rows)
        was_predicted = ~np.isnan(routed.predicted[rows])
        chosen = next(iter(routed.chosen.values()))  # the default where routing does not pay: a choice too
        details = describe_router(
            routed.predicted[rows],
            routed.se[rows],
            outcomes=self.outcomes.select(rows),
            logged=replace(logged, performance=np.where(was_predicted, logged.performance, np.nan)),
            choices=[choice[rows] for choice in (*routed.curve, chosen)] if len(routed.curve) else [],
            best_single=self._baselines[first][BEST_SINGLE].weights[rows].argmax(axis=1),
            groups=self.arena.groups[rows].tolist(),
            seed=self.arena.seed,
        )
        return HeadDetails(
            switch_share=float(routed.switched[rows].mean()),
            unbounded=self._outcome(select_columns("", best, n_candidates=self._k), first),
            train_seconds=routed.seconds,
            n_members=routed.n_members,
            head_names=Counter(routed.head_names),
            **vars(details),
        )


def _training_rewards(train: RouterDataset, policy: RoutingPolicy, kinds: Kinds) -> tuple[Matrix, Matrix]:
    """Give (m, k) rewards and propensities; of kinds of query that a candidate left out they are assumed."""
    performance, propensity = complete_kinds(train.performance, train.propensity, kinds)
    cost_usd = fill_amounts(train.cost_usd, ~np.isnan(train.performance), kinds)
    return dataset_rewards(replace(train, performance=performance, cost_usd=cost_usd), policy), propensity
