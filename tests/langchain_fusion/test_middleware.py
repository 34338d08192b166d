from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    LLMToolSelectorMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    wrap_model_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from fusion_integrations import FusionPipeline, LogStore, RouterModel, RoutingPolicy
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    EmptyQueryError,
    InvalidPolicyError,
    LogStoreError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.testing import tiny_prices
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from langchain_fusion import FusionModelMiddleware

SUM = "What is 3 plus 4?"
PROSE = "Describe old trains kindly."
LOOP = [HumanMessage, AIMessage, ToolMessage, AIMessage]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Total(BaseModel):
    """A sum."""

    total: int


class AgentModel(BaseChatModel):
    """Calls its first tool once a turn, and notes what it is asked; `failures` are raised first."""

    model: str
    args: dict[str, Any]
    asked: list[list[BaseMessage]]
    bound: list[dict[str, Any]]
    failures: list[Exception]

    @property
    def _llm_type(self) -> str:
        return "agent-model"

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        self.bound.append({"names": [convert_to_openai_tool(t)["function"]["name"] for t in tools], **kwargs})
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools])

    def _fields(self, messages: Sequence[BaseMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(list(messages))
        if self.failures:
            raise self.failures.pop()
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        fields = {"usage_metadata": usage, "response_metadata": {"model_name": self.model}}
        if kwargs.get("tools") and not isinstance(messages[-1], ToolMessage):
            name = kwargs["tools"][0]["function"]["name"]
            call = {"name": name, "args": self.args, "id": f"call-{len(messages)}"}
            return fields | {"content": "", "tool_calls": [call]}
        return fields | {"content": f"{self.model} is done"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = AIMessage(**self._fields(messages, kwargs))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        fields = self._fields(messages, kwargs)
        for word in fields["content"].split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
        last = AIMessageChunk(**{**fields, "content": ""}, chunk_position="last")
        yield ChatGenerationChunk(message=last)


class NotingEmbedder(HashEmbedder):
    """A hash embedder that notes the thread of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def embed(self, texts):
        self.threads.append(threading.current_thread())
        return super().embed(texts)


def _model(name: str, args: dict[str, Any] | None = None, *failures: Exception) -> AgentModel:
    return AgentModel(model=name, args=args or {"a": 3, "b": 4}, asked=[], bound=[], failures=list(failures))


def _models(args: dict[str, Any] | None = None) -> dict[str, AgentModel]:
    return {name: _model(name, args) for name in ("tiny-math", "tiny-prose")}


def _declaring(router: RouterModel, *capabilities: str) -> RouterModel:
    """Return the router whose candidates all declare the capabilities, and nothing else."""
    candidates = tuple(
        replace(candidate, capabilities=frozenset(capabilities)) for candidate in router.candidates
    )
    return replace(router, weights=replace(router.weights, candidates=candidates))


@pytest.fixture
def able(router: RouterModel, store: LogStore) -> FusionPipeline:
    """A pipeline all of whose candidates can use tools."""
    return FusionPipeline(_declaring(router, "tools"), prices=tiny_prices(), store=store)


def _agent(
    pipeline: FusionPipeline, models: dict[str, AgentModel], *, tools: Sequence[Any] = (add,), **settings: Any
):
    around, inside = settings.pop("around", []), settings.pop("inside", [])
    routing = FusionModelMiddleware(pipeline, models=models, policy=settings.pop("policy", None))
    own = _model("own")
    agent = create_agent(own, tools=list(tools), middleware=[*around, routing, *inside], **settings)
    return agent, own


def _asking(*turns: str | BaseMessage) -> dict[str, Any]:
    return {"messages": [HumanMessage(turn) if isinstance(turn, str) else turn for turn in turns]}


def _candidates(messages: Sequence[BaseMessage]) -> list[str]:
    return [m.response_metadata["fusion"]["candidate"] for m in messages if isinstance(m, AIMessage)]


async def _invoke(agent, messages, config=None):
    return agent.invoke(messages, config)["messages"]


async def _ainvoke(agent, messages, config=None):
    return (await agent.ainvoke(messages, config))["messages"]


async def _stream(agent, messages, config=None):
    return list(agent.stream(messages, config, stream_mode="values"))[-1]["messages"]


async def _astream(agent, messages, config=None):
    return [state async for state in agent.astream(messages, config, stream_mode="values")][-1]["messages"]


WAYS = [_invoke, _ainvoke, _stream, _astream]


# Turns


@pytest.mark.parametrize("ask", WAYS)
async def test_turn_when_it_uses_a_tool_then_one_candidate_sees_it_through(able, store, ask):
    models = _models()
    agent, own = _agent(able, models)

    messages = await ask(agent, _asking(SUM))

    assert [type(message) for message in messages] == LOOP
    assert (messages[2].content, messages[3].text.strip()) == ("7", "tiny-math is done")
    assert _candidates(messages) == ["calculator", "calculator"]
    assert [record.candidate_id for record in store.records()] == ["calculator"] * 2
    assert own.asked == models["tiny-prose"].asked == []


@pytest.mark.parametrize("ask", WAYS)
async def test_turn_when_user_speaks_again_then_is_routed_anew(able, ask):
    agent, _ = _agent(able, _models(), checkpointer=InMemorySaver())
    thread = {"thread_id": "1"}

    await ask(agent, _asking(SUM), {"configurable": {**thread, "fusion_route": "thinker"}})
    messages = await ask(agent, _asking(SUM), {"configurable": thread})

    assert [type(message) for message in messages] == LOOP * 2
    assert _candidates(messages) == ["thinker", "thinker", "calculator", "calculator"]
    outcomes = [m.response_metadata["fusion"]["outcome"] for m in messages if isinstance(m, AIMessage)]
    assert outcomes == ["pinned", "pinned", "default", "only_eligible"]


def test_turn_when_its_tools_vanish_midway_then_the_same_candidate_goes_on(router, store):
    @wrap_model_call
    def tools_once(request, handler):
        has_result = isinstance(request.messages[-1], ToolMessage)
        return handler(request.override(tools=[]) if has_result else request)

    agent, _ = _agent(FusionPipeline(router, store=store), _models(), around=[tools_once])

    messages = agent.invoke(_asking(PROSE))["messages"]

    assert _candidates(messages) == ["calculator", "calculator"]  # alone has tools; without, "writer" leads
    first, second = store.records()
    assert first.eligible == second.eligible == ("calculator",)
    assert (second.assignment, second.propensity) == ("policy", 1.0)


def _begun(candidate_id: str) -> list[BaseMessage]:
    call = {"name": "add", "args": {"a": 3, "b": 4}, "id": "1"}
    mark = {"candidate": candidate_id, "model": "tiny-prose"}
    begun = AIMessage("", tool_calls=[call], response_metadata={"fusion": mark})
    return [HumanMessage(SUM), begun, ToolMessage("7", tool_call_id="1")]


async def test_turn_when_resumed_then_who_began_goes_on_and_the_decision_says_so(able):
    agent, _ = _agent(able, _models())

    for messages in (
        agent.invoke(_asking(*_begun("writer")))["messages"],
        (await agent.ainvoke(_asking(*_begun("writer"))))["messages"],
    ):
        decision = messages[-1].response_metadata["fusion"]
        assert (decision["candidate"], decision["outcome"]) == ("writer", "only_eligible")
        assert decision["reason"] == "'writer' has begun to answer and goes on."
        assert [r["candidate_id"] for r in decision["ranking"] if r["excluded"] is None] == ["writer"]


@pytest.mark.parametrize(
    ("begun_by", "policy"),
    [("writer", RoutingPolicy(allowed=frozenset({"calculator"}))), ("retired", RoutingPolicy())],
)
def test_turn_when_who_began_may_not_go_on_then_is_routed_anew(able, begun_by, policy):
    agent, _ = _agent(able, _models(), policy=policy)

    messages = agent.invoke(_asking(*_begun(begun_by)))["messages"]

    assert _candidates(messages)[-1] == "calculator"


async def test_turns_when_many_run_at_once_then_each_keeps_its_candidate(able, store):
    agent, _ = _agent(able, _models())
    asked = [_asking(SUM), _asking(PROSE)] * 8
    expected = [["calculator"] * 2, ["writer"] * 2] * 8

    states = agent.batch(asked, {"max_concurrency": 8})
    async_states = await agent.abatch(asked)

    assert [_candidates(state["messages"]) for state in states] == expected
    assert [_candidates(state["messages"]) for state in async_states] == expected
    assert len(list(store.records())) == 64


# What the chosen model is asked


@pytest.mark.parametrize("ask", WAYS)
async def test_prompt_mode_when_it_reasons_then_edits_the_user_message_in_every_call(able, store, ask):
    models = _models()
    agent, _ = _agent(able, models, system_prompt="Be brief.")
    config = {"configurable": {"fusion_route": "thinker"}}

    messages = await ask(agent, _asking(SUM), config)

    first, second = models["tiny-prose"].asked
    assert [message.type for message in second] == ["system", "human", "ai", "tool"]
    assert first[0].content == second[0].content == "Be brief."
    assert first[1].content == second[1].content
    assert SUM in first[1].content
    assert "Answer:" in first[1].content
    assert messages[0].content == SUM
    assert [m.content for m in next(iter(store.records())).messages] == ["Be brief.", SUM]


@pytest.mark.parametrize("ask", WAYS)
async def test_prompt_mode_when_it_is_thought_then_templates_stand_before_the_query_in_every_call(
    router, store, make_template_store, ask
):
    router = _declaring(router, "tools")
    thinker = next(candidate for candidate in router.candidates if candidate.id == "thinker")
    guided = tuple(
        replace(candidate, prompt_mode="thought") if candidate == thinker else candidate
        for candidate in router.candidates
    )
    router = replace(router, weights=replace(router.weights, candidates=guided))
    embedder = NotingEmbedder()
    thoughts = ThoughtPrompter(make_template_store(embedder))
    embedder.threads.clear()
    models = _models()
    agent, _ = _agent(FusionPipeline(router, store=store, thoughts=thoughts), models)

    another_sum = "What is 3 plus 4 plus 5?"  # the template of the very query is left out
    await ask(agent, _asking(another_sum), {"configurable": {"fusion_route": "thinker"}})

    first, second = models["tiny-prose"].asked
    assert first[0].content == second[0].content
    assert "Take it step by step, as for sums." in first[0].content
    assert next(iter(store.records())).messages[0].content == another_sum
    if ask in (_ainvoke, _astream):
        assert threading.main_thread() not in embedder.threads


def test_prompt_mode_when_user_sends_an_image_then_it_is_kept(able):
    models = _models()
    agent, _ = _agent(able, models)
    image = {"type": "image", "url": "https://example.org/train.png"}
    message = HumanMessage([{"type": "text", "text": SUM}, image])

    agent.invoke(_asking(message), {"configurable": {"fusion_route": "thinker"}})

    text, kept = models["tiny-prose"].asked[0][-1].content
    assert kept == image
    assert "Answer:" in text["text"]


def test_models_when_routed_then_stay_as_they_were(able):
    models = _models()
    agent, _ = _agent(able, models)
    before = models["tiny-math"].callbacks, dict(models["tiny-math"].metadata)

    agent.invoke(_asking(SUM))

    assert (models["tiny-math"].callbacks, models["tiny-math"].metadata) == before


@pytest.mark.parametrize("as_manager", [False, True])
def test_models_when_they_have_callbacks_then_those_see_the_run(able, run_log, as_manager):
    models = _models()
    models["tiny-math"].callbacks = CallbackManager([run_log]) if as_manager else [run_log]
    agent, _ = _agent(able, models, tools=[])

    agent.invoke(_asking(SUM))

    assert [kind for kind, _ in run_log.kinds()] == ["llm"]


def test_inner_middleware_when_it_looks_then_sees_the_native_model(able):
    seen = []

    @wrap_model_call
    def look(request, handler):
        seen.append(request.model)
        return handler(request)

    agent, _ = _agent(able, _models(), inside=[look], tools=[])
    agent.invoke(_asking(SUM))

    assert [(type(model), model.model) for model in seen] == [(AgentModel, "tiny-math")]


# Capabilities, policy, pinning


def test_tools_when_agent_has_them_then_only_able_candidates_are_eligible(router):
    pipeline = FusionPipeline(router)  # only the calculator declares "tools"
    with_tools, _ = _agent(pipeline, _models())
    without, _ = _agent(pipeline, _models(), tools=[])

    assert _candidates(with_tools.invoke(_asking(PROSE))["messages"]) == ["calculator"] * 2
    assert _candidates(without.invoke(_asking(PROSE))["messages"]) == ["writer"]


def test_tools_when_no_candidate_declares_anything_then_says_how_to(router):
    agent, _ = _agent(FusionPipeline(_declaring(router)), _models())

    with pytest.raises(NoEligibleCandidateError, match=r"'tools'.*Candidate\(\.\.\., capabilities="):
        agent.invoke(_asking(SUM))


@pytest.mark.parametrize("response_format", [Total, ToolStrategy(Total)])
async def test_structured_output_when_asked_as_a_tool_then_needs_tools_and_arrives(router, response_format):
    pipeline = FusionPipeline(router)
    agent, _ = _agent(pipeline, _models({"total": 7}), tools=[], response_format=response_format)

    state = agent.invoke(_asking(PROSE))
    async_state = await agent.ainvoke(_asking(PROSE))

    assert state["structured_response"] == async_state["structured_response"] == Total(total=7)
    assert _candidates(state["messages"]) == ["calculator"]


def test_structured_output_when_the_provider_makes_it_then_needs_that(router):
    models = _models()
    settings = {"tools": [], "response_format": ProviderStrategy(Total)}
    unable, _ = _agent(FusionPipeline(router), models, **settings)
    agent, _ = _agent(FusionPipeline(_declaring(router, "structured_output")), models, **settings)

    with pytest.raises(NoEligibleCandidateError, match="lacks structured_output"):
        unable.invoke(_asking(SUM))
    with pytest.raises(Exception, match="Total"):  # this model cannot really do it
        agent.invoke(_asking(SUM))
    assert models["tiny-math"].bound[0]["response_format"]["json_schema"]["name"] == "Total"


def test_structured_output_when_it_does_not_parse_then_the_answer_is_recorded_all_the_same(able, store):
    agent, _ = _agent(
        able,
        _models({"total": "many"}),
        tools=[],
        response_format=ToolStrategy(Total, handle_errors=False),
    )

    with pytest.raises(Exception, match="Total"):
        agent.invoke(_asking(SUM))

    (record,) = store.records()
    assert (record.candidate_id, record.error) == ("calculator", None)


@pytest.mark.parametrize("ask", WAYS)
async def test_route_when_pinned_by_config_then_answers_unchecked_and_is_the_users(router, store, ask):
    agent, _ = _agent(FusionPipeline(_declaring(router), store=store), _models())

    messages = await ask(agent, _asking(SUM), {"configurable": {"fusion_route": "writer", "thread_id": "t"}})

    assert _candidates(messages) == ["writer", "writer"]
    assert {(r.assignment, r.propensity, r.session_id) for r in store.records()} == {("user", None, "t")}


def test_policy_when_given_by_config_then_precedes_the_middlewares_and_the_pipelines(able):
    only = {name: RoutingPolicy(allowed=frozenset({name})) for name in ("thinker", "writer")}
    agent, _ = _agent(able, _models(), policy=only["writer"])
    config = {"configurable": {"fusion_policy": only["thinker"]}}

    assert _candidates(agent.invoke(_asking(SUM))["messages"]) == ["writer"] * 2
    assert _candidates(agent.invoke(_asking(SUM), config)["messages"]) == ["thinker"] * 2


def test_config_when_it_cannot_be_followed_then_raises(able):
    agent, _ = _agent(able, _models())

    with pytest.raises(UnknownCandidateError, match="gpt-7"):
        agent.invoke(_asking(SUM), {"configurable": {"fusion_route": "gpt-7"}})
    with pytest.raises(InvalidPolicyError, match="fusion_policy"):
        agent.invoke(_asking(SUM), {"configurable": {"fusion_policy": "cheap"}})


def test_middleware_when_a_candidate_has_no_model_then_is_refused(able):
    models = {"tiny-math": _model("tiny-math")}

    with pytest.raises(UnknownCandidateError, match="'tiny-prose'"):
        FusionModelMiddleware(able, models=models)
    FusionModelMiddleware(able, models=models, policy=RoutingPolicy(allowed=frozenset({"calculator"})))


def test_model_when_set_in_the_model_settings_then_is_refused(able):
    @wrap_model_call
    def rename(request, handler):
        return handler(request.override(model_settings={"model": "gpt-7"}))

    agent, _ = _agent(able, _models(), around=[rename])

    with pytest.raises(InvalidPolicyError, match="gpt-7"):
        agent.invoke(_asking(SUM))


def test_query_when_user_said_nothing_then_raises(able):
    agent, _ = _agent(able, _models())

    with pytest.raises(EmptyQueryError):
        agent.invoke(_asking(" "))


# Records


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_answered_then_is_the_models_run_with_its_cost(able, store, run_log, ask):
    usage = UsageMetadataCallbackHandler()
    agent, _ = _agent(able, _models())

    messages = await ask(agent, _asking(SUM), {"callbacks": [run_log, usage]})

    runs = [str(run_id) for kind, _, run_id, _ in run_log.starts if kind == "llm"]
    assert [record.record_id for record in store.records()] == runs
    # 10 tokens in at 1 USD and 5 out at 2 USD a million
    costs = [m.response_metadata["fusion"]["cost_usd"] for m in messages if isinstance(m, AIMessage)]
    assert costs == pytest.approx([20e-6, 20e-6])
    assert [record.cost_usd for record in store.records()] == costs
    assert usage.usage_metadata["tiny-math"]["input_tokens"] == 20
    assert {each["fusion_candidate"] for each in run_log.metadata.values()} == {"calculator"}


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_model_fails_then_is_an_error_and_the_error_is_raised(able, store, ask):
    models = _models()
    models["tiny-math"].failures.append(RuntimeError("out of order"))
    agent, _ = _agent(able, models)

    with pytest.raises(RuntimeError, match="out of order"):
        await ask(agent, _asking(SUM))

    (record,) = store.records()
    assert (record.candidate_id, record.error) == ("calculator", "RuntimeError: out of order")


@pytest.mark.parametrize("side", ["around", "inside"])
@pytest.mark.parametrize("ask", WAYS)
async def test_fallback_when_model_fails_then_answers_in_its_name(able, store, ask, side):
    models = _models()
    models["tiny-math"].failures.append(RuntimeError("out of order"))
    backup = _model("backup")
    agent, own = _agent(able, models, tools=[], **{side: [ModelFallbackMiddleware(backup)]})

    messages = await ask(agent, _asking(SUM))

    assert messages[-1].text.strip() == "backup is done"
    assert "fusion" not in messages[-1].response_metadata
    assert [record.error for record in store.records()] == ["RuntimeError: out of order"]
    assert (len(models["tiny-math"].asked), own.asked) == (1, [])


def test_fallback_when_it_answered_then_the_next_step_is_routed_again(able, store):
    models = _models()
    models["tiny-math"].failures.append(RuntimeError("out of order"))
    agent, _ = _agent(able, models, around=[ModelFallbackMiddleware(_model("backup"))])

    messages = agent.invoke(_asking(SUM))["messages"]

    assert messages[1].response_metadata["model_name"] == "backup"
    assert messages[3].response_metadata["fusion"]["candidate"] == "calculator"


def test_model_when_outer_middleware_makes_a_new_one_for_each_attempt_then_only_the_first_is_routed(
    able, store
):
    @wrap_model_call
    def renew(request, handler):
        for _ in range(3):  # the objects may come to lie at one address
            response = handler(request.override(model=_model("new")))
        return response

    agent, _ = _agent(able, _models(), tools=[], around=[renew])

    message = agent.invoke(_asking(SUM))["messages"][-1]

    assert message.text.strip() == "new is done"
    assert [record.candidate_id for record in store.records()] == ["calculator"]


@pytest.mark.parametrize("side", ["around", "inside"])
@pytest.mark.parametrize("ask", WAYS)
async def test_retry_when_model_fails_once_then_both_runs_are_recorded(able, store, ask, side):
    models = _models()
    models["tiny-math"].failures.append(RuntimeError("out of order"))
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)
    agent, _ = _agent(able, models, tools=[], **{side: [retry]})

    messages = await ask(agent, _asking(SUM))

    assert _candidates(messages) == ["calculator"]
    assert [(r.candidate_id, r.error) for r in store.records()] == [
        ("calculator", "RuntimeError: out of order"),
        ("calculator", None),
    ]


def test_record_when_inner_middleware_answers_itself_then_there_is_none(able, store):
    @wrap_model_call
    def answer(request, handler):
        return AIMessage("No need to ask.")

    agent, _ = _agent(able, _models(), inside=[answer])
    message = agent.invoke(_asking(SUM))["messages"][-1]

    assert (message.content, message.response_metadata) == ("No need to ask.", {})
    assert list(store.records()) == []


def test_record_when_answer_comes_from_a_cache_then_there_is_none_and_it_cost_nothing(able, store):
    models = _models()
    models["tiny-math"].cache = InMemoryCache()
    agent, _ = _agent(able, models, tools=[])

    for _ in range(2):
        message = agent.invoke(_asking(HumanMessage(SUM, id="1")))["messages"][-1]

    assert message.response_metadata["fusion"]["cost_usd"] == 0.0
    assert len(list(store.records())) == 1


async def test_record_when_task_is_cancelled_then_is_abandoned(able, store):
    waiting, go_on = threading.Event(), threading.Event()

    class Gated(AgentModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            waiting.set()
            go_on.wait(timeout=5)
            return super()._generate(messages)

    gated = Gated(model="tiny-math", args={}, asked=[], bound=[], failures=[])
    agent, _ = _agent(able, {**_models(), "tiny-math": gated}, tools=[])

    task = asyncio.create_task(agent.ainvoke(_asking(SUM)))
    await asyncio.to_thread(waiting.wait, 5)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    (record,) = store.records()
    assert (record.finish_reason, record.error) == ("abandoned", None)


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_inner_middleware_asks_for_itself_then_is_the_answer_alone(able, store, ask):
    models = _models({"tools": ["add"], "a": 3, "b": 4})
    agent, _ = _agent(able, models, inside=[LLMToolSelectorMiddleware()])

    messages = await ask(agent, _asking(SUM))

    assert [type(message) for message in messages] == LOOP
    assert len(models["tiny-math"].asked) == 4  # each step first asks which tools to offer
    assert [record.messages[-1].content for record in store.records()] == [SUM, "7"]


async def test_record_when_inner_middleware_gives_up_and_answers_itself_then_is_abandoned(able, store):
    class Slow(AgentModel):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            await asyncio.sleep(60)

    class Impatient(AgentMiddleware):
        async def awrap_model_call(self, request, handler):
            try:
                return await asyncio.wait_for(handler(request), timeout=0.05)
            except TimeoutError:
                return AIMessage("It takes too long.")

    slow = Slow(model="tiny-math", args={}, asked=[], bound=[], failures=[])
    agent, _ = _agent(able, {**_models(), "tiny-math": slow}, tools=[], inside=[Impatient()])

    message = (await agent.ainvoke(_asking(SUM)))["messages"][-1]

    assert (message.content, message.response_metadata) == ("It takes too long.", {})
    (record,) = store.records()
    assert (record.finish_reason, record.error) == ("abandoned", None)


class BrokenStore(LogStore):
    """A store that opens and cannot be written."""

    def add(self, records, scores=()):
        raise LogStoreError("disk full")


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_store_is_broken_then_says_so(router, tmp_path, ask):
    with BrokenStore.open(tmp_path / "broken.db") as store:
        agent, _ = _agent(FusionPipeline(router, store=store), _models())

        with pytest.raises(LogStoreError, match="disk full"):
            await ask(agent, _asking(SUM))


async def test_record_when_awaited_then_planning_and_storing_leave_the_loop(router, tmp_path):
    threads = []

    class Noting(LogStore):
        def add(self, records, scores=()):
            threads.append(threading.current_thread())
            return super().add(records, scores)

    class NotingPipeline(FusionPipeline):
        def plan(self, query, *, policy=None):
            threads.append(threading.current_thread())
            return super().plan(query, policy=policy)

    with Noting.open(tmp_path / "noted.db") as store:
        agent, _ = _agent(NotingPipeline(_declaring(router, "tools"), store=store), _models())
        await agent.ainvoke(_asking(SUM))

    assert len(threads) == 4
    assert threading.main_thread() not in threads


# Streams


async def test_stream_when_messages_are_wanted_then_the_models_tokens_come_through(able):
    agent, _ = _agent(able, _models())

    steps = list(agent.stream(_asking(SUM), stream_mode="messages"))
    async_steps = [step async for step in agent.astream(_asking(SUM), stream_mode="messages")]

    for chunks in (steps, async_steps):
        words = [m.content for m, _ in chunks if isinstance(m, AIMessageChunk) and m.content]
        assert words == ["tiny-math ", "is ", "done "]
        named = {about["fusion_candidate"] for m, about in chunks if isinstance(m, AIMessageChunk)}
        assert named == {"calculator"}


def test_stream_when_updates_are_wanted_then_answers_carry_the_decision(able):
    agent, _ = _agent(able, _models())

    updates = [step["model"] for step in agent.stream(_asking(SUM), stream_mode="updates") if "model" in step]

    assert [_candidates(update["messages"]) for update in updates] == [["calculator"]] * 2
    assert all(set(update) == {"messages"} for update in updates)


def test_middleware_when_listed_then_has_its_own_name_and_no_node(able):
    agent, _ = _agent(able, _models())

    assert issubclass(FusionModelMiddleware, AgentMiddleware)
    assert set(agent.get_graph().nodes) == {"__start__", "model", "tools", "__end__"}
