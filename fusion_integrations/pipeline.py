"""Plan a call and record it: what every adapter shares, so that each decision is written once.

No LLM is called here. An adapter converts its framework's messages, asks for a plan, calls the framework's
own model, and hands the outcome back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.text import storable_text
from fusion_integrations.prompts import PromptEdit, apply_prompt_edit, prompt_edit
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router import Router
from fusion_integrations.query_level.run_budget import Reservation, RunBudget
from fusion_integrations.thought_level.template_prompt import ThoughtGuidance, ThoughtPrompter
from fusion_integrations.thought_level.template_store import FoundTemplate
from fusion_integrations.types import Candidate, Completion, Message, PriceTable, Query, find_candidate

__all__ = ["FusionPipeline", "FusionPlan", "QueryLike"]

QueryLike = str | Query | Sequence[Message]


@dataclass(frozen=True, kw_only=True)
class FusionPlan:
    """Who shall answer a query, and how they are prompted.

    Attributes:
        query: The query before any prompt mode.
        decision: Who answers, and why.
        prompt: What the prompt mode puts around the last user message.
        templates: The thought templates in the prompt, most similar first; empty in other prompt modes, and
            where none is similar enough.
        reservation: What a run's budget holds back for the call, while the plan is there and not recorded.
    """

    query: Query
    decision: RouteDecision
    prompt: PromptEdit
    templates: tuple[FoundTemplate, ...] = ()
    reservation: Reservation = field(default_factory=Reservation, compare=False, repr=False)

    @property
    def candidate(self) -> Candidate:
        """Who answers."""
        return self.decision.candidate

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation to send, prompt mode applied."""
        return apply_prompt_edit(self.query.messages, self.prompt)


class FusionPipeline:
    """A router with the policy, prices and log store of one application.

    Args:
        router: The trained router, or a `ReloadingRouter` over its folder.
        policy: What to optimise; each call may bring its own.
        prices: Today's prices. None: costs as in the router's logs.
        store: Where calls are recorded. None: nowhere.
        thoughts: Finds the guidance of candidates of prompt mode `thought`. Needed if the router knows any.
        budget: USD for all calls: a plan reserves what it is expected to cost, until it is recorded or
            dropped; recording spends what it did cost. None: no such limit.
        source: Name of the application in the records.
        seed: Seed of the draws of policies that explore.
        clock: Gives the time of a record.

    Raises:
        InvalidPolicyError: If the router knows candidates of mode `thought` and there is nothing to find
            guidance with, or it finds other guidance than the router has learned about.
    """

    def __init__(
        self,
        router: Router,
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        store: LogStore | None = None,
        thoughts: ThoughtPrompter | None = None,
        budget: RunBudget | None = None,
        source: str = "fusion-pipeline",
        seed: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.router = router
        self.policy = policy
        self.prices = prices
        self.store = store
        self.thoughts = thoughts
        self.budget = budget
        self.source = source
        self._random, self._lock = np.random.default_rng(seed), threading.Lock()
        self._clock = clock
        for candidate in router.candidates:
            if candidate.prompt_mode == "thought":
                _check_guidance(candidate, thoughts)

    def plan(self, query: QueryLike, *, policy: RoutingPolicy | None = None) -> FusionPlan:
        """Choose who answers a query.

        Args:
            query: A text, a query, or the messages of a conversation.
            policy: Replaces the pipeline's policy for this call.

        Returns:
            The plan.

        Raises:
            EmptyQueryError: If the query has no text.
            NoEligibleCandidateError: If the policy excludes every candidate.
            BudgetExceededError: If the budget of the run is spent.
        """
        return self.plan_batch([query], policy=policy)[0]

    def plan_batch(
        self, queries: Sequence[QueryLike], *, policy: RoutingPolicy | None = None
    ) -> list[FusionPlan]:
        """Choose for several queries with one call of the embedder; otherwise as `plan`.

        Args:
            queries: n texts, queries or conversations.
            policy: Replaces the pipeline's policy for this call.

        Returns:
            One plan a query, in their order.

        Raises:
            InvalidPolicyError: If `queries` is one text.
            BudgetExceededError: If the run's budget does not suffice for all.
        """
        if isinstance(queries, str):
            raise InvalidPolicyError("plan_batch() got one text. Pass a list of queries, or call plan().")
        asked = [_query(query) for query in queries]
        # A text stays one for the router: what else will be in its prompt, nobody knows yet.
        seen = [
            query if isinstance(query, str) else whole for query, whole in zip(queries, asked, strict=True)
        ]
        decisions, reservations = self._reserved(seen, policy or self.policy)
        return self._prompted(list(zip(asked, decisions, reservations, strict=True)))

    def _reserved(
        self, queries: Sequence[str | Query], policy: RoutingPolicy
    ) -> tuple[list[RouteDecision], list[Reservation]]:
        while True:
            decisions = self._decisions(queries, policy)
            if self.budget is None:
                return decisions, [Reservation() for _ in decisions]
            held = self.budget.reserve([decision.expected_cost_usd or 0.0 for decision in decisions])
            if held is not None:
                return decisions, held
            # Another thread took it since this one looked; what is left now decides anew, or says so.

    def _decisions(self, queries: Sequence[str | Query], policy: RoutingPolicy) -> list[RouteDecision]:
        if self.budget is not None and len(queries) > 1:
            return self.budget.route_batch(self.router, queries, policy=policy, prices=self.prices)
        if self.budget is not None:
            policy = self.budget.limit(policy)
        return self.router.route_batch(queries, policy=policy, prices=self.prices, random=self._seed(policy))

    def _seed(self, policy: RoutingPolicy) -> int | None:
        """Draw the seed of one call's exploration, so that a query asked twice is explored twice."""
        if policy.exploration == "none":
            return None
        with self._lock:  # NumPy's generators are not made for threads
            return int(self._random.integers(2**63))

    async def aplan(self, query: QueryLike, *, policy: RoutingPolicy | None = None) -> FusionPlan:
        """Choose without blocking the event loop; otherwise as `plan`."""
        return await asyncio.to_thread(self.plan, query, policy=policy)

    async def aplan_batch(
        self, queries: Sequence[QueryLike], *, policy: RoutingPolicy | None = None
    ) -> list[FusionPlan]:
        """Choose for several queries without blocking the event loop; otherwise as `plan`."""
        return await asyncio.to_thread(self.plan_batch, queries, policy=policy)

    def pin(self, plan: FusionPlan, candidate_id: str) -> FusionPlan:
        """Let the caller choose, and have that recorded.

        Args:
            plan: What the router chose.
            candidate_id: Who shall answer instead.

        Returns:
            The plan with that candidate and its prompt. Blocks, like `plan`, if templates are searched.

        Raises:
            UnknownCandidateError: If the router does not know the candidate.
        """
        candidate = find_candidate(self.router.candidates, candidate_id)
        costs = {ranked.candidate_id: ranked.cost_usd for ranked in plan.decision.ranking}
        decision = replace(
            plan.decision,
            candidate=candidate,
            outcome="pinned",
            reason="Chosen by the caller.",
            expected_cost_usd=costs.get(candidate_id),  # a router reloaded meanwhile may know one more
        )
        cost = decision.expected_cost_usd or 0.0
        reservation = Reservation() if self.budget is None else self.budget.hold(cost)
        return self._prompted([(plan.query, decision, reservation)])[0]

    def _prompted(self, decided: Sequence[tuple[Query, RouteDecision, Reservation]]) -> list[FusionPlan]:
        """Give every decided query its prompt, with one search for all that need thought templates."""
        guided = [i for i, (_, decision, _) in enumerate(decided) if _is_guided(decision)]
        found: dict[int, ThoughtGuidance] = {}
        for i in guided:
            _check_guidance(decided[i][1].candidate, self.thoughts)  # a reloaded router may know others
        if guided and self.thoughts is not None:
            texts = [decided[i][0].text for i in guided]
            # As the router's logs were collected: without what was made of the very query. So a live answer
            # may be learned from, too.
            found = dict(zip(guided, self.thoughts.guide(texts, near_duplicates="exclude"), strict=True))
        return [
            FusionPlan(
                query=query,
                decision=decision,
                prompt=found[i].prompt if i in found else prompt_edit(decision.candidate.prompt_mode),
                templates=found[i].found if i in found else (),
                reservation=reservation,
            )
            for i, (query, decision, reservation) in enumerate(decided)
        ]

    def record(
        self,
        plan: FusionPlan,
        outcome: Completion | BaseException,
        *,
        run_id: str,
        session_id: str | None = None,
    ) -> LogRecord:
        """Make the log record of a planned call and store it, if the pipeline has a store.

        Args:
            plan: The plan that was followed.
            outcome: The answer, or what went wrong.
            run_id: The framework's id of the model run. It becomes the record id, so that a callback handler
                that saw the same run does not count it twice.
            session_id: What groups the calls of one conversation.

        Returns:
            The record. Once this returns, it is stored.

        Raises:
            LogStoreError: If the store cannot be written.
        """
        record = self._record(plan, outcome, run_id=run_id, session_id=session_id)
        if self.budget is not None:
            # What a call cost is not always known; what it was expected to cost is, within a budget.
            cost = plan.decision.expected_cost_usd if record.cost_usd is None else record.cost_usd
            if isinstance(outcome, Completion) and plan.reservation.is_first_answer_of(run_id):
                self.budget.spend(cost or 0.0)
            plan.reservation.release()  # only now, so that at no moment it is neither spent nor held
        if self.store is not None:
            self.store.add([record])
        return record

    async def arecord(
        self,
        plan: FusionPlan,
        outcome: Completion | BaseException,
        *,
        run_id: str,
        session_id: str | None = None,
    ) -> LogRecord:
        """Record without blocking the event loop; otherwise as `record`."""
        return await asyncio.to_thread(self.record, plan, outcome, run_id=run_id, session_id=session_id)

    def _record(
        self, plan: FusionPlan, outcome: Completion | BaseException, *, run_id: str, session_id: str | None
    ) -> LogRecord:
        answer = outcome if isinstance(outcome, Completion) else None
        candidate, decision = plan.candidate, plan.decision
        cost = self.cost_usd(plan, answer) if answer else None
        return LogRecord(
            record_id=run_id,
            messages=tuple(
                replace(message, content=storable_text(message.content)) for message in plan.query.messages
            ),
            task=plan.query.task,
            reference=plan.query.reference,
            metric=plan.query.metric,
            candidate_id=candidate.id,
            candidate_revision=candidate.revision or (plan.prompt.revision if _is_guided(decision) else ""),
            model=candidate.model,
            prompt_mode=candidate.prompt_mode,
            planned_candidate_id=candidate.id,
            response=storable_text(answer.text) if answer else None,
            error=None if answer else storable_text(f"{type(outcome).__name__}: {outcome}"),
            finish_reason=answer.finish_reason if answer else None,
            input_tokens=answer.input_tokens if answer else None,
            output_tokens=answer.output_tokens if answer else None,
            cost_usd=cost,
            latency_s=answer.latency_s if answer else None,
            assignment="user" if decision.outcome == "pinned" else "policy",
            propensity=None if decision.outcome == "pinned" else decision.propensity,
            eligible=tuple(ranked.candidate_id for ranked in decision.ranking if ranked.excluded is None),
            session_id=session_id,
            created_at=self._clock(),
            source=self.source,
        )

    def cost_usd(self, plan: FusionPlan, answer: Completion) -> float | None:
        """Price an answer at the pipeline's prices; None if a price or token count is unknown."""
        if self.prices is None:
            return None
        return self.prices.cost_usd(
            plan.candidate, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
        )


def _query(query: QueryLike) -> Query:
    if isinstance(query, Query):
        return query
    if isinstance(query, str):
        return Query.from_text(query)
    if not all(isinstance(message, Message) for message in query):
        raise InvalidPolicyError("A query is a text, a `Query`, or a sequence of `Message`.")
    return Query(messages=tuple(query))


def _is_guided(decision: RouteDecision) -> bool:
    return decision.candidate.prompt_mode == "thought"


def _check_guidance(candidate: Candidate, thoughts: ThoughtPrompter | None) -> None:
    """Check that a candidate is guided as in the logs that the router learned from."""
    if thoughts is None:
        message = (
            f"Candidate '{candidate.id}' is prompted with thought templates, but the pipeline has none. "
            "Pass FusionPipeline(..., thoughts=ThoughtPrompter(store))."
        )
        raise InvalidPolicyError(message)
    if candidate.revision and candidate.revision != thoughts.revision:
        message = (
            f"The router learned about '{candidate.id}' with guidance '{candidate.revision}', but the "
            f"pipeline would give it '{thoughts.revision}'. Open the store of that library with those "
            "settings, or collect answers with the new guidance and retrain."
        )
        raise InvalidPolicyError(message)
