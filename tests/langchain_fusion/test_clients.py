from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from fusion_integrations import Message
from fusion_integrations.errors import CandidateCallError, InvalidPolicyError
from fusion_integrations.protocols import StreamingChatClient
from fusion_integrations.streaming import read_stream
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import Completion, GenerationOptions
from langchain_fusion import ChatClientModel, LangChainChatClient

HELLO = (Message(role="user", content="hello"),)


class OptionsClient(ScriptedChatClient):
    """Notes the options of each call."""

    def __init__(self) -> None:
        super().__init__("noting")
        self.options: list[GenerationOptions | None] = []

    def complete(self, messages, *, options=None) -> Completion:
        self.options.append(options)
        return super().complete(messages, options=options)


class PlainClient:
    """A chat client that cannot stream."""

    model = "plain"

    def complete(self, messages, *, options=None) -> Completion:
        return Completion(text="plain answer", model="plain", input_tokens=2, output_tokens=2)

    async def acomplete(self, messages, *, options=None) -> Completion:
        return Completion(text="async answer", model="plain", input_tokens=2, output_tokens=2)

    def complete_batch(self, conversations, *, options=None) -> list[Completion]:
        return [self.complete(messages) for messages in conversations]


class NotingChatModel(FakeListChatModel):
    """Notes the keyword arguments of each call."""

    seen: list[dict]

    def _call(self, messages, stop=None, run_manager=None, **kwargs) -> str:
        self.seen.append({"stop": stop, **kwargs})
        return super()._call(messages, stop=stop, run_manager=run_manager, **kwargs)


def _answering(*messages: AIMessage) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(messages))


def test_client_when_wrapping_a_model_then_is_a_streaming_chat_client():
    assert isinstance(LangChainChatClient(_answering(), name="fake"), StreamingChatClient)


def test_complete_when_model_reports_usage_then_carries_it():
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    model = _answering(
        AIMessage("hi there", usage_metadata=usage, response_metadata={"finish_reason": "length"})
    )

    completion = LangChainChatClient(model, name="fake").complete(HELLO)

    assert (completion.text, completion.model, completion.finish_reason) == ("hi there", "fake", "length")
    assert (completion.input_tokens, completion.output_tokens) == (1, 2)
    assert completion.latency_s >= 0


async def test_acomplete_when_awaited_then_answers():
    completion = await LangChainChatClient(_answering(AIMessage("hi")), name="fake").acomplete(HELLO)

    assert completion.text == "hi"


def test_complete_batch_when_several_then_keeps_their_order():
    scripted = ChatClientModel(client=ScriptedChatClient("s"))
    conversations = [(Message(role="user", content=f"number {i}"),) for i in range(8)]

    completions = LangChainChatClient(scripted, name="fake").complete_batch(conversations)

    assert [completion.text for completion in completions] == [f"s heard: number {i}" for i in range(8)]


def test_stream_when_read_then_pieces_join_to_the_completion():
    usage = {"input_tokens": 1, "output_tokens": 3, "total_tokens": 4}
    scripted = ChatClientModel(client=ScriptedChatClient("s", answer=lambda messages: "one two three"))

    *pieces, completion = read_stream(LangChainChatClient(scripted, name="fake").stream(HELLO))

    assert pieces == ["one", " two", " three"]
    assert (completion.text, completion.model, completion.finish_reason) == ("one two three", "fake", "stop")
    assert (completion.input_tokens, completion.output_tokens) == (
        usage["input_tokens"],
        usage["output_tokens"],
    )


def test_stream_when_model_cannot_stream_then_gives_one_piece():
    pieces = list(
        read_stream(
            LangChainChatClient(
                FakeMessagesListChatModel(responses=[AIMessage("whole")]), name="fake"
            ).stream(HELLO)
        )
    )

    assert pieces[0] == "whole"
    assert pieces[1].text == "whole"


def test_stream_when_reader_leaves_then_closes_the_models_stream():
    closed = []

    class Endless(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            try:
                while True:
                    yield "again "
            finally:
                closed.append(True)

    stream = LangChainChatClient(ChatClientModel(client=Endless("s")), name="fake").stream(HELLO)
    next(stream)
    stream.close()

    assert closed == [True]


def test_options_when_given_then_reach_the_model_and_when_not_then_nothing_does():
    model = NotingChatModel(responses=["a"], seen=[])
    client = LangChainChatClient(model, name="fake")

    client.complete(HELLO)
    client.complete(HELLO, options=GenerationOptions(max_tokens=7, temperature=0.5, stop=("x",), seed=1))
    client.complete(HELLO, options=GenerationOptions(max_tokens=7))

    assert model.seen == [
        {"stop": None},
        {"stop": ["x"], "max_tokens": 7, "temperature": 0.5, "seed": 1},
        {"stop": None, "max_tokens": 7, "temperature": 0.0},
    ]


async def _stream(client: LangChainChatClient) -> list[str]:
    return list(read_stream(client.stream(HELLO)))


async def _complete(client: LangChainChatClient) -> Completion:
    return client.complete(HELLO)


async def _complete_batch(client: LangChainChatClient) -> list[Completion]:
    return client.complete_batch([HELLO])


async def _acomplete(client: LangChainChatClient) -> Completion:
    return await client.acomplete(HELLO)


@pytest.mark.parametrize("call", [_complete, _acomplete, _complete_batch, _stream])
async def test_client_when_model_fails_then_raises_the_cores_error_with_its_cause(call):
    client = LangChainChatClient(FakeListChatModel(responses=[]), name="fake")

    with pytest.raises(CandidateCallError, match="Model 'fake' failed: ") as caught:
        await call(client)

    assert caught.value.__cause__ is not None


def test_model_when_invoked_then_gives_text_usage_and_model_name():
    counter = UsageMetadataCallbackHandler()
    model = ChatClientModel(client=ScriptedChatClient("scripted"))

    answer = model.invoke([SystemMessage("be brief"), HumanMessage("hello")], {"callbacks": [counter]})

    assert answer.content == "scripted heard: hello"
    assert answer.response_metadata == {"model_name": "scripted", "finish_reason": "stop"}
    assert counter.usage_metadata == {"scripted": {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6}}


def test_model_when_client_counts_no_tokens_then_has_no_usage():
    class Uncounted(PlainClient):
        def complete(self, messages, *, options=None) -> Completion:
            return Completion(text="x", model="plain", output_tokens=1)

    assert ChatClientModel(client=Uncounted()).invoke("hello").usage_metadata is None


def test_model_when_client_streams_then_streams_word_by_word():
    chunks = list(ChatClientModel(client=ScriptedChatClient("s")).stream("hello"))

    assert [chunk.content for chunk in chunks] == ["s", " heard:", " hello", ""]
    assert chunks[-1].chunk_position == "last"
    assert chunks[-1].response_metadata == {"model_name": "s", "finish_reason": "stop"}
    assert chunks[-1].usage_metadata == {"input_tokens": 1, "output_tokens": 3, "total_tokens": 4}


async def test_model_when_client_streams_then_streams_asynchronously_off_the_loop():
    threads = []

    class Noting(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            threads.append(threading.current_thread())
            return (yield from super().stream(messages, options=options))

    chunks = [chunk.content async for chunk in ChatClientModel(client=Noting("s")).astream("hello")]

    assert chunks == ["s", " heard:", " hello", ""]
    assert threading.main_thread() not in threads


async def test_model_when_client_cannot_stream_then_gives_one_piece_with_usage():
    model = ChatClientModel(client=PlainClient())

    (chunk,) = model.stream("hello")
    (async_chunk,) = [chunk async for chunk in model.astream("hello")]

    assert (chunk.content, chunk.usage_metadata["total_tokens"]) == ("plain answer", 4)
    assert (async_chunk.content, async_chunk.chunk_position) == ("async answer", "last")


async def test_model_when_awaited_then_uses_the_clients_own_async_method():
    assert (await ChatClientModel(client=PlainClient()).ainvoke("hello")).content == "async answer"


async def test_astream_when_reader_leaves_then_closes_the_clients_stream():
    closed = threading.Event()

    class Endless(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            try:
                while True:
                    yield "again "
            finally:
                closed.set()

    stream = ChatClientModel(client=Endless("s")).astream("hello")
    await anext(stream)
    await stream.aclose()

    assert await asyncio.to_thread(closed.wait, 5)  # the framework leaves it to the loop to close ours


async def test_astream_when_cancelled_in_the_middle_of_a_step_then_closes_the_clients_stream():
    closed, waiting, go_on = threading.Event(), threading.Event(), threading.Event()

    class Slow(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            try:
                yield "one "
                waiting.set()
                go_on.wait(timeout=5)
                yield "two"
            finally:
                closed.set()

    async def read() -> None:
        async for _ in ChatClientModel(client=Slow("s")).astream("hello"):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(waiting.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await asyncio.to_thread(closed.wait, 5)


def test_settings_when_none_is_set_then_client_keeps_its_defaults():
    client = OptionsClient()

    ChatClientModel(client=client).invoke("hello")

    assert client.options == [None]


def test_settings_when_set_then_the_calls_win_over_the_models():
    client = OptionsClient()
    model = ChatClientModel(client=client, temperature=0.2, max_tokens=9, stop=["a"], seed=5)

    model.invoke("hello")
    model.invoke("hello", stop=["b"], temperature=0.0)

    assert client.options == [
        GenerationOptions(temperature=0.2, max_tokens=9, stop=("a",), seed=5),
        GenerationOptions(temperature=0.0, max_tokens=9, stop=("b",), seed=5),
    ]


@pytest.mark.parametrize("foreign", [{"tools": []}, {"model": "other"}, {"logprobs": True}])
def test_model_when_called_with_what_a_client_cannot_do_then_refuses(foreign):
    model = ChatClientModel(client=ScriptedChatClient("s"))

    with pytest.raises(InvalidPolicyError, match=next(iter(foreign))):
        model.invoke("hello", **foreign)


def test_model_when_asked_for_tools_then_says_it_has_none():
    with pytest.raises(NotImplementedError):
        ChatClientModel(client=ScriptedChatClient("s")).bind_tools([])


def test_model_when_a_setting_has_no_effect_then_warns_once(caplog):
    ChatClientModel(client=ScriptedChatClient("s"), timeout=3, api_key="k")

    (record,) = caplog.records
    assert "api_key" in record.getMessage()
    assert "timeout" in record.getMessage()


def test_adapters_when_nested_then_round_trip():
    client = LangChainChatClient(ChatClientModel(client=ScriptedChatClient("s")), name="outer")

    completion = client.complete(HELLO, options=GenerationOptions(max_tokens=2))

    assert (completion.text, completion.finish_reason) == ("s heard:", "length")
    assert (completion.input_tokens, completion.output_tokens) == (1, 2)
