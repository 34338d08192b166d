"""Scores the answers of a log store that have no score yet, and says what it could not score and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from fusion_integrations.errors import FusionError, InvalidPolicyError, LogSchemaError
from fusion_integrations.logs.schema import LogRecord, Score, ScoreKind
from fusion_integrations.logs.store import LogStore
from fusion_integrations.scoring.llm_judge import JudgeItem, LLMJudge
from fusion_integrations.scoring.metrics import find_metric, score
from fusion_integrations.types import ABANDONED, query_text

__all__ = [
    "AnswerScorer",
    "JudgeScorer",
    "LogScorer",
    "MetricScorer",
    "Rescore",
    "ScoringReport",
    "Unscored",
]

Rescore = Literal["missing", "outdated"]
"""Which answers to score: those without a score of the kind, or also those that another scorer or version
scored."""


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """Why an answer got no score.

    Attributes:
        reason: In few words, the same for all answers of a kind.
        detail: Message of the error, if scoring was tried and failed; else empty.
    """

    reason: str
    detail: str = ""


class AnswerScorer(Protocol):
    """Scores answers in one way."""

    @property
    def kind(self) -> ScoreKind:
        """The kind of its scores."""
        ...

    def identify(self, record: LogRecord) -> tuple[str, str] | Unscored:
        """Say who would score a record, and in which version; or why it cannot be."""
        ...

    def score_all(self, records: Sequence[LogRecord], *, now: datetime) -> list[Score | Unscored]:
        """Score records that `identify` accepted, in their order."""
        ...


class MetricScorer:
    """Scores answers by the metric that their record names."""

    @property
    def kind(self) -> ScoreKind:
        """The kind of its scores."""
        return "performance"

    def identify(self, record: LogRecord) -> tuple[str, str] | Unscored:
        """Return name and version of the record's metric, or why it cannot be scored."""
        if record.metric is None:
            return Unscored(reason="no metric")
        if record.reference is None:
            return Unscored(reason="no reference")
        try:
            metric = find_metric(record.metric)
        except LogSchemaError as error:
            return Unscored(reason=f"unknown metric '{record.metric}'", detail=str(error))
        return metric.name, metric.version

    def score_all(self, records: Sequence[LogRecord], *, now: datetime) -> list[Score | Unscored]:
        """Score each record; a failure is its own."""
        return [self._score(record, now) for record in records]

    def _score(self, record: LogRecord, now: datetime) -> Score | Unscored:
        metric = find_metric(record.metric or "")
        try:
            value = score(
                record.response or "",
                metric=metric.name,
                reference=record.reference or "",
                query=query_text(record.messages),
            )
        except FusionError as error:
            return Unscored(reason=f"{metric.name}: {type(error).__name__}", detail=str(error))
        return Score(
            record_id=record.record_id,
            kind="performance",
            scorer=metric.name,
            version=metric.version,
            value=value,
            created_at=now,
        )


class JudgeScorer:
    """Scores answers with a language model.

    Args:
        judge: Who judges.
    """

    def __init__(self, judge: LLMJudge) -> None:
        self._judge = judge

    @property
    def kind(self) -> ScoreKind:
        """The kind of its scores."""
        return "judge"

    def identify(self, record: LogRecord) -> tuple[str, str] | Unscored:  # noqa: ARG002  # any can be judged
        """Return who judges, and the version of prompt and settings."""
        return self._judge.scorer, self._judge.version

    def score_all(self, records: Sequence[LogRecord], *, now: datetime) -> list[Score | Unscored]:
        """Judge the records together; one bad call costs only itself."""
        items = [
            JudgeItem(
                query=query_text(record.messages), response=record.response or "", reference=record.reference
            )
            for record in records
        ]
        return [
            Unscored(reason=type(verdict).__name__, detail=str(verdict))
            if isinstance(verdict, FusionError)
            else verdict.to_score(record.record_id, created_at=now)
            for record, verdict in zip(records, self._judge.judge_each(items), strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class ScoringReport:
    """What one run of scoring did.

    Attributes:
        n_scored: Scores added.
        n_known: Answers that had their score.
        n_unscored: Answers that have none, by reason.
        n_failed: Those of them that scoring was tried on.
        last_failures: The latest record id and message of each reason that has messages.
    """

    n_scored: int
    n_known: int
    n_unscored: Mapping[str, int]
    n_failed: int
    last_failures: Mapping[str, str]


class LogScorer:
    """Fills in the scores that a log store lacks.

    Every batch is stored as it is done, so a run may be ended at any moment and the next one goes on: it
    scores only what has no score. Scores are added, never replaced; the latest of a kind counts.

    Args:
        store: Where the answers are and the scores go.
        scorer: How to score.
        rescore: `"missing"`, or `"outdated"` to score again what another scorer or version scored.
        batch_size: Most answers to score at once, and to lose when a run is killed.
        on_progress: Called with the number of records looked at and of all records, after every batch.
        clock: Gives the time of the scores, with a time zone.

    Raises:
        InvalidPolicyError: If the batch size is below 1.
    """

    def __init__(
        self,
        store: LogStore,
        scorer: AnswerScorer,
        *,
        rescore: Rescore = "missing",
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if batch_size < 1:
            raise InvalidPolicyError(f"batch_size must be at least 1, got {batch_size}.")
        self._store = store
        self._scorer = scorer
        self._rescore = rescore
        self._batch_size = batch_size
        self._on_progress = on_progress
        self._clock = clock

    def score(self, *, limit: int | None = None) -> ScoringReport:
        """Score what has no score.

        Args:
            limit: Most answers to try; None means all.

        Returns:
            What this run did.

        Raises:
            LogStoreError: If the store cannot be read or written.
        """
        tally = _Tally()
        scored = self._scored()
        n_total = self._store.stats().n_records
        waiting: list[LogRecord] = []
        n_tried = n_seen = 0
        for n_seen, record in enumerate(self._store.records(), start=1):
            if limit is not None and n_tried + len(waiting) >= limit:
                break
            if not self._is_due(record, scored, tally):
                continue
            waiting.append(record)
            if len(waiting) == self._batch_size:
                n_tried += self._flush(waiting, tally)
                self._tell(n_seen, n_total)
        self._flush(waiting, tally)
        self._tell(n_seen, n_total)
        return tally.report()

    def _tell(self, n_done: int, n_total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(n_done, n_total)

    def _scored(self) -> set[tuple[str, ...]]:
        """Return what has a score already: record ids, or with who scored and in which version."""
        of_kind = (each for each in self._store.scores() if each.kind == self._scorer.kind)
        if self._rescore == "missing":
            return {(each.record_id,) for each in of_kind}
        return {(each.record_id, each.scorer, each.version) for each in of_kind}

    def _is_due(self, record: LogRecord, scored: set[tuple[str, ...]], tally: _Tally) -> bool:
        if self._rescore == "missing" and (record.record_id,) in scored:
            tally.n_known += 1
            return False
        obstacle = _obstacle(record)
        identity = obstacle or self._scorer.identify(record)
        if isinstance(identity, Unscored):
            tally.add(record, identity)
            return False
        if (record.record_id, *identity) in scored:
            tally.n_known += 1
            return False
        return True

    def _flush(self, waiting: list[LogRecord], tally: _Tally) -> int:
        """Score and store what is waiting; return how many that were."""
        n_tried = len(waiting)
        if waiting:
            outcomes = self._scorer.score_all(waiting, now=self._clock())
            tally.n_scored += self._store.add_scores(
                outcome for outcome in outcomes if isinstance(outcome, Score)
            )
            for record, outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, Unscored):
                    tally.add(record, outcome)
                    tally.n_failed += 1
        waiting.clear()
        return n_tried


class _Tally:
    """Counts of a run under way."""

    def __init__(self) -> None:
        self.n_scored = self.n_known = self.n_failed = 0
        self._n_unscored: Counter[str] = Counter()
        self._last_failures: dict[str, str] = {}

    def add(self, record: LogRecord, outcome: Unscored) -> None:
        self._n_unscored[outcome.reason] += 1
        if outcome.detail:
            self._last_failures[outcome.reason] = f"record '{record.record_id}': {outcome.detail}"

    def report(self) -> ScoringReport:
        return ScoringReport(
            n_scored=self.n_scored,
            n_known=self.n_known,
            n_unscored=dict(self._n_unscored.most_common()),
            n_failed=self.n_failed,
            last_failures=self._last_failures,
        )


def _obstacle(record: LogRecord) -> Unscored | None:
    """Say why there is no answer to score, if there is none."""
    if record.error is not None:
        return Unscored(reason="failed call")
    if record.response is None:
        return Unscored(reason="no response")
    if record.finish_reason == ABANDONED:
        return Unscored(reason="abandoned before its end")
    return None
