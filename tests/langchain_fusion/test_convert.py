from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import StringPromptValue

from fusion_integrations import Message
from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.prompts import PromptEdit, apply_prompt_edit, prompt_edit
from langchain_fusion._convert import (
    begun_by,
    edit_last_user_message,
    portable_messages,
    to_completion,
    to_core,
    to_langchain,
    to_messages,
)

EDIT = PromptEdit(user_prefix="<", user_suffix=">", revision="test-1")
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
ROLES = ("system", "user", "assistant", "tool")


@pytest.mark.parametrize(
    "given_input", ["hi", StringPromptValue(text="hi"), [("user", "hi")], [HumanMessage("hi")]]
)
def test_to_messages_when_input_takes_any_form_then_gives_messages(given_input):
    assert to_messages(given_input) == [HumanMessage("hi")]


def test_to_core_when_messages_have_every_role_then_keeps_role_and_text():
    messages = [
        SystemMessage("be brief"),
        HumanMessage("hi"),
        AIMessage("hello"),
        ToolMessage("42", tool_call_id="1"),
        ChatMessage(role="developer", content="rules"),
        ChatMessage(role="assistant", content="sure"),
        ChatMessage(role="customer", content="thanks"),
        AIMessageChunk(content="bye"),
    ]

    core = to_core(messages)

    assert [(message.role, message.content) for message in core] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("tool", "42"),
        ("system", "rules"),
        ("assistant", "sure"),
        ("user", "thanks"),
        ("assistant", "bye"),
    ]


def test_to_core_when_content_has_blocks_then_joins_their_text_only():
    human = HumanMessage([{"type": "text", "text": "what is "}, IMAGE, "this?"])
    call = AIMessage([{"type": "tool_use", "id": "1", "name": "look", "input": {}}])

    assert [message.content for message in to_core([human, call])] == ["what is this?", ""]


@given(st.lists(st.builds(Message, role=st.sampled_from(ROLES), content=st.text())))
def test_to_core_when_given_what_to_langchain_made_then_round_trips(messages):
    assert list(to_core(to_langchain(messages))) == messages


@pytest.mark.parametrize("key", ["finish_reason", "stop_reason", "done_reason", "stopReason"])
def test_to_completion_when_provider_names_its_reason_then_reads_it(key):
    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    message = AIMessage("hi", usage_metadata=usage, response_metadata={key: "length"})

    completion = to_completion(message, model="m", latency_s=0.5)

    assert completion.finish_reason == "length"
    assert (completion.input_tokens, completion.output_tokens, completion.latency_s) == (3, 5, 0.5)


def test_to_completion_when_model_reports_no_usage_then_counts_are_unknown():
    completion = to_completion(AIMessage("hi"), model="m")

    assert completion.input_tokens is None
    assert completion.output_tokens is None
    assert completion.finish_reason == "stop"


def test_edit_when_content_is_text_then_wraps_the_last_user_message_of_a_copy():
    messages = [
        HumanMessage("first"),
        AIMessage("ok"),
        HumanMessage("second", name="ann"),
        AIMessage("draft"),
    ]

    edited = edit_last_user_message(messages, EDIT)

    assert [message.content for message in edited] == ["first", "ok", "<second>", "draft"]
    assert edited[2].name == "ann"
    assert messages[2].content == "second"
    assert edited[0] is messages[0]


def test_edit_when_content_has_blocks_then_keeps_the_others_and_their_extras():
    cached = {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}
    content = [IMAGE, cached, "two", IMAGE]
    messages = [HumanMessage(list(content))]

    edited = edit_last_user_message(messages, EDIT)

    assert edited[0].content == [IMAGE, {**cached, "text": "<one"}, "two>", IMAGE]
    assert messages[0].content == content
    assert cached["text"] == "one"


def test_edit_when_one_text_block_then_wraps_it_whole():
    edited = edit_last_user_message([HumanMessage([{"type": "text", "text": "one"}])], EDIT)

    assert edited[0].content == [{"type": "text", "text": "<one>"}]


@pytest.mark.parametrize("messages", [[AIMessage("hi")], [HumanMessage([IMAGE])]])
def test_edit_when_no_user_text_then_raises(messages):
    with pytest.raises(EmptyQueryError):
        edit_last_user_message(messages, EDIT)


@pytest.mark.parametrize("mode", ["direct", "reasoning"])
def test_edit_when_applied_natively_then_agrees_with_the_core(mode):
    messages = [SystemMessage("s"), HumanMessage("one"), AIMessage("two"), HumanMessage("three")]

    native = to_core(edit_last_user_message(messages, prompt_edit(mode)))

    assert native == apply_prompt_edit(to_core(messages), prompt_edit(mode))


def _turn_of(model: str) -> AIMessage:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "secret"},
        {"type": "text", "text": "look it up"},
        {"type": "tool_use", "id": "1", "name": "search", "input": {"q": "x"}},
    ]
    calls = [{"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}]
    return AIMessage(
        blocks,
        tool_calls=calls,
        additional_kwargs={"reasoning_content": "hm"},
        response_metadata={"fusion": {"candidate": f"{model}:direct", "model": model}},
    )


def test_portable_when_another_model_answered_then_keeps_text_and_tool_calls_only():
    turn = _turn_of("claude")

    (portable,) = portable_messages([turn], model="gpt")

    assert portable.content == "look it up"
    assert portable.tool_calls == turn.tool_calls
    assert portable.additional_kwargs == {}
    assert portable.response_metadata["fusion"]["model"] == "claude"
    assert len(turn.content) == 3


def test_portable_when_the_same_model_or_nobody_known_answered_then_changes_nothing():
    messages = [_turn_of("claude"), AIMessage([{"type": "thinking", "thinking": "hm"}]), HumanMessage("hi")]

    portable = portable_messages(messages, model="claude")

    assert all(after is before for after, before in zip(portable, messages, strict=True))


def test_begun_by_when_asked_then_is_who_answered_after_the_last_user_message():
    def answer(candidate: str) -> AIMessage:
        return AIMessage("", response_metadata={"fusion": {"candidate": candidate}})

    result = ToolMessage("7", tool_call_id="1")

    assert begun_by([]) is None
    assert begun_by([HumanMessage("hi"), answer("a"), HumanMessage("and?")]) is None
    assert begun_by([HumanMessage("hi"), answer("a"), result]) == "a"
    assert begun_by([HumanMessage("hi"), answer("a"), result, answer("b"), result]) == "b"
    assert begun_by([HumanMessage("hi"), answer("a"), result, AIMessage("a fallback's"), result]) == "a"
    assert begun_by([HumanMessage("hi"), AIMessage("nobody known"), result]) is None
