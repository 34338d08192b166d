"""Turn the outcome of a collection's call into its log record and score."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fusion_integrations.collection.asking import Outcome, may_be_billed
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.text import storable_text
from fusion_integrations.scoring.metrics import find_metric, score
from fusion_integrations.types import Candidate, Completion, PriceTable, query_text

__all__ = ["RecordMaker", "score_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecordMaker:
    """Knows what all records of a collection have in common.

    Attributes:
        collection: Name of the collection.
        candidates: All that were asked.
        prices: What they charge.
        clock: Gives the time of a record.
    """

    collection: str
    candidates: Sequence[Candidate]
    prices: PriceTable
    clock: Callable[[], datetime]

    def records(self, outcome: Outcome) -> list[LogRecord]:
        """Return the record of a call, before it those of its failed attempts that may have cost something.

        Failures go under ids of their own: the planned record stays unknown to the store, so that the next
        run tries again.
        """
        return [
            *(self._failed(outcome, error) for error in outcome.failed_attempts),
            self._answered(outcome, outcome.answer)
            if isinstance(outcome.answer, Completion)
            else self._failed(outcome, outcome.answer),
        ]

    def _answered(self, outcome: Outcome, answer: Completion) -> LogRecord:
        latency_s = None if answer.latency_s is None else answer.latency_s / outcome.n_together
        try:
            return self._describe(outcome)(
                record_id=outcome.call.record_id,
                response=answer.text,
                finish_reason=answer.finish_reason,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                latency_s=latency_s,
                cost_usd=self.prices.cost_usd(
                    outcome.call.candidate,
                    input_tokens=answer.input_tokens,
                    output_tokens=answer.output_tokens,
                ),
            )
        except ValueError as error:  # an answer that no record can hold is a failure too
            return self._failed(outcome, error)

    def _failed(self, outcome: Outcome, error: Exception) -> LogRecord:
        now = self.clock()
        return self._describe(outcome, now)(
            record_id=f"{outcome.call.record_id}!error-{now.isoformat()}",
            error=storable_text(f"{type(error).__name__}: {error}"),
            cost_usd=None if may_be_billed(error) else 0.0,
        )

    def _describe(self, outcome: Outcome, now: datetime | None = None) -> functools.partial[LogRecord]:
        query, candidate = outcome.call.query, outcome.call.candidate
        return functools.partial(
            LogRecord,
            query_id=query.query_id,
            messages=query.messages,
            task=query.task,
            reference=query.reference,
            metric=query.metric,
            candidate_id=candidate.id,
            candidate_revision=candidate.revision,
            model=candidate.model,
            prompt_mode=candidate.prompt_mode,
            assignment="factorial",
            propensity=1.0,
            eligible=tuple(each.id for each in self.candidates),
            created_at=now or self.clock(),
            source=self.collection,
            sample=outcome.call.sample,
        )


def score_of(record: LogRecord) -> Score | None:
    """Score an answer by its query's metric.

    Args:
        record: The answer.

    Returns:
        The score; None where there is nothing to score, or scoring failed.
    """
    if record.response is None or record.metric is None or record.reference is None:
        return None
    try:
        metric = find_metric(record.metric)
        value = score(
            record.response,
            metric=record.metric,
            reference=record.reference,
            query=query_text(record.messages),
        )
    except Exception:  # the answer was paid for and scores can be added later
        logger.warning("Metric %s failed on record %s.", record.metric, record.record_id, exc_info=True)
        return None
    return Score(
        record_id=record.record_id,
        kind="performance",
        scorer=metric.name,
        version=metric.version,
        value=value,
        created_at=record.created_at,
    )
