import asyncio
import gc
import json
import threading
from collections.abc import Iterator

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ThinkingBlock

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import GenerationOptions, Message
from llamaindex_fusion import ChatClientLLM

HELLO = "Hello you"


class Whole:
    """A chat client that cannot stream."""

    def __init__(self) -> None:
        self._client = ScriptedChatClient("whole")
        self.model = "whole"
        self.complete = self._client.complete
        self.acomplete = self._client.acomplete
        self.complete_batch = self._client.complete_batch


async def test_all_eight_methods_give_the_clients_answer() -> None:
    llm = ChatClientLLM(ScriptedChatClient("tiny"))
    messages = [ChatMessage(content=HELLO)]

    texts = [
        llm.chat(messages).message.content,
        llm.complete(HELLO).text,
        list(llm.stream_chat(messages))[-1].message.content,
        list(llm.stream_complete(HELLO))[-1].text,
        (await llm.achat(messages)).message.content,
        (await llm.acomplete(HELLO)).text,
        [chunk async for chunk in await llm.astream_chat(messages)][-1].message.content,
        [chunk async for chunk in await llm.astream_complete(HELLO)][-1].text,
    ]

    assert texts == ["tiny heard: Hello you"] * 8


def test_chat_reports_usage_where_llama_index_looks() -> None:
    response = ChatClientLLM(ScriptedChatClient("tiny")).chat([ChatMessage(content=HELLO)])

    usage = {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert response.raw == {"model": "tiny", "finish_reason": "stop", "usage": usage}
    assert response.additional_kwargs == usage


async def test_streams_give_each_piece_as_delta_then_the_usage() -> None:
    llm = ChatClientLLM(ScriptedChatClient("tiny"))

    in_sync = list(llm.stream_complete(HELLO))
    in_async = [chunk async for chunk in await llm.astream_complete(HELLO)]

    for chunks in (in_sync, in_async):
        assert [chunk.delta for chunk in chunks] == ["tiny", " heard:", " Hello", " you", ""]
        assert chunks[-1].text == "tiny heard: Hello you"
        assert chunks[-1].raw["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


async def test_streams_of_a_client_that_cannot_stream_come_in_one_piece_with_usage() -> None:
    llm = ChatClientLLM(Whole())

    (in_sync,) = llm.stream_complete(HELLO)
    (in_async,) = [chunk async for chunk in await llm.astream_complete(HELLO)]

    assert in_sync == in_async
    assert in_sync.delta == in_sync.text == "whole heard: Hello you"
    assert in_sync.additional_kwargs["total_tokens"] == 6


async def test_async_stream_when_client_blocks_then_the_event_loop_is_free() -> None:
    go_on = threading.Event()

    class Waiting(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            yield "a"
            assert go_on.wait(timeout=10)  # set by the event loop, which must not be blocked
            yield "b"

    stream = await ChatClientLLM(Waiting("tiny")).astream_complete(HELLO)
    assert (await anext(stream)).text == "a"
    asyncio.get_running_loop().call_later(0.01, go_on.set)

    assert (await anext(stream)).text == "ab"
    await stream.aclose()


async def test_async_stream_when_cancelled_within_a_piece_then_client_is_closed_after_it() -> None:
    entered, go_on, order = threading.Event(), threading.Event(), []

    class Waiting(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            try:
                entered.set()
                go_on.wait(timeout=10)
                order.append("piece")
                yield "a"
            finally:
                order.append("closed")

    async def read() -> None:
        stream = await ChatClientLLM(Waiting("tiny")).astream_complete(HELLO)
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    gc.collect()
    assert order == ["piece", "closed"]


def test_sync_stream_when_closed_then_client_is_closed() -> None:
    closed = threading.Event()

    class Endless(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            try:
                while True:
                    yield "more"
            finally:
                closed.set()

    stream = ChatClientLLM(Endless("tiny")).stream_chat([ChatMessage(content=HELLO)])
    next(stream)

    stream.close()

    assert closed.is_set()


def test_stream_when_pieces_are_a_plain_iterator_then_it_is_read() -> None:
    class Plain(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            return iter(["a", "b"])

    assert [chunk.text for chunk in ChatClientLLM(Plain("tiny")).stream_complete(HELLO)] == ["a", "ab"]


class Recorder(ScriptedChatClient):
    def complete(self, messages, *, options=None):
        self.options = options
        return super().complete(messages, options=options)


def test_options_when_a_call_names_some_then_they_replace_the_llms() -> None:
    client = Recorder("tiny")
    llm = ChatClientLLM(client, options=GenerationOptions(max_tokens=9, seed=1))

    llm.complete(HELLO)
    assert client.options == GenerationOptions(max_tokens=9, seed=1)
    llm.complete(HELLO, temperature=0.5, stop="\n")
    assert client.options == GenerationOptions(max_tokens=9, seed=1, temperature=0.5, stop=("\n",))
    llm.complete(HELLO, stop=["a", "b"])
    assert client.options == GenerationOptions(max_tokens=9, seed=1, stop=("a", "b"))
    llm.complete(HELLO, stop=None)
    assert client.options == GenerationOptions(max_tokens=9, seed=1)


def test_options_when_none_are_given_then_they_are_the_clients() -> None:
    client = Recorder("tiny")

    ChatClientLLM(client).complete(HELLO)

    assert client.options is None


def test_kwargs_when_unknown_then_error_names_them() -> None:
    with pytest.raises(InvalidPolicyError, match=r"\['top_k'\]"):
        ChatClientLLM(ScriptedChatClient("tiny")).complete(HELLO, top_k=3)


def test_chat_when_message_holds_an_image_then_error_and_no_answer_without_it() -> None:
    client = ScriptedChatClient("tiny")
    message = ChatMessage(blocks=[TextBlock(text="What is this?"), ImageBlock(url="http://x/y.png")])

    with pytest.raises(InvalidPolicyError, match="'image' block"):
        ChatClientLLM(client).chat([message])

    assert client.calls == []


def test_chat_when_history_holds_thoughts_then_they_are_left_out() -> None:
    client = ScriptedChatClient("tiny")
    earlier = ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), TextBlock(text="Yes.")])

    ChatClientLLM(client).chat([ChatMessage(content="a"), earlier, ChatMessage(content="b")])

    assert client.calls[0][1] == Message(role="assistant", content="Yes.")


def test_metadata_and_serialised_form_name_the_model_and_not_the_client() -> None:
    llm = ChatClientLLM(
        ScriptedChatClient("tiny"), context_window=2048, options=GenerationOptions(max_tokens=32)
    )

    metadata = llm.metadata
    assert (metadata.context_window, metadata.num_output, metadata.model_name) == (2048, 32, "tiny")
    assert metadata.is_chat_model
    assert not metadata.is_function_calling_model
    assert "client" not in json.loads(llm.to_json())
    assert llm.to_payload()["class_name"] == "ChatClientLLM"
