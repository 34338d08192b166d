from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage

from fusion_integrations import FusionPipeline, LogRecord, LogStore
from fusion_integrations.errors import LogStoreError
from fusion_integrations.testing import ScriptedChatClient
from langchain_fusion import ChatClientModel

SUM = "What is 3 plus 4?"
ANSWER = f"tiny-math heard: {SUM}"


def _fail(messages):
    raise RuntimeError("out of order")


def _only(store: LogStore) -> LogRecord:
    (record,) = store.records()
    return record


async def _invoke(model, query, config):
    return model.invoke(query, config)


async def _ainvoke(model, query, config):
    return await model.ainvoke(query, config)


async def _stream(model, query, config):
    return list(model.stream(query, config))


async def _astream(model, query, config):
    return [chunk async for chunk in model.astream(query, config)]


async def _events(model, query, config):
    return model.stream_events(query, config, version="v3").output


async def _aevents(model, query, config):
    return await (await model.astream_events(query, config, version="v3"))


WAYS = [_invoke, _ainvoke, _stream, _astream, _events, _aevents]


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_answered_then_is_the_models_run(fusion, store, run_log, ask):
    config = {"callbacks": [run_log], "configurable": {"thread_id": "conversation-1"}}

    await ask(fusion().model, SUM, config)

    record = _only(store)
    (model_run,) = [run_id for kind, _, run_id, _ in run_log.starts if kind == "llm"]
    assert record.record_id == str(model_run)
    assert (record.candidate_id, record.model, record.response) == ("calculator", "tiny-math", ANSWER)
    assert (record.assignment, record.propensity, record.session_id) == ("policy", 1.0, "conversation-1")
    assert record.messages[0].content == SUM
    assert record.source == "tests"
    assert record.latency_s >= 0


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_model_reports_usage_then_has_tokens_and_cost(fusion, store, ask):
    answer = await ask(fusion().model, SUM, {})

    record = _only(store)
    message = answer[-1] if isinstance(answer, list) else answer
    assert (record.input_tokens, record.output_tokens, record.finish_reason) == (5, 7, "stop")
    # 5 words in at 1 USD and 7 words out at 2 USD a million tokens
    assert record.cost_usd == pytest.approx(5 * 1e-6 + 7 * 2e-6)
    assert record.cost_usd == message.response_metadata["fusion"]["cost_usd"]


def test_record_when_prompt_mode_reasons_then_keeps_the_query_before_it(fusion, store):
    fusion().model.invoke(SUM, {"configurable": {"fusion_route": "thinker"}})

    record = _only(store)
    assert (record.prompt_mode, record.messages[0].content) == ("reasoning", SUM)
    assert (record.assignment, record.propensity) == ("user", None)


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_model_fails_then_is_an_error_and_the_error_is_raised(fusion, store, run_log, ask):
    with pytest.raises(RuntimeError, match="out of order"):
        await ask(fusion(math=_fail).model, SUM, {"callbacks": [run_log]})

    record = _only(store)
    assert (record.response, record.error) == (None, "RuntimeError: out of order")
    assert record.record_id == str(run_log.starts[1][2])
    assert [kind for kind, _ in run_log.ends] == ["llm error", "chain error"]


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_pipeline_has_no_store_then_answers_all_the_same(fusion, router, store, ask):
    await ask(fusion(pipeline=FusionPipeline(router)).model, SUM, {})

    assert list(store.records()) == []


def test_record_when_several_calls_then_there_is_one_each(fusion, store):
    model = fusion().model

    model.batch([SUM] * 5)
    model.generate([[HumanMessage(SUM)]] * 2)

    assert len(list(store.records())) == 7


def test_record_when_the_model_was_never_called_then_there_is_none(fusion, store):
    with pytest.raises(NotImplementedError):
        fusion().model.bind_tools([{"title": "t", "description": "d", "type": "object"}]).invoke(SUM)

    assert list(store.records()) == []


def test_record_when_answer_comes_from_a_cache_then_there_is_none(fusion, store):
    model = fusion().model
    model.models["tiny-math"].cache = InMemoryCache()

    assert model.invoke(SUM).content == model.invoke(SUM).content

    assert len(list(store.records())) == 1


def test_record_when_last_chunk_arrives_then_is_already_stored(fusion, store):
    stream = fusion().model.stream(SUM)
    for chunk in stream:
        if chunk.chunk_position == "last":
            break

    assert _only(store).response == ANSWER
    assert _only(store).finish_reason == "stop"


def test_record_when_reader_leaves_the_stream_then_has_what_came(fusion, store, run_log):
    stream = fusion().model.stream(SUM, {"callbacks": [run_log]})
    next(stream)
    next(stream)
    stream.close()

    record = _only(store)
    assert (record.response, record.finish_reason, record.error) == ("tiny-math heard:", "abandoned", None)
    assert (record.input_tokens, record.output_tokens, record.cost_usd) == (None, None, None)
    assert record.record_id == str(run_log.starts[1][2])
    assert len(run_log.ends) == 2


async def test_record_when_reader_leaves_the_async_stream_then_has_what_came(fusion, store):
    stream = fusion().model.astream(SUM)
    await anext(stream)
    await stream.aclose()

    assert (_only(store).response, _only(store).finish_reason) == ("tiny-math", "abandoned")


async def test_record_when_async_event_stream_is_closed_then_has_what_came(fusion, store, gated):
    stream = await fusion(models=gated.models).model.astream_events(SUM, version="v3")
    async for event in stream:
        if event["event"] == "content-block-delta":
            break
    gated.go_on.set()
    await stream.aclose()

    assert (_only(store).response, _only(store).finish_reason) == ("one ", "abandoned")


async def test_record_when_async_event_stream_is_closed_unread_then_nothing_was_called(fusion, store):
    routed = fusion()
    stream = await routed.model.astream_events(SUM, version="v3")
    await stream.aclose()

    assert list(store.records()) == []
    assert routed.math.calls == []


def test_record_when_event_stream_is_dropped_then_has_what_came(fusion, store):
    stream = fusion().model.stream_events(SUM, version="v3")
    for event in stream:
        if event["event"] == "content-block-delta":
            break
    del stream
    gc.collect()

    assert (_only(store).response, _only(store).finish_reason) == ("tiny-math", "abandoned")


async def test_record_when_task_is_cancelled_then_has_what_came(fusion, store, gated):
    model = fusion(models=gated.models).model

    async def read() -> None:
        async for _ in model.astream(SUM):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(gated.waiting.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    gated.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (_only(store).response, _only(store).finish_reason) == ("one ", "abandoned")


@pytest.fixture
def gated() -> SimpleNamespace:
    """Models that give one word and then wait for `go_on`."""
    waiting, go_on = threading.Event(), threading.Event()

    class Gated(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            yield "one "
            waiting.set()
            go_on.wait(timeout=5)
            yield "two"

    models = {name: ChatClientModel(client=Gated(name)) for name in ("tiny-math", "tiny-prose")}
    return SimpleNamespace(waiting=waiting, go_on=go_on, models=models)


class BrokenStore(LogStore):
    """A store that opens and cannot be written."""

    def add(self, records, scores=()):
        raise LogStoreError("disk full")


@pytest.fixture
def broken(router, tmp_path) -> Callable[[], FusionPipeline]:
    with BrokenStore.open(tmp_path / "broken.db") as opened:
        yield FusionPipeline(router, store=opened)


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_store_is_broken_then_says_so(fusion, broken, ask):
    with pytest.raises(LogStoreError, match="disk full"):
        await ask(fusion(pipeline=broken).model, SUM, {})


@pytest.mark.parametrize("ask", WAYS)
async def test_record_when_store_is_broken_and_model_fails_then_the_models_error_counts(fusion, broken, ask):
    with pytest.raises(RuntimeError, match="out of order") as caught:
        await ask(fusion(pipeline=broken, math=_fail).model, SUM, {})

    assert any("disk full" in note for note in caught.value.__notes__)


async def test_record_when_awaited_then_store_is_written_off_the_loop(fusion, router, tmp_path):
    threads = []

    class Noting(LogStore):
        def add(self, records, scores=()):
            threads.append(threading.current_thread())
            return super().add(records, scores)

    with Noting.open(tmp_path / "noted.db") as store:
        model = fusion(pipeline=FusionPipeline(router, store=store)).model
        await model.ainvoke(SUM)
        [chunk async for chunk in model.astream(SUM)]
        await (await model.astream_events(SUM, version="v3"))

    assert len(threads) == 3
    assert threading.main_thread() not in threads
