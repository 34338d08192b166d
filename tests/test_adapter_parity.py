"""Every adapter chooses as the core does, whatever the text and the policy, from one saved artifact."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools.types import ToolMetadata

from fusion_integrations import FusionPipeline, Message, RouterModel, RouterTrainer, RunBudget
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import BudgetExceededError, EmptyQueryError, FusionError
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.testing import (
    ScriptedChatClient,
    tiny_candidates,
    tiny_logs,
    tiny_prices,
    tiny_router,
)
from fusion_integrations.types import Candidate, Price, PriceTable
from langchain_fusion import ChatClientModel, FusionChatModel, FusionRouter
from llamaindex_fusion import ChatClientLLM, FusionLLM, FusionSelector

IDS = tuple(candidate.id for candidate in tiny_candidates())
MODELS = ("tiny-math", "tiny-prose")
SUM = "What is 17 plus 4? Give the number only."
PROSE = "Write a line about rivers."

texts = st.one_of(st.sampled_from([SUM, PROSE, "🙂 漢字", "x" * 20_000]), st.text(max_size=60))
policies = st.builds(
    RoutingPolicy,
    cost_weight=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    max_cost_usd=st.sampled_from([None, 0.0, 2e-5, 1.0]),
    min_performance=st.sampled_from([None, 0.3, 0.9]),
    allowed=st.one_of(st.none(), st.frozensets(st.sampled_from(IDS))),
    required_capabilities=st.sampled_from([frozenset(), frozenset({"tools"})]),
    margin_z=st.sampled_from([None, 0.0, 1.0]),
)
turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=3)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """The core and every adapter, each with its own copy of one artifact."""
    folder = tmp_path_factory.mktemp("artifact") / "router"
    tiny_router().save_pretrained(folder)

    def pipeline():
        return FusionPipeline(RouterModel.from_pretrained(folder), prices=tiny_prices())

    clients = {name: ScriptedChatClient(name, answer=lambda messages: "fine") for name in MODELS}
    return SimpleNamespace(
        core=pipeline(),
        clients=clients,
        router=FusionRouter(pipeline=pipeline()),
        chat_model=FusionChatModel(
            pipeline=pipeline(), models={name: ChatClientModel(client=clients[name]) for name in MODELS}
        ),
        llm=FusionLLM(pipeline(), llms={name: ChatClientLLM(clients[name]) for name in MODELS}),
    )


@pytest.fixture(scope="module")
def tool_adapters(tmp_path_factory):
    """The core and the adapters that choose tools, which the same logs stand for here."""
    folder = tmp_path_factory.mktemp("artifact") / "tools"
    tools = tuple(Candidate(id=name, kind="tool") for name in IDS)
    RouterTrainer(embedder=HashEmbedder()).train(tiny_logs(), candidates=tools).save_pretrained(folder)
    prices = PriceTable(prices={name: Price(usd_per_call=1e-5 * (n + 1)) for n, name in enumerate(IDS)})

    def pipeline():
        return FusionPipeline(RouterModel.from_pretrained(folder), prices=prices)

    return SimpleNamespace(
        core=pipeline(), router=FusionRouter(pipeline=pipeline()), selector=FusionSelector(pipeline())
    )


def outcome(call):
    """What a call gave, or which error it raised with which message."""
    try:
        return call()
    except FusionError as error:
        return type(error), str(error)


def native(conversation, make):
    return [make(role, content) for role, content in conversation]


def to_core(conversation):
    return native(conversation, lambda role, content: Message(role=role, content=content))


def to_langchain(conversation):
    classes = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    return native(conversation, lambda role, content: classes[role](content))


def to_llamaindex(conversation):
    return native(conversation, lambda role, content: ChatMessage(role=role, content=content))


@given(turns, texts, policies)
@example([], SUM, RoutingPolicy())
@example([("user", PROSE), ("assistant", "Done.")], SUM, RoutingPolicy(margin_z=0.0))
@example([], PROSE, RoutingPolicy(allowed=frozenset({"thinker"})))
@example([], " ", RoutingPolicy())
@example([], SUM, RoutingPolicy(allowed=frozenset()))
def test_models_are_chosen_and_prompted_as_the_core_plans(adapters, earlier, text, policy):
    conversation = [*earlier, ("user", text)]
    config = {"configurable": {"fusion_policy": policy}}
    plan = outcome(lambda: adapters.core.plan(to_core(conversation), policy=policy))
    decision = plan if isinstance(plan, tuple) else plan.decision
    assert outcome(lambda: adapters.router.invoke(to_langchain(conversation), config)) == decision

    for client in adapters.clients.values():
        client.calls.clear()
    answers = (
        outcome(lambda: adapters.chat_model.invoke(to_langchain(conversation), config)),
        outcome(lambda: adapters.llm.chat(to_llamaindex(conversation), policy=policy)),
    )
    if isinstance(plan, tuple):
        assert answers == (plan, plan)
        assert not any(client.calls for client in adapters.clients.values())
        return
    marks = answers[0].response_metadata["fusion"], answers[1].additional_kwargs["fusion"]
    expected = plan.decision.to_json()
    for mark in marks:
        assert {key: mark[key] for key in expected} == expected
    assert marks[0]["cost_usd"] == marks[1]["cost_usd"] is not None
    # The chosen model, and no other, got the planned messages, once from each framework.
    assert adapters.clients[plan.candidate.model].calls == [plan.messages] * 2
    assert sum(len(client.calls) for client in adapters.clients.values()) == 2


@given(texts, policies)
@example(SUM, RoutingPolicy())
@example(PROSE, RoutingPolicy(cost_weight=1.0))
def test_tools_are_chosen_as_the_core_plans(tool_adapters, text, policy):
    offered = [ToolMetadata(name=name, description=f"about {name}") for name in reversed(IDS)]
    decision = outcome(lambda: tool_adapters.core.plan(text, policy=policy).decision)
    config = {"configurable": {"fusion_policy": policy}}
    assert outcome(lambda: tool_adapters.router.invoke(text, config)) == decision

    selector = FusionSelector(tool_adapters.selector.pipeline, policy=policy)
    result = outcome(lambda: selector.select(offered, text))
    if isinstance(decision, tuple):
        assert result == decision
        return
    (chosen,), (own,) = result.selections, result.decisions
    assert offered[chosen.index].name == decision.candidate.id
    assert chosen.reason == decision.reason
    # Naming all tools as allowed is another policy by name, with the same choice.
    assert {**own.to_json(), "policy": ""} == {**decision.to_json(), "policy": ""}


@given(st.lists(texts.filter(str.strip), min_size=1, max_size=4), policies)
def test_batches_are_chosen_as_the_core_plans(adapters, batch, policy):
    config = {"configurable": {"fusion_policy": policy}}
    plans = outcome(lambda: adapters.core.plan_batch(batch, policy=policy))
    decisions = plans if isinstance(plans, tuple) else [plan.decision for plan in plans]
    got = outcome(lambda: adapters.router.batch(batch, config))
    if isinstance(decisions, tuple):
        assert got[0] is decisions[0]  # one query at a time, so the message counts differently
    else:
        assert got == decisions


async def test_asynchronous_choices_are_the_same(adapters):
    queries = [SUM, PROSE] * 3
    plans = await adapters.core.aplan_batch(queries)
    chosen = [plan.candidate.id for plan in plans]
    assert [decision.candidate.id for decision in await adapters.router.abatch(queries)] == chosen
    messages = await asyncio.gather(*(adapters.chat_model.ainvoke(query) for query in queries))
    assert [message.response_metadata["fusion"]["candidate"] for message in messages] == chosen
    responses = await asyncio.gather(*(adapters.llm.acomplete(query) for query in queries))
    assert [response.additional_kwargs["fusion"]["candidate"] for response in responses] == chosen


def test_pinned_candidates_are_the_same(adapters):
    plan = adapters.core.pin(adapters.core.plan(SUM), "writer")
    config = {"configurable": {"fusion_route": "writer"}}
    assert adapters.router.invoke(SUM, config) == plan.decision
    marks = (
        adapters.chat_model.invoke(SUM, config).response_metadata["fusion"],
        adapters.llm.complete(SUM, route="writer").additional_kwargs["fusion"],
    )
    expected = plan.decision.to_json()
    for mark in marks:
        assert {key: mark[key] for key in expected} == expected


def test_conversations_without_a_question_are_refused_alike(adapters):
    conversation = [("system", "Be brief."), ("assistant", "Hello")]
    calls = (
        lambda: adapters.core.plan(to_core(conversation)),
        lambda: adapters.router.invoke(to_langchain(conversation)),
        lambda: adapters.chat_model.invoke(to_langchain(conversation)),
        lambda: adapters.llm.chat(to_llamaindex(conversation)),
    )
    for call in calls:
        with pytest.raises(EmptyQueryError):
            call()


def test_a_budget_is_spent_and_kept_alike_with_no_store_to_record_in():
    router = tiny_router()
    dear = router.route(PROSE).expected_cost_usd
    clients = {name: ScriptedChatClient(name, answer=lambda messages: "fine") for name in MODELS}

    def pipeline():
        return FusionPipeline(router, budget=RunBudget(2.5 * dear))

    of_langchain, of_llamaindex, of_batches = pipeline(), pipeline(), pipeline()
    models = {name: ChatClientModel(client=client) for name, client in clients.items()}
    chat_model = FusionChatModel(pipeline=of_langchain, models=models)
    llms = {name: ChatClientLLM(client) for name, client in clients.items()}
    llm = FusionLLM(of_llamaindex, llms=llms)
    for call, own in ((chat_model.invoke, of_langchain), (llm.complete, of_llamaindex)):
        answered = [outcome(lambda call=call: call(PROSE)) for _ in range(5)]
        assert [isinstance(each, tuple) for each in answered] == [False, False, True, True, True]
        assert own.budget.spent_usd == pytest.approx(2 * dear)
        assert own.budget.reserved_usd == 0
    # What does not suffice for a batch does not suffice for its queries one by one.
    with pytest.raises(BudgetExceededError):
        FusionRouter(pipeline=of_batches).batch([PROSE] * 10)
