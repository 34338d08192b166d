from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)

from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.prompts import PromptEdit, apply_prompt_edit, prompt_edit
from fusion_integrations.types import Message
from llamaindex_fusion._convert import (
    AnswerTally,
    edit_last_user_message,
    to_chat_messages,
    to_core_messages,
)

EDIT = PromptEdit(user_prefix="<", user_suffix=">", revision="test-1")


@pytest.mark.parametrize("role", MessageRole)
def test_roles_when_converted_then_every_one_has_a_core_role(role: MessageRole) -> None:
    (message,) = to_core_messages([ChatMessage(role=role, content="hi")])

    assert message.role in ("system", "user", "assistant", "tool")
    assert message.content == "hi"


def test_blocks_when_converted_then_text_is_joined_and_the_rest_adds_none() -> None:
    blocks = [TextBlock(text="a"), ImageBlock(url="http://x/y.png"), TextBlock(text="b")]
    calls = [ToolCallBlock(tool_name="add", tool_kwargs={})]

    messages = to_core_messages([ChatMessage(blocks=blocks), ChatMessage(role="assistant", blocks=calls)])

    assert messages == (Message(role="user", content="a\nb"), Message(role="assistant", content=""))


def test_core_messages_when_converted_and_back_then_equal() -> None:
    roles = ("system", "user", "assistant", "tool")
    messages = tuple(Message(role=role, content=f"as {role}") for role in roles)

    assert to_core_messages(to_chat_messages(messages)) == messages


def test_edit_when_message_has_an_image_then_it_is_kept_in_place() -> None:
    image = ImageBlock(url="http://x/y.png")
    before = [
        ChatMessage(role="system", content="be brief"),
        ChatMessage(blocks=[TextBlock(text="a"), image, TextBlock(text="b")], additional_kwargs={"k": 1}),
        ChatMessage(role="assistant", content="c"),
    ]

    after = edit_last_user_message(before, EDIT)

    assert after[1].blocks == [TextBlock(text="<a"), image, TextBlock(text="b>")]
    assert after[1].additional_kwargs == {"k": 1}
    assert (after[0], after[2]) == (before[0], before[2])
    assert before[1].content == "a\nb"


def test_edit_when_it_adds_nothing_then_messages_are_the_same_objects() -> None:
    before = [ChatMessage(blocks=[ImageBlock(url="http://x/y.png")])]

    after = edit_last_user_message(before, prompt_edit("direct"))

    assert after[0] is before[0]
    assert after is not before


@pytest.mark.parametrize(
    "messages", [[], [ChatMessage(role="assistant", content="x")], [ChatMessage(blocks=[])]]
)
def test_edit_when_there_is_no_user_text_then_error(messages: list[ChatMessage]) -> None:
    with pytest.raises(EmptyQueryError, match="no user message with text"):
        edit_last_user_message(messages, EDIT)


@given(
    st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=st.text()),
        max_size=4,
    ),
    st.text(min_size=1),
)
def test_edit_of_any_conversation_equals_the_cores(earlier: list[Message], text: str) -> None:
    messages = [*earlier, Message(role="user", content=text)]
    edit = prompt_edit("reasoning")

    edited = edit_last_user_message(to_chat_messages(messages), edit)

    assert to_core_messages(edited) == apply_prompt_edit(messages, edit)


def chat(**fields: object) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content="hi"), **fields)


@pytest.mark.parametrize(
    "response",
    [
        chat(additional_kwargs={"prompt_tokens": 7, "completion_tokens": 3, "finish_reason": "length"}),
        chat(raw={"usage": {"input_tokens": 7, "output_tokens": 3}, "stop_reason": "length"}),
        chat(
            raw={
                "usage_metadata": {"prompt_token_count": 7, "candidates_token_count": 3},
                "done_reason": "length",
            }
        ),
        chat(raw={"usage": {"inputTokens": 7, "outputTokens": 3}, "stopReason": "length"}),
        chat(
            raw=SimpleNamespace(
                usage=SimpleNamespace(prompt_tokens=7, completion_tokens=3),
                choices=[SimpleNamespace(finish_reason="length")],
            )
        ),
        CompletionResponse(
            text="hi", raw={"usage": {"prompt_tokens": 7, "completion_tokens": 3}, "finish_reason": "length"}
        ),
    ],
    ids=["kwargs", "anthropic", "gemini", "bedrock", "openai-object", "completion"],
)
def test_tally_reads_usage_where_integrations_leave_it(response: ChatResponse | CompletionResponse) -> None:
    tally = AnswerTally("m")

    tally.add(response)

    answer = tally.completion(latency_s=0.5)
    assert (answer.text, answer.model, answer.latency_s) == ("hi", "m", 0.5)
    assert (answer.input_tokens, answer.output_tokens, answer.finish_reason) == (7, 3, "length")


def test_tally_when_nothing_is_reported_then_unknown_and_not_zero() -> None:
    tally = AnswerTally("m")

    tally.add(chat())

    answer = tally.completion(latency_s=0.0)
    assert (answer.input_tokens, answer.output_tokens, answer.finish_reason) == (None, None, "unknown")


def test_tally_of_a_stream_keeps_last_text_and_last_known_usage() -> None:
    tally = AnswerTally("m")

    for text, kwargs in (("a", {"prompt_tokens": 7}), ("ab", {"completion_tokens": 2}), ("", {})):
        tally.add(CompletionResponse(text=text, additional_kwargs=kwargs))

    answer = tally.completion(latency_s=0.0)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("ab", 7, 2)


def test_tally_when_the_answer_is_a_tool_call_then_finish_reason_says_so() -> None:
    tally = AnswerTally("m")

    tally.add(
        ChatResponse(
            message=ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="add", tool_kwargs={})])
        )
    )

    assert tally.completion(latency_s=0.0).finish_reason == "tool_calls"
