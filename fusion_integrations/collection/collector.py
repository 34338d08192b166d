"""Ask every candidate every query and log the answers: the complete logs that a router learns most from."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from fusion_integrations.collection.asking import Asker
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.collected_records import RecordMaker
from fusion_integrations.collection.collection_run import (
    CollectionProgress,
    CollectionReport,
    CollectionRun,
    ProgressCallback,
)
from fusion_integrations.collection.collection_settings import CollectionSettings
from fusion_integrations.collection.concurrent_calls import call_concurrently
from fusion_integrations.collection.estimate import CandidateEstimate, estimate_calls
from fusion_integrations.collection.planned_calls import (
    CandidatePlan,
    conversations,
    distinct_queries,
    plan_calls,
)
from fusion_integrations.collection.spending import Spending, is_billed, most_cost_usd
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.logs.store import LogStore
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, GenerationOptions, PriceTable, Query

__all__ = ["CollectionProgress", "CollectionReport", "LogCollector", "ProgressCallback"]


class LogCollector:
    """Collects answers of every candidate to every query.

    Answers are stored with their scores as they come, batch by batch or call by call, each in one
    transaction, so a run may be ended at any moment (even killed) and the next one goes on: it asks only for
    what the store lacks. A failing call never ends a run.

    Candidates with limits are called one by one, several calls and several candidates at once, and again
    where a call failed for a passing reason. The others are asked in batches, one candidate after the other;
    the latency of an answer is then that of its batch divided by the batch's size: what the answer took of
    the machine's time, not what a single caller would have waited.

    With a budget, every call is bounded before it is made, and it is made only if all that was billed to the
    collection, what calls under way can cost, and that bound stay within the budget. Nominal prices are
    nobody's bill. A provider that counts more tokens than the text has bytes, or than `max_tokens` allows,
    can exceed the bound of one call, not of the next.

    Args:
        clients: Who runs each model, by `Candidate.model`; asked for a client only when it has work.
        candidates: Who answers: model candidates with distinct ids.
        store: Where answers and scores go.
        collection: Name of the collection; part of every record's identity and its `source`.
        prices: Prices of the models; without one the cost is logged as unknown.
        options: How to generate, by candidate id; others use their client's default.
        samples: How many answers to collect to a query, by candidate id; of others one.
        limits: How fast a candidate may be called, by its id. With a budget, candidates that are billed have
            the default limits where none are given.
        thoughts: Finds the guidance of candidates of prompt mode `thought`. Templates made from the query
            itself or a near-duplicate are left out, since the answers are there to learn from.
        budget_usd: Most that the collection may be billed, earlier runs included. None for no limit.
        batch_size: Most conversations to hand to a client at once, and to lose when a run is killed.
        on_progress: Called for every candidate at its start, and after every batch or call: then on the
            thread that made the call, but never two at a time.
        clock: Gives the time of the records, with a time zone.

    Raises:
        UnknownCandidateError: If a candidate's model has no client, or options, samples or limits name no
            candidate.
        InvalidPolicyError: If a candidate is a tool, ids repeat, a candidate of mode `thought` has no
            guidance or another than its revision names, several samples are wanted without a temperature,
            a candidate has no price or no bound under a budget, or a number is out of range.
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
        samples: Mapping[str, int] | None = None,
        limits: Mapping[str, CallLimits] | None = None,
        thoughts: ThoughtPrompter | None = None,
        budget_usd: float | None = None,
        batch_size: int = 32,
        on_progress: ProgressCallback | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._collection = collection
        self._on_progress = on_progress
        self._clock = clock
        self._settings = CollectionSettings(
            clients=clients,
            candidates=tuple(candidates),
            prices=prices or PriceTable(),
            options=dict(options or {}),
            samples=dict(samples or {}),
            limits=dict(limits or {}),
            thoughts=thoughts,
            budget_usd=budget_usd,
            batch_size=batch_size,
        )
        self._limits = dict(self._settings.limits)
        if budget_usd is not None:
            for candidate in self._settings.candidates:
                if is_billed(candidate, self._settings.prices):
                    self._limits.setdefault(candidate.id, CallLimits())

    def collect(self, queries: Sequence[Query]) -> CollectionReport:
        """Collect what the store lacks, long queries first.

        Args:
            queries: What to ask. Equal ones are asked once.

        Returns:
            What this run did; the answers are in the store.

        Raises:
            LogSchemaError: If two queries of the same messages differ in task, reference or metric, or a
                metric is unknown or cannot read its reference.
            LogStoreError: If the store cannot be read or written.
        """
        settings, plans = self._settings, self._plans(queries)
        called = [plan for plan in plans if plan.candidate.id in self._limits]
        for plan in called:
            if plan.missing:  # now, on one thread; and a missing key shows before anything is asked
                _ = settings.clients[plan.candidate.model]
        spent_usd = 0.0 if settings.budget_usd is None else self._spent_before_usd()
        spending, stop = Spending(settings.budget_usd, spent_usd=spent_usd), threading.Event()
        asker = Asker(
            settings.clients,
            options=settings.options,
            prices=settings.prices,
            thoughts=settings.thoughts,
            spending=spending,
            stop=stop,
        )
        maker = RecordMaker(
            collection=self._collection,
            candidates=settings.candidates,
            prices=settings.prices,
            clock=self._clock,
        )
        run = CollectionRun(plans, store=self._store, maker=maker, on_progress=self._on_progress)
        for plan in plans:
            if plan.candidate.id not in self._limits:
                run.tell(plan.candidate.id)
                for batch in plan.batches(settings.batch_size):
                    run.add(asker.ask_together(batch))
        for plan in called:
            run.tell(plan.candidate.id)
        n_left = call_concurrently(
            called, asker=asker, limits=self._limits, stop=stop, on_outcome=lambda outcome: run.add([outcome])
        )
        return replace(run.report, n_left=n_left, billed_usd=spending.spent_usd)

    def estimate(self, queries: Sequence[Query]) -> list[CandidateEstimate]:
        """Estimate what `collect` would cost; no LLM is loaded or called.

        Args:
            queries: What would be asked.

        Returns:
            One estimate a candidate, in their order.

        Raises:
            LogSchemaError: As `collect`.
            LogStoreError: If the store cannot be read.
        """
        settings = self._settings
        answered = self._store.to_frame().filter(pl.col("response").is_not_null())
        means = answered.group_by("candidate_id").agg(pl.col("output_tokens").mean()).drop_nulls()
        return [
            estimate_calls(
                plan,
                conversations(plan.candidate, [call.query for call in plan.missing], settings.thoughts),
                options=settings.options,
                prices=settings.prices,
                mean_output_tokens=dict(means.iter_rows()),
            )
            for plan in self._plans(queries)
        ]

    def _plans(self, queries: Sequence[Query]) -> list[CandidatePlan]:
        distinct = distinct_queries(queries)
        return [
            plan_calls(
                candidate,
                distinct,
                collection=self._collection,
                n_samples=self._settings.samples.get(candidate.id, 1),
                store=self._store,
            )
            for candidate in self._settings.candidates
        ]

    def _spent_before_usd(self) -> float:
        """Return what earlier runs were billed; a call of unknown cost counts at its bound."""
        candidates = {candidate.id: candidate for candidate in self._settings.candidates}
        return math.fsum(
            self._billed_usd(record, candidates.get(record.candidate_id))
            for record in self._store.records()
            if record.source == self._collection
        )

    def _billed_usd(self, record: LogRecord, candidate: Candidate | None) -> float:
        settings = self._settings
        if candidate is None:
            # Nobody says any more whether one that was removed or renamed is billed: its cost counts.
            return record.cost_usd or 0.0
        if not is_billed(candidate, settings.prices):
            return 0.0
        if record.cost_usd is not None:
            return record.cost_usd
        (messages,) = conversations(candidate, [Query(messages=record.messages)], settings.thoughts)
        options = settings.options.get(candidate.id)
        return most_cost_usd(candidate, messages, options=options, prices=settings.prices) or 0.0
