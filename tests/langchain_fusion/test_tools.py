from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from fusion_integrations import FusionPipeline, RouterModel, RoutingPolicy
from fusion_integrations.errors import InvalidPolicyError, NoEligibleCandidateError
from langchain_fusion import FusionChatModel

SUM = "What is 3 plus 4?"
PROSE = "Describe old trains kindly."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Total(BaseModel):
    """A sum."""

    total: int


class ToolModel(BaseChatModel):
    """Calls its first tool once, and notes how it was bound and called."""

    name: str
    args: dict[str, Any]
    bound: list[tuple[Any, ...]]
    called: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "tool-model"

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        self.bound.append((list(tools), tool_choice, kwargs))
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools])

    def _call(self, messages, kwargs) -> dict[str, Any]:
        self.called.append({key: value for key, value in kwargs.items() if key != "tools"})
        fields: dict[str, Any] = {"content": "", "response_metadata": {"model_name": self.name}}
        if kwargs.get("tools") and not isinstance(messages[-1], ToolMessage):
            name = kwargs["tools"][0]["function"]["name"]
            return fields | {"tool_calls": [{"name": name, "args": self.args, "id": "1"}]}
        return fields | {"content": f"{self.name} is done"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**self._call(messages, kwargs)))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        message = AIMessageChunk(**self._call(messages, kwargs), chunk_position="last")
        yield ChatGenerationChunk(message=message)


def _models(args: dict[str, Any]) -> dict[str, ToolModel]:
    names = ("tiny-math", "tiny-prose")
    return {name: ToolModel(name=name, args=args, bound=[], called=[]) for name in names}


def _declaring(router: RouterModel, **capabilities: set[str]) -> RouterModel:
    candidates = tuple(
        replace(candidate, capabilities=frozenset(capabilities.get(candidate.id, set())))
        for candidate in router.candidates
    )
    return replace(router, weights=replace(router.weights, candidates=candidates))


def _routing(router: RouterModel, models: dict[str, ToolModel], **fields: Any) -> FusionChatModel:
    return FusionChatModel(pipeline=FusionPipeline(router), models=models, **fields)


def _candidate(answer: AIMessage) -> str:
    return answer.response_metadata["fusion"]["candidate"]


async def test_tools_when_bound_then_reach_the_chosen_model_as_they_were(router):
    models = _models({"a": 3, "b": 4})
    schema = {"title": "Sub", "description": "Subtract.", "type": "object", "properties": {}}
    model = _routing(router, models).bind_tools([add, schema], tool_choice="any", strict=True)

    answers = [model.invoke(SUM), await model.ainvoke(SUM), *model.stream(SUM)]
    answers += [chunk async for chunk in model.astream(SUM)]
    answers.append(model.stream_events(SUM, version="v3").output)
    answers.append(await (await model.astream_events(SUM, version="v3")))

    assert isinstance(model, RunnableBinding)
    assert models["tiny-math"].bound == [([add, schema], "any", {"strict": True})] * 6
    assert models["tiny-math"].bound[0][0][0] is add
    assert [answer.tool_calls[0]["args"] for answer in answers] == [{"a": 3, "b": 4}] * 6
    assert all(_candidate(answer) == "calculator" for answer in answers)


def test_tools_when_bound_then_only_candidates_with_tools_are_eligible(router):
    model = _routing(router, _models({"a": 1, "b": 1}))

    assert _candidate(model.invoke(PROSE)) == "writer"
    answer = model.bind_tools([add]).invoke(PROSE)

    assert _candidate(answer) == "calculator"
    lacking = [r["excluded"] for r in answer.response_metadata["fusion"]["ranking"] if r["excluded"]]
    assert lacking == ["lacks tools", "lacks tools"]


def test_tools_when_no_candidate_declares_anything_then_says_how_to(router):
    model = _routing(_declaring(router), _models({})).bind_tools([add])

    with pytest.raises(
        NoEligibleCandidateError, match=r"'tools'.*Candidate\(\.\.\., capabilities="
    ) as caught:
        model.invoke(SUM)
    assert "route" in str(caught.value)


def test_tools_when_route_is_pinned_then_its_capabilities_are_not_asked_for(router):
    model = _routing(_declaring(router), _models({"a": 1, "b": 1})).bind_tools([add])

    answer = model.invoke(SUM, {"configurable": {"fusion_route": "writer"}})

    assert _candidate(answer) == "writer"
    assert answer.tool_calls


def test_tools_when_policy_forbids_the_able_candidate_then_raises_with_reasons(router):
    policy = RoutingPolicy(allowed=frozenset({"writer"}))

    with pytest.raises(NoEligibleCandidateError, match="'writer': lacks tools"):
        _routing(router, _models({}), policy=policy).bind_tools([add]).invoke(SUM)


def test_tools_when_bound_empty_then_everybody_is_eligible(router):
    assert _candidate(_routing(router, _models({})).bind_tools([]).invoke(PROSE)) == "writer"


def test_tools_when_bound_raw_by_the_caller_then_are_required_too(router):
    model = _routing(router, _models({"a": 1, "b": 1})).bind(tools=[convert_to_openai_tool(add)])

    assert _candidate(model.invoke(PROSE)) == "calculator"


def test_tools_when_bound_with_a_response_format_then_structured_output_is_required(router):
    able = _declaring(router, thinker={"tools", "structured_output"}, calculator={"tools"})
    model = _routing(able, _models({"a": 1, "b": 1})).bind_tools([add], response_format={"type": "x"})

    assert _candidate(model.invoke(SUM)) == "thinker"


def test_stream_when_tool_calls_shall_not_stream_then_gives_the_answer_at_once(router):
    model = _routing(router, _models({"a": 1, "b": 1}), disable_streaming="tool_calling")

    (message,) = model.bind_tools([add]).stream(SUM)

    assert type(message) is AIMessage
    assert isinstance(next(model.stream(SUM)), AIMessageChunk)


async def test_structured_output_when_asked_then_the_chosen_model_makes_it(router, run_log):
    able = _declaring(router, calculator={"structured_output"})
    model = _routing(able, _models({"total": 7})).with_structured_output(Total)
    config = {"callbacks": [run_log]}

    assert isinstance(model, RunnableBinding)
    assert model.invoke(PROSE, config) == Total(total=7)
    assert await model.ainvoke(PROSE) == Total(total=7)
    assert list(model.stream(PROSE))[-1] == Total(total=7)
    assert [part async for part in model.astream(PROSE)][-1] == Total(total=7)
    assert model.OutputType is Total
    assert [kind for kind, _ in run_log.kinds()].count("llm") == 1


def test_structured_output_when_raw_is_included_then_raw_carries_the_decision(router):
    able = _declaring(router, calculator={"structured_output"})

    answer = _routing(able, _models({"total": 7})).with_structured_output(Total, include_raw=True).invoke(SUM)

    assert answer["parsed"] == Total(total=7)
    assert _candidate(answer["raw"]) == "calculator"


def test_structured_output_when_by_function_calling_then_tools_suffice(router):
    model = _routing(router, _models({"total": 7}))

    assert model.with_structured_output(Total, method="function_calling").invoke(PROSE) == Total(total=7)
    with pytest.raises(NoEligibleCandidateError, match="lacks structured_output"):
        model.with_structured_output(Total).invoke(PROSE)


def test_structured_output_when_settings_are_given_then_reach_the_model(router):
    models = _models({"total": 7})
    able = _declaring(router, calculator={"structured_output"})

    _routing(able, models, temperature=0.5).with_structured_output(Total).invoke(SUM)

    assert models["tiny-math"].called[0]["temperature"] == 0.5


def test_structured_output_when_settings_would_be_lost_then_refuses(router):
    able = _declaring(router, calculator={"structured_output"})
    model = _routing(able, _models({"total": 7}), temperature=0.5)

    with pytest.raises(InvalidPolicyError, match=r"\['temperature'\].*include_raw"):
        model.with_structured_output(Total, include_raw=True).invoke(SUM)


def test_structured_output_when_it_does_not_parse_then_the_answer_is_recorded_all_the_same(router, store):
    able = _declaring(router, calculator={"structured_output"})
    pipeline = FusionPipeline(able, store=store)
    model = FusionChatModel(pipeline=pipeline, models=_models({"total": "many"}))

    with pytest.raises(ValueError, match="total"):
        model.with_structured_output(Total).invoke(SUM)

    (record,) = store.records()
    assert (record.error, record.response) == (None, "")


async def test_agent_when_run_over_the_router_then_tool_loop_works_and_every_step_routes_alike(router, store):
    pipeline = FusionPipeline(router, store=store)
    agent = create_agent(FusionChatModel(pipeline=pipeline, models=_models({"a": 3, "b": 4})), tools=[add])

    state = agent.invoke({"messages": [HumanMessage(SUM)]})
    async_state = await agent.ainvoke({"messages": [HumanMessage(SUM)]})

    for messages in (state["messages"], async_state["messages"]):
        assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
        assert messages[2].content == "7"
        assert messages[3].content == "tiny-math is done"
    assert [record.candidate_id for record in store.records()] == ["calculator"] * 4


def test_agent_when_it_streams_messages_then_the_models_tokens_come_through(router):
    agent = create_agent(_routing(router, _models({"a": 3, "b": 4})), tools=[add])

    steps = list(agent.stream({"messages": [HumanMessage(SUM)]}, stream_mode="messages"))

    texts = [message.content for message, _ in steps if isinstance(message, AIMessageChunk)]
    assert texts[-1] == "tiny-math is done"


def test_agent_when_it_wants_structured_output_then_gets_it(router):
    agent = create_agent(_routing(router, _models({"total": 7})), tools=[], response_format=Total)

    assert agent.invoke({"messages": [HumanMessage(SUM)]})["structured_response"] == Total(total=7)
