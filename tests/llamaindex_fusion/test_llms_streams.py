import asyncio
import gc
from collections.abc import Iterator

import pytest
from llama_index.core.base.llms.types import ChatMessage

from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.testing import ScriptedChatClient
from llamaindex_fusion import ChatClientLLM, FusionLLM

SUM = "What is 17 plus 4? Give the number only."
ANSWER = f"tiny-math heard: {SUM}"


def test_stream_gives_every_piece_cumulative_text_and_the_decision(llm: FusionLLM) -> None:
    chunks = list(llm.stream_chat([ChatMessage(content=SUM)]))

    assert "".join(chunk.delta or "" for chunk in chunks) == chunks[-1].message.content == ANSWER
    assert len(chunks) == len(ANSWER.split(" ")) + 1  # the last one brings the usage
    assert {chunk.additional_kwargs["fusion"]["candidate"] for chunk in chunks} == {"calculator"}


def test_stream_when_its_llm_reports_usage_then_cost_is_known_at_its_end(
    pipeline: FusionPipeline, store: LogStore
) -> None:
    llms = {name: ChatClientLLM(ScriptedChatClient(name)) for name in ("tiny-math", "tiny-prose")}
    llm = FusionLLM(pipeline, llms=llms)

    *_, last = llm.stream_complete(SUM)

    (record,) = store.records()
    # 9 words in at 1 USD and 11 out at 2 USD a million: 9 + 22 = 31 millionths.
    assert record.cost_usd == pytest.approx(31e-6)
    assert last.additional_kwargs["fusion"]["cost_usd"] == record.cost_usd


def test_stream_when_abandoned_then_recorded_with_what_was_given(llm: FusionLLM, store: LogStore) -> None:
    stream = llm.stream_chat([ChatMessage(content=SUM)])
    next(stream)
    next(stream)

    stream.close()

    (record,) = store.records()
    assert (record.response, record.finish_reason, record.error) == ("tiny-math heard:", "abandoned", None)


def test_stream_when_dropped_then_recorded_as_abandoned(llm: FusionLLM, store: LogStore) -> None:
    for _ in llm.stream_complete(SUM):
        break
    gc.collect()

    assert [record.finish_reason for record in store.records()] == ["abandoned"]


async def test_async_stream_when_abandoned_then_recorded_with_what_was_given(
    llm: FusionLLM, store: LogStore
) -> None:
    stream = await llm.astream_chat([ChatMessage(content=SUM)])
    await anext(stream)

    await stream.aclose()

    (record,) = store.records()
    assert (record.response, record.finish_reason) == ("tiny-math", "abandoned")


async def test_async_stream_when_task_is_cancelled_then_recorded_and_client_closed(
    pipeline: FusionPipeline, store: LogStore
) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Endless(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            try:
                while True:
                    yield "more "
            finally:
                loop.call_soon_threadsafe(closed.set)

    llm = FusionLLM(
        pipeline, llms={name: ChatClientLLM(Endless(name)) for name in ("tiny-math", "tiny-prose")}
    )
    has_begun = asyncio.Event()

    async def read() -> None:
        async for _ in await llm.astream_complete(SUM):
            has_begun.set()

    task = asyncio.create_task(read())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # A cancelled `async for` leaves its generator to the loop, which closes it soon.
    async with asyncio.timeout(10):
        await closed.wait()
        while not list(store.records()):
            await asyncio.sleep(0.01)

    (record,) = store.records()
    assert record.finish_reason == "abandoned"
    assert (record.response or "").startswith("more ")


@pytest.mark.parametrize("is_async", [False, True])
async def test_stream_when_it_breaks_half_way_then_error_is_recorded_and_raised(
    pipeline: FusionPipeline, store: LogStore, is_async: bool
) -> None:
    class Breaking(ScriptedChatClient):
        def stream(self, messages, *, options=None) -> Iterator[str]:
            yield "half"
            raise ConnectionError("line cut")

    llm = FusionLLM(
        pipeline, llms={name: ChatClientLLM(Breaking(name)) for name in ("tiny-math", "tiny-prose")}
    )
    given = []

    async def read() -> None:
        if is_async:
            async for chunk in await llm.astream_complete(SUM):
                given.append(chunk.text)  # noqa: PERF401  # what came before the break is the point
        else:
            for chunk in llm.stream_complete(SUM):
                given.append(chunk.text)  # noqa: PERF401  # as above

    with pytest.raises(ConnectionError, match="line cut"):
        await read()

    assert given == ["half"]
    assert [record.error for record in store.records()] == ["ConnectionError: line cut"]


async def test_call_when_cancelled_then_recorded_as_such(pipeline: FusionPipeline, store: LogStore) -> None:
    has_begun = asyncio.Event()

    class Endless(ScriptedChatClient):
        async def acomplete(self, messages, *, options=None):
            has_begun.set()
            await asyncio.Event().wait()

    llm = FusionLLM(
        pipeline, llms={name: ChatClientLLM(Endless(name)) for name in ("tiny-math", "tiny-prose")}
    )
    task = asyncio.create_task(llm.acomplete(SUM))
    await has_begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (record,) = store.records()
    assert (record.error or "").startswith("CancelledError")
