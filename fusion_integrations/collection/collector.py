"""Ask every candidate every query and log the answers: the complete logs that a router learns most from."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fusion_integrations.errors import (
    CandidateCallError,
    InvalidPolicyError,
    LogSchemaError,
    UnknownCandidateError,
)
from fusion_integrations.logs.schema import LogRecord, Score, collection_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.prompts import apply_prompt_edit, prompt_edit
from fusion_integrations.protocols import ChatClient
from fusion_integrations.scoring.metrics import find_metric, score
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import (
    Candidate,
    Completion,
    GenerationOptions,
    Message,
    PriceTable,
    Query,
    query_text,
)

__all__ = ["CollectionReport", "LogCollector", "ProgressCallback"]

logger = logging.getLogger(__name__)

# Called with a candidate's id, how many of its queries are in the store, and how many there are.
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class CollectionReport:
    """What one run of a collection did.

    Attributes:
        n_done: Answers collected and stored.
        n_failed: Calls that failed; stored as records with an error, and tried again by the next run.
        n_skipped: Answers that an earlier run had stored.
        n_unscored: Answers stored without a score though their query names a metric: it has no reference, or
            the metric failed.
        cost_usd: What the new answers cost; None if the cost of any is unknown.
    """

    n_done: int = 0
    n_failed: int = 0
    n_skipped: int = 0
    n_unscored: int = 0
    cost_usd: float | None = 0.0


class LogCollector:
    """Collects one answer of every candidate to every query.

    Work is stored batch by batch, answers and scores in one transaction, so a run may be ended at any moment
    (even killed) and the next one goes on: it asks only for what the store lacks. A failing call never ends a
    run. The latency of an answer is that of its batch divided by the batch's size: what the answer took of
    the machine's time, not what a single caller would have waited.

    Args:
        clients: Who runs each model, by `Candidate.model`; asked for a client only when it has work.
        candidates: Who answers: model candidates with distinct ids.
        store: Where answers and scores go.
        collection: Name of the collection; part of every record's identity and its `source`.
        prices: Prices of the models; without one the cost is logged as unknown.
        options: How to generate, by candidate id; others use their client's default.
        thoughts: Finds the guidance of candidates of prompt mode `thought`. Templates made from the query
            itself or a near-duplicate are left out, since the answers are there to learn from.
        batch_size: Most conversations to hand to a client at once, and to lose when a run is killed.
        on_progress: Called for every candidate at its start and after every batch.
        clock: Gives the time of the records, with a time zone.

    Raises:
        UnknownCandidateError: If a candidate's model has no client, or options name no candidate.
        InvalidPolicyError: If a candidate is a tool, ids repeat, a candidate of mode `thought` has no
            guidance or another than its revision names, or the batch size is below 1.
    """

    def __init__(
        self,
        clients: Mapping[str, ChatClient],
        *,
        candidates: Sequence[Candidate],
        store: LogStore,
        collection: str,
        prices: PriceTable | None = None,
        options: Mapping[str, GenerationOptions] | None = None,
        thoughts: ThoughtPrompter | None = None,
        batch_size: int = 32,
        on_progress: ProgressCallback | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clients = clients
        self._candidates = tuple(candidates)
        self._store = store
        self._collection = collection
        self._prices = prices or PriceTable()
        self._options = dict(options or {})
        self._thoughts = thoughts
        self._batch_size = batch_size
        self._on_progress = on_progress
        self._clock = clock
        self._check()

    def collect(self, queries: Sequence[Query]) -> CollectionReport:
        """Collect what the store lacks, one candidate after the other, long queries first.

        Args:
            queries: What to ask. Equal ones are asked once.

        Returns:
            What this run did; the answers are in the store.

        Raises:
            LogSchemaError: If two queries of the same messages differ in task, reference or metric, or a
                metric is unknown or cannot read its reference.
            LogStoreError: If the store cannot be read or written.
        """
        distinct = _distinct(queries)
        report = CollectionReport()
        for candidate in self._candidates:
            ids = {self._record_id(query, candidate): query for query in distinct}
            known = self._store.known(ids)
            missing = [(record_id, query) for record_id, query in ids.items() if record_id not in known]
            report = replace(report, n_skipped=report.n_skipped + len(known))
            self._tell(candidate, len(known), len(ids))
            # Neighbours of about equal length waste little on padding, and long ones first shows early
            # whether memory suffices.
            missing.sort(key=lambda item: len(item[1].text), reverse=True)
            n_tried = len(known)
            for first in range(0, len(missing), self._batch_size):
                batch = missing[first : first + self._batch_size]
                report = self._collect_batch(candidate, batch, report)
                n_tried += len(batch)
                self._tell(candidate, n_tried, len(ids))
        return report

    def _check(self) -> None:
        """Find wrong arguments before the first call is made."""
        ids = [candidate.id for candidate in self._candidates]
        if len(set(ids)) < len(ids):
            raise InvalidPolicyError(f"Candidate ids must be distinct, got {ids}.")
        if self._batch_size < 1:
            raise InvalidPolicyError(f"batch_size must be at least 1, got {self._batch_size}.")
        for candidate in self._candidates:
            if candidate.kind != "model":
                message = f"Candidate '{candidate.id}' is a tool: only models can be collected from."
                raise InvalidPolicyError(message)
            if candidate.model not in self._clients:
                message = (
                    f"Candidate '{candidate.id}' needs a client for model '{candidate.model}'; "
                    f"there are clients for: {', '.join(self._clients) or 'none'}."
                )
                raise UnknownCandidateError(message)
            if candidate.prompt_mode == "thought":
                self._check_guidance(candidate)
        unknown = sorted(self._options.keys() - set(ids))
        if unknown:
            message = f"Options are given for {unknown}, which are no candidates. Known: {ids}."
            raise UnknownCandidateError(message)

    def _check_guidance(self, candidate: Candidate) -> None:
        if self._thoughts is None:
            message = (
                f"Candidate '{candidate.id}' is prompted with thought templates. "
                "Pass LogCollector(..., thoughts=ThoughtPrompter(store))."
            )
            raise InvalidPolicyError(message)
        if candidate.revision != self._thoughts.revision:
            message = (
                f"Candidate '{candidate.id}' has the revision '{candidate.revision}', but would be guided by "
                f"'{self._thoughts.revision}'. Make it with that revision, so that answers with other "
                "templates are not taken for its own."
            )
            raise InvalidPolicyError(message)

    def _conversations(self, candidate: Candidate, queries: Sequence[Query]) -> list[tuple[Message, ...]]:
        """Apply the candidate's prompt mode to every query."""
        if candidate.prompt_mode == "thought" and self._thoughts is not None:
            texts = [query.text for query in queries]
            edits = [guidance.prompt for guidance in self._thoughts.guide(texts, near_duplicates="exclude")]
        else:
            edits = [prompt_edit(candidate.prompt_mode)] * len(queries)
        return [apply_prompt_edit(query.messages, edit) for query, edit in zip(queries, edits, strict=True)]

    def _record_id(self, query: Query, candidate: Candidate) -> str:
        return collection_record_id(
            collection=self._collection,
            query_id=query.query_id,
            candidate_id=candidate.id,
            revision=candidate.revision,
            sample=0,
        )

    def _tell(self, candidate: Candidate, n_done: int, n_total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(candidate.id, n_done, n_total)

    def _collect_batch(
        self, candidate: Candidate, batch: Sequence[tuple[str, Query]], report: CollectionReport
    ) -> CollectionReport:
        """Ask, score and store one batch; return the report with it added."""
        records: list[LogRecord] = []
        scores: list[Score] = []
        n_unscored = 0
        answers = self._ask(candidate, [query for _, query in batch])
        for (record_id, query), (answer, n_together) in zip(batch, answers, strict=True):
            record = self._record(record_id, query, candidate, answer, n_together)
            records.append(record)
            value = _score(record)
            if value is not None:
                scores.append(value)
            elif record.response is not None and query.metric is not None:
                n_unscored += 1
        self._store.add(records, scores)
        costs = [record.cost_usd for record in records if record.response is not None]
        return CollectionReport(
            n_done=report.n_done + len(costs),
            n_failed=report.n_failed + len(records) - len(costs),
            n_skipped=report.n_skipped,
            n_unscored=report.n_unscored + n_unscored,
            cost_usd=_sum_known([report.cost_usd, *costs]),
        )

    def _ask(
        self, candidate: Candidate, queries: Sequence[Query]
    ) -> list[tuple[Completion | Exception, int]]:
        """Return for every query an answer or why there is none, and how many shared its call.

        A batch that fails is asked again one by one, so that one impossible query costs only itself.
        """
        client = self._clients[candidate.model]
        options = self._options.get(candidate.id)
        conversations = self._conversations(candidate, queries)
        together = _attempt(client, conversations, options)
        if not isinstance(together, Exception):
            return [(completion, len(queries)) for completion in together]
        if len(queries) == 1:
            return [(together, 1)]
        logger.warning(
            "A batch of %d failed for candidate %s (%s); asking one by one.",
            len(queries),
            candidate.id,
            type(together).__name__,
        )
        return [
            (alone if isinstance(alone, Exception) else alone[0], 1)
            for alone in (_attempt(client, [conversation], options) for conversation in conversations)
        ]

    def _record(
        self,
        record_id: str,
        query: Query,
        candidate: Candidate,
        answer: Completion | Exception,
        n_together: int,
    ) -> LogRecord:
        """Describe one call as a log record; an answer that no record can hold is a failure too."""
        now = self._clock()
        describe = functools.partial(
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
            eligible=tuple(each.id for each in self._candidates),
            created_at=now,
            source=self._collection,
        )
        if isinstance(answer, Completion):
            try:
                return describe(
                    record_id=record_id,
                    response=answer.text,
                    finish_reason=answer.finish_reason,
                    input_tokens=answer.input_tokens,
                    output_tokens=answer.output_tokens,
                    latency_s=None if answer.latency_s is None else answer.latency_s / n_together,
                    cost_usd=self._prices.cost_usd(
                        candidate, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
                    ),
                )
            except ValueError as error:
                answer = error
        reason = f"{type(answer).__name__}: {answer}".encode(errors="replace").decode()
        # Under an id of its own: the planned record stays unknown to the store, so the next run tries again.
        return describe(record_id=f"{record_id}!error-{now.isoformat()}", error=reason)


def _distinct(queries: Sequence[Query]) -> list[Query]:
    """Drop repeated queries, and find those that could not be scored while it costs nothing."""
    by_id: dict[str, Query] = {}
    for query in queries:
        known = by_id.setdefault(query.query_id, query)
        if known != query:
            message = (
                f"Two queries have the same messages, '{query.text[:80]}', but differ in task, reference or "
                "metric. Keep one of them."
            )
            raise LogSchemaError(message)
        if query.metric is not None and query.reference is not None:
            score("", metric=query.metric, reference=query.reference, query=query.text)
    return list(by_id.values())


def _attempt(
    client: ChatClient, conversations: Sequence[Sequence[Message]], options: GenerationOptions | None
) -> list[Completion] | Exception:
    """Call a client; its failure is a result like any other."""
    try:
        completions = client.complete_batch(conversations, options=options)
    except Exception as error:  # clients wrap anything; whatever one raises must not end the run
        return error
    if len(completions) != len(conversations):
        message = f"The client gave {len(completions)} answers to {len(conversations)} conversations."
        return CandidateCallError(message)
    return completions


def _score(record: LogRecord) -> Score | None:
    """Score an answer by its query's metric; None where there is nothing to score or scoring failed."""
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


def _sum_known(amounts: Sequence[float | None]) -> float | None:
    """Add amounts; an unknown one makes the sum unknown."""
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if len(known) == len(amounts) else None
