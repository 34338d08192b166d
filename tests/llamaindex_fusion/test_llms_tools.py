import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool

from fusion_integrations.errors import InvalidPolicyError, NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from llamaindex_fusion import FusionLLM

PROSE = "Write a line about rivers."
TOOLS_ONLY = RoutingPolicy(required_capabilities=frozenset({"tools"}))


def add(a: int = 17, b: int = 4) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)


async def test_tools_when_given_then_only_a_capable_candidate_answers(
    tools_llm: FusionLLM, store: LogStore
) -> None:
    # Without tools this query is the writer's.
    responses = [
        tools_llm.chat_with_tools([ADD], user_msg=PROSE),
        list(tools_llm.stream_chat_with_tools([ADD], chat_history=[ChatMessage(content=PROSE)]))[-1],
        await tools_llm.achat_with_tools([ADD], user_msg=ChatMessage(content=PROSE)),
        [c async for c in await tools_llm.astream_chat_with_tools([ADD], user_msg=PROSE, chat_history=[])][
            -1
        ],
    ]

    calls = [tools_llm.get_tool_calls_from_response(response) for response in responses]
    assert [[call.tool_name for call in each] for each in calls] == [["add"]] * 4
    assert {r.additional_kwargs["fusion"]["candidate"] for r in responses} == {"calculator"}
    assert [record.finish_reason for record in store.records()] == ["tool_calls"] * 4
    assert {record.eligible for record in store.records()} == {("calculator",)}


def test_tools_when_history_and_message_are_given_then_both_reach_the_llm_in_order(
    tools_llm: FusionLLM, store: LogStore
) -> None:
    history = [ChatMessage(content="hello"), ChatMessage(role="assistant", content="hi")]

    tools_llm.chat_with_tools([ADD], user_msg=PROSE, chat_history=history)

    (record,) = store.records()
    assert [message.content for message in record.messages] == ["hello", "hi", PROSE]
    assert len(history) == 2


def test_tools_when_policy_excludes_all_capable_candidates_then_error(tools_llm: FusionLLM) -> None:
    with pytest.raises(NoEligibleCandidateError, match="lacks tools"):
        tools_llm.chat_with_tools(
            [ADD], user_msg=PROSE, policy=RoutingPolicy(allowed=frozenset({"writer", "thinker"}))
        )


def test_tools_when_the_declared_llm_cannot_call_functions_then_error_and_no_record(
    llm: FusionLLM, store: LogStore
) -> None:
    with pytest.raises(InvalidPolicyError, match=r"'calculator'.*'ChatClientLLM' cannot call functions"):
        llm.chat_with_tools([ADD], user_msg=PROSE)

    assert list(store.records()) == []


def test_tool_calls_when_response_is_not_of_this_llm_then_error(tools_llm: FusionLLM) -> None:
    with pytest.raises(UnknownCandidateError, match="names no function calling model"):
        tools_llm.get_tool_calls_from_response(ChatResponse(message=ChatMessage(content="x")))


def test_tool_calls_of_the_empty_response_of_an_empty_stream_are_none(tools_llm: FusionLLM) -> None:
    empty = ChatResponse(message=ChatMessage())

    assert tools_llm.get_tool_calls_from_response(empty, error_on_no_tool_call=False) == []


def test_tool_calls_when_the_llm_keeps_them_outside_the_blocks_then_they_are_found(
    tools_llm: FusionLLM,
) -> None:
    call = ToolSelection(tool_id="1", tool_name="add", tool_kwargs={})
    response = ChatResponse(
        message=ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]}),
        additional_kwargs={"fusion": {"model": "tiny-math"}},
    )

    assert tools_llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == [call]


def test_metadata_when_policy_requires_tools_then_function_calling(
    pipeline: FusionPipeline, tools_llm: FusionLLM
) -> None:
    agentic = FusionLLM(pipeline, llms=tools_llm.llms, policy=TOOLS_ONLY)

    assert not tools_llm.metadata.is_function_calling_model
    assert agentic.metadata.is_function_calling_model


def test_predict_and_call_runs_the_tool(pipeline: FusionPipeline) -> None:
    llm = FusionLLM(pipeline, llms={"tiny-math": MockFunctionCallingLLM()}, policy=TOOLS_ONLY)

    assert llm.predict_and_call([ADD], user_msg=PROSE).response == "21"


# The workflow package looks at every attribute of the agent, pydantic's deprecated ones too.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("streaming", [False, True])
async def test_function_agent_uses_its_tool_through_the_router(
    pipeline: FusionPipeline, store: LogStore, streaming: bool
) -> None:
    llm = FusionLLM(pipeline, llms={"tiny-math": MockFunctionCallingLLM()}, policy=TOOLS_ONLY)
    agent = FunctionAgent(tools=[ADD], llm=llm, streaming=streaming)

    result = await agent.run(PROSE)

    assert str(result) == "Tool calls complete."
    assert [call.tool_output.raw_output for call in result.tool_calls] == [21]
    assert [record.candidate_id for record in store.records()] == ["calculator"] * 2


def test_prepare_when_called_then_error_says_what_to_call(tools_llm: FusionLLM) -> None:
    with pytest.raises(NotImplementedError, match="Call chat_with_tools"):
        tools_llm._prepare_chat_with_tools([ADD])
