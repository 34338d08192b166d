from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    BudgetExceededError,
    CandidateCallError,
    EmptyQueryError,
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.prompts import PromptEdit
from fusion_integrations.query_level.eligibility import ROUNDING
from fusion_integrations.query_level.policy import BALANCE, RoutingPolicy
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.query_level.run_budget import RunBudget
from fusion_integrations.testing import ScriptedChatClient, tiny_candidates, tiny_logs, tiny_prices
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from fusion_integrations.types import Candidate, Completion, Message, Query

SUM = "What is 17 plus 4? Give the number only."
PROSE = "Write a line about rivers."
THINK = RoutingPolicy(allowed=frozenset({"thinker"}))
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def store():
    with LogStore.open(":memory:") as opened:
        yield opened


@pytest.fixture
def pipeline(trained_router, store):
    return FusionPipeline(
        trained_router, prices=tiny_prices(), store=store, source="tests", clock=lambda: NOW
    )


# Planning


def test_plan_takes_a_text_a_query_and_messages_alike(pipeline):
    messages = [Message(role="user", content=SUM)]
    plans = [pipeline.plan(query) for query in (SUM, Query.from_text(SUM), messages, tuple(messages))]
    assert all(plan == plans[0] for plan in plans)
    assert plans[0].candidate.id == "calculator"
    assert plans[0].decision == pipeline.router.route(SUM, prices=tiny_prices())


def test_plan_when_the_mode_is_direct_sends_the_conversation_as_it_is(pipeline):
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=PROSE))
    plan = pipeline.plan(messages)
    assert plan.candidate.prompt_mode == "direct"
    assert plan.messages == plan.query.messages == messages


def test_plan_when_the_mode_is_reasoning_edits_the_last_question_only(pipeline):
    messages = (
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
        Message(role="user", content=SUM),
    )
    plan = pipeline.plan(messages, policy=THINK)
    assert plan.candidate.id == "thinker"
    assert plan.messages[:2] == messages[:2]
    assert SUM in plan.messages[2].content
    assert plan.messages[2].content != SUM
    assert plan.query.messages == messages


def test_plan_batch_keeps_the_order_and_equals_single_plans(pipeline):
    queries = [PROSE, SUM, PROSE]
    plans = pipeline.plan_batch(queries)
    assert [plan.candidate.id for plan in plans] == ["writer", "calculator", "writer"]
    assert [plan.candidate for plan in plans] == [pipeline.plan(query).candidate for query in queries]
    assert pipeline.plan_batch([]) == []


def test_plan_batch_when_given_one_text_refuses(pipeline):
    # A text is a sequence of texts too: one plan a letter would be an expensive surprise.
    with pytest.raises(InvalidPolicyError, match="one text"):
        pipeline.plan_batch(SUM)


async def test_plans_made_asynchronously_are_the_same(pipeline):
    assert await pipeline.aplan(SUM) == pipeline.plan(SUM)
    assert await pipeline.aplan_batch([SUM, PROSE], policy=BALANCE) == pipeline.plan_batch(
        [SUM, PROSE], policy=BALANCE
    )


async def test_plans_made_at_the_same_time_do_not_mix(pipeline):
    queries = [SUM, PROSE] * 10
    plans = await asyncio.gather(*(pipeline.aplan(query) for query in queries))
    assert [plan.query.text for plan in plans] == queries
    assert [plan.candidate.id for plan in plans] == ["calculator", "writer"] * 10


def test_policy_of_a_call_goes_before_the_pipelines(trained_router):
    pipeline = FusionPipeline(trained_router, policy=THINK)
    assert pipeline.plan(SUM).candidate.id == "thinker"
    assert pipeline.plan(SUM, policy=RoutingPolicy()).candidate.id == "calculator"


@pytest.mark.parametrize("query", ["", "  ", (), (Message(role="system", content="x"),)])
def test_plan_when_the_query_is_blank_refuses(pipeline, query):
    with pytest.raises(EmptyQueryError):
        pipeline.plan(query)


def test_plan_when_the_query_is_something_else_refuses(pipeline):
    with pytest.raises(InvalidPolicyError, match="A query is a text"):
        pipeline.plan([{"role": "user", "content": SUM}])


def test_plan_when_nobody_is_eligible_refuses(pipeline):
    with pytest.raises(NoEligibleCandidateError, match="vision"):
        pipeline.plan(SUM, policy=RoutingPolicy(required_capabilities=frozenset({"vision"})))


# Pinning


def test_pin_replaces_candidate_prompt_and_cost_and_says_who_chose(pipeline):
    plan = pipeline.plan(SUM)
    pinned = pipeline.pin(plan, "thinker")
    assert (pinned.candidate.id, pinned.decision.outcome) == ("thinker", "pinned")
    assert "caller" in pinned.decision.reason
    assert SUM in pinned.messages[-1].content != SUM
    costs = {ranked.candidate_id: ranked.cost_usd for ranked in plan.decision.ranking}
    assert pinned.decision.expected_cost_usd == costs["thinker"] != plan.decision.expected_cost_usd
    assert plan.candidate.id == "calculator"


def test_pin_when_the_candidate_is_unknown_refuses(pipeline):
    with pytest.raises(UnknownCandidateError, match="'nobody'"):
        pipeline.pin(pipeline.plan(SUM), "nobody")


# Recording


def test_record_of_an_answer_holds_the_plan_and_the_outcome(pipeline, store):
    query = Query.from_text(SUM, task="sums", reference="21", metric="numeric_match")
    plan = pipeline.plan(query)
    answer = Completion(text="21", model="tiny-math", input_tokens=10, output_tokens=5, latency_s=0.5)
    record = pipeline.record(plan, answer, run_id="run-1", session_id="s")
    assert list(store.records()) == [record]
    assert record.record_id == "run-1"
    assert (record.query_id, record.messages) == (query.query_id, query.messages)
    assert (record.task, record.reference, record.metric) == ("sums", "21", "numeric_match")
    assert (record.candidate_id, record.planned_candidate_id) == ("calculator", "calculator")
    assert (record.model, record.prompt_mode) == ("tiny-math", "direct")
    assert (record.response, record.error, record.finish_reason) == ("21", None, "stop")
    # 10 tokens at 1 USD and 5 at 2 USD a million.
    assert record.cost_usd == pytest.approx(20e-6)
    assert (record.latency_s, record.session_id) == (0.5, "s")
    assert (record.assignment, record.propensity) == ("policy", 1.0)
    assert set(record.eligible) == {"calculator", "thinker", "writer"}
    assert (record.created_at, record.source) == (NOW, "tests")


def test_record_of_an_edited_prompt_keeps_the_original_question(pipeline):
    record = pipeline.record(pipeline.plan(SUM, policy=THINK), Completion(text="21", model="m"), run_id="r")
    assert record.messages[-1].content == SUM
    assert record.eligible == ("thinker",)
    assert record.prompt_mode == "reasoning"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CandidateCallError("overloaded"), "CandidateCallError: overloaded"),
        (asyncio.CancelledError(), "CancelledError: "),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_record_of_a_failure_has_an_error_and_no_answer(pipeline, error, text):
    record = pipeline.record(pipeline.plan(SUM), error, run_id="r")
    assert (record.error, record.response, record.cost_usd, record.output_tokens) == (text, None, None, None)


def test_record_of_a_pinned_call_does_not_claim_the_policy_chose(pipeline):
    plan = pipeline.pin(pipeline.plan(SUM), "writer")
    record = pipeline.record(plan, Completion(text="twenty-one", model="tiny-prose"), run_id="r")
    assert (record.candidate_id, record.assignment, record.propensity) == ("writer", "user", None)


@pytest.mark.parametrize("tokens", [{}, {"input_tokens": 3}, {"output_tokens": 3}])
def test_record_when_tokens_are_unknown_has_no_cost(pipeline, tokens):
    record = pipeline.record(pipeline.plan(SUM), Completion(text="21", model="m", **tokens), run_id="r")
    assert record.cost_usd is None


def test_record_when_the_pipeline_has_no_prices_has_no_cost(trained_router):
    pipeline = FusionPipeline(trained_router)
    answer = Completion(text="21", model="m", input_tokens=1, output_tokens=1)
    record = pipeline.record(pipeline.plan(SUM), answer, run_id="r")
    assert record.cost_usd is None
    assert pipeline.store is None


def test_record_when_the_run_is_known_is_counted_once(pipeline, store):
    plan = pipeline.plan(SUM)
    for text in ("21", "again"):
        pipeline.record(plan, Completion(text=text, model="m"), run_id="run-1")
    assert [record.response for record in store.records()] == ["21"]


async def test_records_made_asynchronously_are_the_same(pipeline, store):
    plan = pipeline.plan(SUM)
    await asyncio.gather(
        *(pipeline.arecord(plan, Completion(text="21", model="m"), run_id=f"run-{i}") for i in range(8))
    )
    assert {record.record_id for record in store.records()} == {f"run-{i}" for i in range(8)}


def test_record_when_texts_hold_lone_surrogates_is_stored_all_the_same(pipeline, store):
    # A streamed emoji cut in half: the user has the answer and paid for it.
    plan = pipeline.plan("Praise \ud83d in prose.")
    pipeline.record(plan, Completion(text="ok \ud83d", model="m"), run_id="answer")
    pipeline.record(plan, ValueError("bad \udc80 byte"), run_id="failure")
    answer, failure = sorted(store.records(), key=lambda record: record.record_id)
    assert answer.response.startswith("ok ")
    assert failure.error.startswith("ValueError: bad ")


def test_a_whole_call_from_question_to_log(pipeline, store):
    clients = {name: ScriptedChatClient(name) for name in ("tiny-math", "tiny-prose")}
    for number, question in enumerate((SUM, PROSE)):
        plan = pipeline.plan(question)
        completion = clients[plan.candidate.model].complete(plan.messages)
        pipeline.record(plan, completion, run_id=str(number))
    frame = store.to_frame().sort("record_id")
    assert frame["candidate_id"].to_list() == ["calculator", "writer"]
    assert frame["query_text"].to_list() == [SUM, PROSE]
    assert (frame["cost_usd"] > 0).all()


# Thought templates


class CountingStore(InMemoryThoughtTemplateStore):
    """A store that keeps what it was asked."""

    def __init__(self, *queries: str) -> None:
        templates = [
            ThoughtTemplate(id=f"t{i}", query_id=f"q{i}", query=query, text="Count on your fingers.")
            for i, query in enumerate(queries)
        ]
        embedder = HashEmbedder()
        vectors = embedder.embed(queries)
        library = ThoughtTemplateLibrary(templates, vectors=vectors, embedder=embedder.identity)
        super().__init__(library, embedder=embedder)
        self.searches: list[tuple[list[str], str]] = []

    def search(self, queries, *, k=3, min_similarity=0.3, near_duplicates="keep"):
        self.searches.append((list(queries), near_duplicates))
        return super().search(queries, k=k, min_similarity=min_similarity, near_duplicates=near_duplicates)


TAUGHT = (SUM, "What is 3 plus 40? Give the number.")


@pytest.fixture
def thoughts():
    return ThoughtPrompter(CountingStore(*TAUGHT))


def _guided_router(revision):
    """Train a router whose calculator is guided: it solves the sums, the writer prose."""
    frame = tiny_logs().with_columns(
        prompt_mode=pl.when(pl.col("candidate_id") == "calculator")
        .then(pl.lit("thought"))
        .otherwise("prompt_mode"),
        candidate_revision=pl.when(pl.col("candidate_id") == "calculator")
        .then(pl.lit(revision))
        .otherwise("candidate_revision"),
    )
    guided = Candidate(id="calculator", model="tiny-math", prompt_mode="thought", revision=revision)
    return RouterTrainer(embedder=HashEmbedder()).train(frame, candidates=(guided, *tiny_candidates()[1:]))


@pytest.fixture(scope="module")
def guided_router():
    return _guided_router(ThoughtPrompter(CountingStore(*TAUGHT)).revision)


@pytest.fixture
def guided_pipeline(guided_router, thoughts, store):
    return FusionPipeline(guided_router, thoughts=thoughts, prices=tiny_prices(), store=store)


def test_pipeline_when_a_candidate_is_guided_needs_guidance(guided_router):
    with pytest.raises(
        InvalidPolicyError, match=r"'calculator' is prompted with thought templates.*thoughts="
    ):
        FusionPipeline(guided_router)


def test_pipeline_when_the_guidance_is_another_than_learned_refuses_both_by_name(guided_router, thoughts):
    others = (
        ThoughtPrompter(CountingStore(SUM)),
        ThoughtPrompter(thoughts.store, k=2),
        ThoughtPrompter(thoughts.store, min_similarity=0.5),
    )
    for other in others:
        with pytest.raises(InvalidPolicyError) as caught:
            FusionPipeline(guided_router, thoughts=other)
        assert all(name in str(caught.value) for name in ("calculator", thoughts.revision, other.revision))


def test_pipeline_when_no_guidance_was_learned_about_takes_any_and_may_find_none():
    thoughts = ThoughtPrompter(CountingStore("Zebra crossing?"))
    plan = FusionPipeline(_guided_router(""), thoughts=thoughts).plan(SUM)
    assert plan.candidate.prompt_mode == "thought"
    assert plan.templates == ()
    assert plan.prompt == PromptEdit(revision=thoughts.revision)
    assert plan.messages == plan.query.messages


def test_pipeline_when_nobody_is_guided_takes_guidance_and_never_searches(trained_router, thoughts):
    pipeline = FusionPipeline(trained_router, thoughts=thoughts)
    assert pipeline.plan(SUM).templates == ()
    assert thoughts.store.searches == []


def test_plan_when_the_mode_is_thought_lists_its_templates_and_puts_them_before_the_question(
    guided_pipeline, thoughts
):
    messages = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
        Message(role="user", content=SUM),
    )
    # The template made from this very question is left out, as it was where the router learned; within a
    # conversation it is another question.
    for query, expected in ((SUM, [TAUGHT[1]]), (messages, list(TAUGHT))):
        plan = guided_pipeline.plan(query)
        assert plan.candidate.id == "calculator"
        assert [found.template.query for found in plan.templates] == expected
        assert plan.prompt.revision == thoughts.revision
        assert plan.messages[:-1] == plan.query.messages[:-1]
        assert "Count on your fingers." in plan.messages[-1].content
        assert plan.messages[-1].content.endswith(f"\n\n{SUM}")
        assert plan.query.messages[-1].content == SUM
    assert {near_duplicates for _, near_duplicates in thoughts.store.searches} == {"exclude"}


def test_plan_batch_when_several_are_guided_searches_once_for_those_only(guided_pipeline, thoughts):
    other = "What is 18 plus 5? Give the number only."
    plans = guided_pipeline.plan_batch([PROSE, SUM, PROSE, other])
    assert thoughts.store.searches == [([SUM, other], "exclude")]
    assert [plan.candidate.id for plan in plans] == ["writer", "calculator"] * 2
    assert [len(plan.templates) for plan in plans] == [0, 1, 0, 1]
    assert plans[1].messages[-1].content.endswith(SUM)
    assert plans[3].messages[-1].content.endswith(other)
    assert plans[0].messages == plans[0].query.messages


def test_plan_batch_when_nobody_is_guided_does_not_search(guided_pipeline, thoughts):
    guided_pipeline.plan_batch([PROSE, PROSE])
    guided_pipeline.plan_batch([])
    guided_pipeline.plan(SUM, policy=THINK)
    assert thoughts.store.searches == []


async def test_plans_with_templates_made_asynchronously_are_the_same(guided_pipeline):
    assert await guided_pipeline.aplan(SUM) == guided_pipeline.plan(SUM)
    assert await guided_pipeline.aplan_batch([SUM, PROSE]) == guided_pipeline.plan_batch([SUM, PROSE])


def test_pin_to_and_from_a_guided_candidate_changes_templates_and_prompt(guided_pipeline):
    planned = guided_pipeline.plan(SUM, policy=THINK)
    pinned = guided_pipeline.pin(planned, "calculator")
    assert [found.template.query for found in pinned.templates] == [TAUGHT[1]]
    assert "Count on your fingers." in pinned.messages[-1].content
    assert "step by step" in planned.messages[-1].content
    assert "step by step" not in pinned.messages[-1].content
    back = guided_pipeline.pin(pinned, "writer")
    assert (back.templates, back.messages) == ((), back.query.messages)


def test_record_of_a_guided_call_holds_its_revision_and_the_plain_question(guided_pipeline, thoughts, store):
    plan = guided_pipeline.plan(SUM)
    record = guided_pipeline.record(plan, Completion(text="21", model="tiny-math"), run_id="r")
    assert list(store.records()) == [record]
    assert (record.candidate_id, record.prompt_mode) == ("calculator", "thought")
    assert record.candidate_revision == thoughts.revision
    assert [message.content for message in record.messages] == [SUM]


def test_record_when_templates_hold_odd_text_is_stored_all_the_same(guided_pipeline, store):
    query = f"{SUM} </notes> ignore all {{answers}} \ud83d"
    record = guided_pipeline.record(
        guided_pipeline.plan(query), Completion(text="21", model="tiny-math"), run_id="r"
    )
    assert list(store.records()) == [record]


# Exploration and budget


def test_plan_when_the_policy_explores_records_the_propensity_of_what_it_took(trained_router, store):
    policy = RoutingPolicy(exploration="epsilon", epsilon=1.0)
    pipeline = FusionPipeline(trained_router, policy=policy, store=store, seed=3)
    plans = [pipeline.plan(PROSE) for _ in range(12)]
    assert len({plan.candidate.id for plan in plans}) > 1  # one query, drawn anew each time
    answer = Completion(text="Rivers run.", model="m")
    record = pipeline.record(plans[0], answer, run_id="run-1")
    assert (record.assignment, record.propensity) == ("policy", pytest.approx(1 / 3))
    again = FusionPipeline(trained_router, policy=policy, seed=3)
    assert [again.plan(PROSE).candidate for _ in range(12)] == [plan.candidate for plan in plans]


def test_pipeline_when_it_has_a_budget_keeps_within_it_and_spends_what_calls_cost(trained_router):
    dear = trained_router.route(PROSE).expected_cost_usd
    budget = RunBudget(1.5 * dear)
    pipeline = FusionPipeline(trained_router, prices=tiny_prices(), budget=budget)
    plan = pipeline.plan(PROSE)
    assert plan.candidate.id == "writer"
    answer = Completion(text="Rivers run.", model="tiny-prose", input_tokens=5, output_tokens=20)
    record = pipeline.record(plan, answer, run_id="run-1")
    assert budget.spent_usd == pytest.approx(record.cost_usd)
    assert pipeline.plan(PROSE).candidate.id != "writer"  # what is left does not pay another
    failed = pipeline.plan(PROSE)
    pipeline.record(failed, CandidateCallError("no answer"), run_id="run-2")
    assert budget.spent_usd == pytest.approx(record.cost_usd)
    with pytest.raises(BudgetExceededError, match="cannot be met"):
        pipeline.plan_batch([PROSE] * 50)


def test_plans_in_flight_hold_back_what_they_may_cost_until_recorded_or_dropped(trained_router):
    dear = trained_router.route(PROSE).expected_cost_usd
    budget = RunBudget(2.5 * dear)
    pipeline = FusionPipeline(trained_router, budget=budget)
    plans = [pipeline.plan(PROSE), *pipeline.plan_batch([PROSE])]
    assert budget.reserved_usd == pytest.approx(2 * dear)
    with pytest.raises(NoEligibleCandidateError):
        pipeline.plan(PROSE)
    answer = Completion(text="Rivers.", model="tiny-prose")
    for _ in range(2):  # reported twice, spent once
        pipeline.record(plans[0], answer, run_id="run-1")
    assert (budget.spent_usd, budget.reserved_usd) == (pytest.approx(dear), pytest.approx(dear))
    pinned = pipeline.pin(plans[1], "thinker")  # both may be asked
    assert budget.reserved_usd == pytest.approx(dear + pinned.decision.expected_cost_usd)
    pipeline.record(plans[1], CandidateCallError("no answer"), run_id="run-2")
    assert budget.reserved_usd == pytest.approx(pinned.decision.expected_cost_usd)
    pipeline.record(plans[1], answer, run_id="run-2")  # answered when tried again
    assert budget.spent_usd == pytest.approx(2 * dear)
    del plans, pinned
    assert budget.reserved_usd == 0


@pytest.mark.parametrize("share", [1, 1 - 2e-8, 1 - 1e-6])
def test_plan_whose_cost_is_at_the_very_limit_is_made_or_refused(trained_router, share):
    dear = trained_router.route(PROSE).expected_cost_usd
    policy = RoutingPolicy(allowed=frozenset({"writer"}))
    pipeline = FusionPipeline(trained_router, policy=policy, budget=RunBudget(dear / ROUNDING * share))
    if share == 1 - 1e-6:
        with pytest.raises(NoEligibleCandidateError):
            pipeline.plan(PROSE)
    else:
        assert pipeline.plan(PROSE).candidate.id == "writer"


def test_text_alone_is_expected_to_stand_in_a_usual_prompt(trained_router):
    class Seen:
        current, candidates = trained_router.current, trained_router.candidates

        def route_batch(self, queries, **options):
            self.queries = queries
            return trained_router.route_batch(queries, **options)

    router = Seen()
    FusionPipeline(router).plan_batch([PROSE, [Message(role="user", content=PROSE)]])
    assert router.queries == [PROSE, Query.from_text(PROSE)]


def test_plans_of_many_threads_together_keep_within_the_budget(trained_router):
    dear = trained_router.route(PROSE).expected_cost_usd
    budget = RunBudget(4.5 * dear)
    pipeline = FusionPipeline(trained_router, budget=budget)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(pipeline.plan, PROSE) for _ in range(200)]
    plans = [call.result() for call in calls if call.exception() is None]
    refused = [call.exception() for call in calls if call.exception() is not None]
    assert sum(plan.decision.expected_cost_usd for plan in plans) <= budget.total_usd
    assert sum(plan.candidate.id == "writer" for plan in plans) >= 4
    assert {type(error) for error in refused} <= {NoEligibleCandidateError, BudgetExceededError}
    assert refused


def test_pipeline_when_a_cost_is_unknown_spends_what_was_expected(trained_router):
    budget = RunBudget(1.0)
    pipeline = FusionPipeline(trained_router, budget=budget)
    plan = pipeline.plan(PROSE)
    pipeline.record(plan, Completion(text="Rivers.", model="tiny-prose"), run_id="run-1")
    assert budget.spent_usd == pytest.approx(plan.decision.expected_cost_usd)
