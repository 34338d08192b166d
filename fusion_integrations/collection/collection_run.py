"""Store what a run of a collection brings, and keep count of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fusion_integrations.collection.asking import Outcome
from fusion_integrations.collection.collected_records import RecordMaker, score_of
from fusion_integrations.collection.planned_calls import CandidatePlan
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore

__all__ = ["CollectionProgress", "CollectionReport", "CollectionRun", "ProgressCallback"]


@dataclass(frozen=True, kw_only=True)
class CollectionProgress:
    """How far a candidate is.

    Attributes:
        candidate_id: The candidate.
        n_done: Its calls that are in the store, failed ones of this run included.
        n_total: Its calls in all.
        cost_usd: What its answers of this run cost; None if that of any is unknown.
    """

    candidate_id: str
    n_done: int
    n_total: int
    cost_usd: float | None


ProgressCallback = Callable[[CollectionProgress], None]


@dataclass(frozen=True, kw_only=True)
class CollectionReport:
    """What one run of a collection did.

    Attributes:
        n_done: Answers collected and stored.
        n_failed: Calls that failed; stored as records with an error, and tried again by the next run.
        n_skipped: Answers that an earlier run had stored.
        n_unscored: Answers stored without a score though their query names a metric: it has no reference, or
            the metric failed.
        n_left: Calls not made because they could have exceeded the budget.
        cost_usd: What the new answers cost; None if the cost of any is unknown.
        billed_usd: What this run was billed: nominal prices aside, and with failed calls that may have been
            charged at the most they can have cost; None if one has no bound.
    """

    n_done: int = 0
    n_failed: int = 0
    n_skipped: int = 0
    n_unscored: int = 0
    n_left: int = 0
    cost_usd: float | None = 0.0
    billed_usd: float | None = 0.0


class CollectionRun:
    """One run: what is stored, counted and told of it. Threads may share it.

    Args:
        plans: What is asked.
        store: Where answers and scores go.
        maker: Makes the records.
        on_progress: Told of every change.
    """

    def __init__(
        self,
        plans: Sequence[CandidatePlan],
        *,
        store: LogStore,
        maker: RecordMaker,
        on_progress: ProgressCallback | None,
    ) -> None:
        self.report = CollectionReport(n_skipped=sum(plan.n_known for plan in plans))
        self._adding = threading.Lock()
        self._store = store
        self._maker = maker
        self._on_progress = on_progress
        self._n_total = {plan.candidate.id: plan.n_total for plan in plans}
        self._n_done = {plan.candidate.id: plan.n_known for plan in plans}
        self._cost_usd: dict[str, float | None] = {plan.candidate.id: 0.0 for plan in plans}

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Store outcomes of one candidate with their scores, in one transaction; then tell of them."""
        records = [self._maker.records(outcome) for outcome in outcomes]
        scores: list[Score] = []
        n_unscored = 0
        answers = [last for *_, last in records if last.response is not None]
        for record in answers:
            score = score_of(record)
            if score is not None:
                scores.append(score)
            elif record.metric is not None:
                n_unscored += 1
        with self._adding:  # scoring may take long, and several threads may score at once
            self._store.add([record for each in records for record in each], scores)
            self._count(outcomes[0].call.candidate.id, answers, n_calls=len(outcomes), n_unscored=n_unscored)

    def _count(
        self, candidate_id: str, answers: Sequence[LogRecord], *, n_calls: int, n_unscored: int
    ) -> None:
        costs = [record.cost_usd for record in answers]
        self.report = replace(
            self.report,
            n_done=self.report.n_done + len(answers),
            n_failed=self.report.n_failed + n_calls - len(answers),
            n_unscored=self.report.n_unscored + n_unscored,
            cost_usd=_sum_known([self.report.cost_usd, *costs]),
        )
        self._n_done[candidate_id] += n_calls
        self._cost_usd[candidate_id] = _sum_known([self._cost_usd[candidate_id], *costs])
        self.tell(candidate_id)

    def tell(self, candidate_id: str) -> None:
        """Say how far a candidate is."""
        if self._on_progress is not None:
            self._on_progress(
                CollectionProgress(
                    candidate_id=candidate_id,
                    n_done=self._n_done[candidate_id],
                    n_total=self._n_total[candidate_id],
                    cost_usd=self._cost_usd[candidate_id],
                )
            )


def _sum_known(amounts: Sequence[float | None]) -> float | None:
    """Add amounts; an unknown one makes the sum unknown."""
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if len(known) == len(amounts) else None
