from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from fusion_integrations import FusionPipeline, LogRecord, LogStore, Price, PriceTable
from fusion_integrations.errors import InvalidPolicyError, LogSchemaError, LogStoreError
from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.testing import ScriptedChatClient
from langchain_fusion import ChatClientModel, FusionLogCallbackHandler

SUM = "What is 3 plus 4?"

pytestmark = pytest.mark.filterwarnings("ignore:.* is in beta")


@pytest.fixture
def log(store):
    with FusionLogCallbackHandler(store, source="app") as handler:
        yield handler


@pytest.fixture
def logged(log, store):
    """Return what was logged so far."""

    def read() -> list[LogRecord]:
        assert log.flush(timeout_s=30)
        assert log.n_unrecorded == 0
        return list(store.records())

    return read


def model(answer=None) -> ChatClientModel:
    return ChatClientModel(client=ScriptedChatClient("tiny", answer=answer or (lambda _: "it is seven")))


def flaky(*, n_failures: int) -> ChatClientModel:
    """A model that fails so often, then answers."""
    left = iter(range(n_failures))

    def answer(_):
        if next(left, None) is not None:
            raise RuntimeError("out of order")
        return "seven"

    return model(answer)


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
    try:
        return await (await model.astream_events(query, config, version="v3"))
    finally:  # the stream's reader hears of its end before callbacks do
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


WAYS = [_invoke, _ainvoke, _stream, _astream, _events, _aevents]


@pytest.mark.parametrize("ask", WAYS)
async def test_log_when_a_model_answers_holds_one_record_of_the_run(log, logged, ask):
    run_id = uuid4()
    config = {"callbacks": [log], "run_id": run_id, "metadata": {"session_id": "s1"}}
    await ask(model(), [SystemMessage("Be brief."), HumanMessage(SUM)], config)

    (record,) = logged()
    assert record.record_id == str(run_id)
    assert [(each.role, each.content) for each in record.messages] == [("system", "Be brief."), ("user", SUM)]
    assert (record.candidate_id, record.model, record.response) == ("tiny", "tiny", "it is seven")
    assert (record.input_tokens, record.output_tokens, record.finish_reason) == (7, 3, "stop")
    assert (record.assignment, record.propensity, record.planned_candidate_id) == ("unknown", None, None)
    assert (record.session_id, record.source, record.cost_usd) == ("s1", "app", None)
    assert record.latency_s >= 0


@pytest.mark.parametrize("ask", WAYS)
async def test_log_when_a_model_fails_holds_its_error_and_the_application_gets_it(log, logged, ask):
    with pytest.raises(RuntimeError, match="out of order"):
        await ask(flaky(n_failures=1), SUM, {"callbacks": [log]})

    (record,) = logged()
    assert (record.response, record.error) == (None, "RuntimeError: out of order")
    assert record.model == "tiny"


@pytest.mark.parametrize("ask", WAYS[:4])
async def test_log_when_a_call_is_retried_holds_every_attempt(log, logged, ask):
    retrying = flaky(n_failures=2).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    if ask in (_stream, _astream):  # LangChain retries no stream: those of a list are tried again by hand
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await ask(retrying, SUM, {"callbacks": [log]})
    await ask(retrying, SUM, {"callbacks": [log]})

    records = logged()
    assert [record.error is None for record in records] == [False, False, True]
    assert len({record.record_id for record in records}) == 3


@pytest.mark.parametrize("ask", [_stream, _astream])
async def test_log_when_the_reader_of_a_stream_leaves_holds_what_had_come(log, logged, ask):
    if ask is _stream:
        stream = model().stream(SUM, {"callbacks": [log]})
        pieces = [next(stream).text, next(stream).text]
        stream.close()
    else:
        astream = model().astream(SUM, {"callbacks": [log]})
        pieces = [(await anext(astream)).text, (await anext(astream)).text]
        await astream.aclose()

    (record,) = logged()
    assert (record.response, record.finish_reason, record.error) == ("".join(pieces), "abandoned", None)
    assert record.response == "it is"


async def test_log_when_a_stream_is_cancelled_holds_an_abandoned_answer(log, logged):
    class Slow(FakeListChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk("sev"))
            await asyncio.Event().wait()

    came = asyncio.Event()

    async def read() -> None:
        async for _ in Slow(responses=["x"]).astream(SUM, {"callbacks": [log]}):
            came.set()

    task = asyncio.create_task(read())
    await came.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = logged()
    assert (record.response, record.finish_reason) == ("sev", "abandoned")


class Hanging(FakeListChatModel):
    """A model that never answers."""

    on_call: Any

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.on_call()
        await asyncio.Event().wait()
        raise AssertionError


async def ask_in_vain(query, config=None, *, chain_of=lambda model: model):
    """Ask a model that never answers, until time is up: as soon as it has been asked."""
    async with asyncio.timeout(None) as patience:
        hanging = Hanging(responses=["x"], on_call=lambda: patience.reschedule(0))
        return await chain_of(hanging).ainvoke(query, config)


async def _cancel_chain(config):
    prompt = ChatPromptTemplate.from_template("{question}")
    await ask_in_vain({"question": SUM}, config, chain_of=lambda model: prompt | model | StrOutputParser())


async def _time_out_in_step(config):
    await RunnableLambda(ask_in_vain).ainvoke(SUM, config)


@pytest.mark.parametrize("cancel", [_cancel_chain, _time_out_in_step])
async def test_log_when_a_call_is_cancelled_with_its_chain_holds_a_failed_call(log, logged, cancel):
    with pytest.raises(TimeoutError):
        await cancel({"callbacks": [log]})
    (record,) = logged()
    assert record.messages[0].content.endswith(SUM)
    assert (record.response, record.error) == (
        None,
        "CancelledError: The run around the call ended before it.",
    )
    assert (log._calls._open, log._calls._call_around) == ({}, {})


async def test_log_when_a_step_goes_on_without_a_call_holds_a_failed_call_once_closed(log, logged):
    async def step(query: str) -> str:
        try:
            return await ask_in_vain(query)
        except TimeoutError:
            return "no idea"

    assert await RunnableLambda(step).ainvoke(SUM, {"callbacks": [log]}) == "no idea"
    assert logged() == []  # it could as well go on in the background
    log.close()
    (record,) = logged()
    assert record.error == "CancelledError: The run around the call ended before it."


async def test_log_when_a_call_outlives_its_step_holds_its_answer(log, logged):
    tasks = []

    async def step(query: str) -> str:
        tasks.append(asyncio.create_task(model().ainvoke(query)))
        await asyncio.sleep(0)
        return "later"

    await RunnableLambda(step).ainvoke(SUM, {"callbacks": [log]})
    await tasks[0]
    (record,) = logged()
    assert (record.response, record.error) == ("it is seven", None)


async def test_log_when_a_call_without_a_chain_is_cancelled_is_counted_once_closed(log, store, caplog):
    with pytest.raises(TimeoutError):
        await ask_in_vain(SUM, {"callbacks": [log]})
    log.close()
    assert (log.n_unrecorded, list(store.records())) == (1, [])
    assert "nothing was heard of its end" in caplog.text


class Counting(FakeListChatModel):
    """A model that reports its tokens as older integrations do."""

    usage: Any
    place: str

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        report = {"token_usage": self.usage}
        is_on_message = self.place == "response_metadata"
        answer = AIMessage("seven", response_metadata=report if is_on_message else {})
        if self.place == "usage_metadata":
            answer.usage_metadata = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        answers = [ChatGeneration(message=answer), ChatGeneration(message=AIMessage("7"))]
        # LangChain copies this into the metadata of a message only if it is the only answer.
        return ChatResult(generations=answers, llm_output=None if is_on_message else report)


@pytest.mark.parametrize(
    ("place", "usage", "tokens"),
    [
        ("llm_output", {"prompt_tokens": 4, "completion_tokens": 6}, (4, 6)),
        ("response_metadata", {"prompt_tokens": 4, "completion_tokens": 6}, (4, 6)),
        ("usage_metadata", {"prompt_tokens": 4, "completion_tokens": 6}, (1, 2)),
        ("llm_output", {"prompt_tokens": "4", "completion_tokens": -1}, (None, None)),
        ("llm_output", "10 tokens", (None, None)),
    ],
)
def test_log_when_a_model_reports_tokens_elsewhere_holds_them(log, logged, place, usage, tokens):
    Counting(responses=["x"], place=place, usage=usage).invoke(SUM, {"callbacks": [log]})
    (record,) = logged()
    assert (record.response, record.input_tokens, record.output_tokens) == ("seven", *tokens)


def test_log_when_chains_are_nested_holds_the_model_calls_only(log, logged):
    inner = ChatPromptTemplate.from_template("{question}") | model() | StrOutputParser()
    outer = RunnableLambda(lambda text: {"question": text}) | inner | RunnableLambda(lambda text: text + "!")
    both = RunnableLambda(lambda text: [outer.invoke(text), outer.invoke(text)])

    assert both.invoke(SUM, {"callbacks": [log]}) == ["it is seven!"] * 2
    assert [record.messages[0].content for record in logged()] == [SUM, SUM]


class Wrapper(BaseChatModel):
    """A model that hands its call on to another, inside its own run and a chain."""

    inner: Any

    @property
    def _llm_type(self) -> str:
        return "wrapper"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        handlers = run_manager.handlers
        chain = RunnableLambda(self.inner.invoke)
        from langchain_core.callbacks import CallbackManager

        manager = CallbackManager(handlers, inheritable_handlers=handlers, parent_run_id=run_manager.run_id)
        answer = chain.invoke(messages, {"callbacks": manager})
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer.text))])


@pytest.mark.parametrize("n_layers", [1, 2])
def test_log_when_a_model_wraps_a_model_holds_the_inner_call_only(log, logged, n_layers):
    wrapped = model()
    for _ in range(n_layers):
        wrapped = Wrapper(inner=wrapped)
    assert wrapped.invoke(SUM, {"callbacks": [log]}).text == "it is seven"
    (record,) = logged()
    assert record.model == "tiny"
    assert (log._calls._open, log._calls._call_around) == ({}, {})


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_log_when_an_agent_uses_tools_holds_each_model_call(log, logged):
    from langchain.agents import create_agent

    call = {"name": "add", "args": {"a": 3, "b": 4}, "id": "1"}

    class Caller(GenericFakeChatModel):
        def bind_tools(self, tools, **kwargs):
            return self

    caller = Caller(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("seven")]))
    create_agent(caller, tools=[add]).invoke({"messages": [("user", SUM)]}, {"callbacks": [log]})

    first, second = logged()
    assert (first.response, second.response) == ("", "seven")
    assert [each.role for each in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[-1].content == "7"


def test_log_when_a_plain_completion_model_answers_holds_the_prompt(log, logged):
    assert FakeListLLM(responses=["seven"]).invoke(SUM, {"callbacks": [log]}) == "seven"
    (record,) = logged()
    assert (record.messages[0].role, record.messages[0].content) == ("user", SUM)
    assert (record.response, record.input_tokens) == ("seven", None)


def test_log_when_an_answer_comes_from_the_cache_holds_the_first_only(log, logged):
    cached = ChatClientModel(client=ScriptedChatClient("tiny"), cache=InMemoryCache())
    for _ in range(3):
        cached.invoke(SUM, {"callbacks": [log]})
    assert len(logged()) == 1


async def test_log_when_many_calls_run_at_once_holds_each_once(log, logged):
    queries = [f"What is {i} plus 4?" for i in range(100)]
    echo = ChatClientModel(client=ScriptedChatClient("tiny"))
    await asyncio.gather(*(echo.ainvoke(query, {"callbacks": [log]}) for query in queries[:50]))
    await asyncio.to_thread(echo.batch, queries[50:], {"callbacks": [log]})

    records = logged()
    assert sorted(record.messages[0].content for record in records) == sorted(queries)
    assert all(record.response == f"tiny heard: {record.messages[0].content}" for record in records)


@pytest.mark.parametrize("ask", WAYS)
async def test_log_when_a_call_is_routed_is_the_pipelines_record_alone(fusion, log, logged, run_log, ask):
    config = {"callbacks": [log, run_log], "configurable": {"fusion_route": "thinker"}}
    await ask(fusion().model, SUM, config)

    (record,) = logged()
    (model_run,) = [run_id for kind, _, run_id, _ in run_log.starts if kind == "llm"]
    assert record.record_id == str(model_run)
    # The pipeline's: who was chosen, how, and the query before the prompt mode.
    assert (record.candidate_id, record.assignment, record.source) == ("thinker", "user", "tests")
    assert record.messages[0].content == SUM


def test_log_when_the_routers_pipeline_has_no_store_holds_what_the_model_was_asked(
    fusion, router, log, logged
):
    routed = fusion(pipeline=FusionPipeline(router)).model
    routed.invoke(SUM, {"callbacks": [log], "configurable": {"fusion_route": "thinker"}})
    (record,) = logged()
    assert (record.candidate_id, record.assignment) == ("tiny-prose", "unknown")
    assert record.messages[0].content.startswith(f"{SUM}\n\nThink step by step")


def test_log_when_prices_and_candidate_ids_are_known_uses_them(store):
    prices = PriceTable(prices={"tiny": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})
    with FusionLogCallbackHandler(store, prices=prices, candidate_ids={"tiny": "tiny:direct"}) as log:
        model().invoke(SUM, {"callbacks": [log]})
    (record,) = store.records()
    # 5 words in at 1 USD and 3 words out at 2 USD a million tokens
    assert record.cost_usd == pytest.approx(5e-6 + 3 * 2e-6)
    assert (record.candidate_id, record.model) == ("tiny:direct", "tiny")


async def test_feedback_when_it_comes_later_is_a_score_of_the_run(log, store):
    run_ids = [uuid4(), uuid4()]
    for run_id in run_ids:
        await model().ainvoke(SUM, {"callbacks": [log], "run_id": run_id})
    log.add_feedback(run_ids[0], 1.0, reason="right")
    await log.aadd_feedback(str(run_ids[1]), 0.0, scorer="thumbs")

    scores = {each.record_id: (each.kind, each.scorer, each.value, each.reason) for each in store.scores()}
    assert scores == {
        str(run_ids[0]): ("feedback", "user", 1.0, "right"),
        str(run_ids[1]): ("feedback", "thumbs", 0.0, ""),
    }
    with pytest.raises(LogSchemaError, match="not in log store"):
        log.add_feedback("no-such-run", 1.0)
    with pytest.raises(InvalidPolicyError, match="between 0 and 1, got 2"):
        log.add_feedback(run_ids[0], 2)


def test_log_when_a_message_shows_its_run_gives_feedback_by_it(log, store):
    answer = model().invoke(SUM, {"callbacks": [log]})
    chunk = next(model().stream(SUM, {"callbacks": [log]}))
    log.add_feedback(answer.id, 1.0)
    log.add_feedback(chunk.id, 0.0)
    assert [score.value for score in store.scores()] == [1.0, 0.0]


class BrokenStore:
    def add(self, records, scores=()):
        raise LogStoreError("disk full")

    def add_scores(self, scores):
        raise LogStoreError("disk full")


@pytest.mark.parametrize("ask", WAYS)
async def test_log_when_the_store_fails_the_application_goes_on_and_it_is_counted(caplog, ask):
    store = BrokenStore()
    writer = BackgroundWriter(store, wait=lambda _: None)
    with FusionLogCallbackHandler(store, writer=writer) as log:
        for _ in range(2):
            await ask(model(), SUM, {"callbacks": [log]})
            log.flush()
    assert log.stats() == WriterStats(n_failed=2)
    assert caplog.text.count("1 log records could not be stored: disk full") == 2


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])],
        [SystemMessage("Write a poem about base64.")],
        [AIMessage("Once upon a time")],
    ],
)
def test_log_when_no_user_message_has_text_counts_it_and_the_application_goes_on(store, caplog, messages):
    with FusionLogCallbackHandler(store) as log:
        answer = FakeListChatModel(responses=["a cat"]).invoke(messages, {"callbacks": [log]})
    assert answer.text == "a cat"
    assert (log.n_unrecorded, list(store.records())) == (1, [])
    assert "the last user message of its conversation is missing or has no text" in caplog.text
    assert "base64" not in caplog.text


async def test_log_when_the_queue_is_full_lets_the_event_loop_run(store):
    class Gate:
        def __init__(self):
            self.opened, self.entered = threading.Event(), threading.Event()

        def add(self, records, scores=()):
            self.entered.set()
            assert self.opened.wait(timeout=30)

    gate = Gate()
    log = FusionLogCallbackHandler(store, writer=BackgroundWriter(gate, max_pending=1))
    await model().ainvoke(SUM, {"callbacks": [log]})
    assert gate.entered.wait(timeout=30)
    await model().ainvoke(SUM, {"callbacks": [log]})
    waiting = asyncio.create_task(model().ainvoke(SUM, {"callbacks": [log]}))
    for _ in range(5):
        await asyncio.sleep(0.01)  # the loop goes on
    assert not waiting.done()
    gate.opened.set()
    assert (await waiting).text == "it is seven"
    log.close()
    assert log.stats() == WriterStats(n_written=3)


_APPLICATION = """
import asyncio, sys
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from fusion_integrations import LogStore
from langchain_fusion import FusionLogCallbackHandler

log = FusionLogCallbackHandler(LogStore.open(sys.argv[1]))
model = FakeListChatModel(responses=["seven"])

async def ask_all():
    await asyncio.gather(*(model.ainvoke(f"What is {i}?", {"callbacks": [log]}) for i in range(100)))

model.batch([f"What is {i} now?" for i in range(100)], {"callbacks": [log]})
asyncio.run(ask_all())
"""


def test_log_when_the_process_ends_is_complete(tmp_path):
    path = tmp_path / "logs.sqlite"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", _APPLICATION, path],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    with LogStore.open(path, create=False) as store:
        assert store.stats().n_records == 200
