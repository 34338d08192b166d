import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.embeddings.mock_embed_model import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import Price, PriceTable
from llamaindex_fusion import ChatClientLLM, FusionLLM, FusionLogEventHandler

SUM = "What is 17 plus 4? Give the number only."
WAYS = [f"{prefix}{method}" for prefix in ("", "stream_", "a", "astream_") for method in ("chat", "complete")]

Logged = Callable[[], list[LogRecord]]


@pytest.fixture
def log(store: LogStore) -> Iterator[FusionLogEventHandler]:
    with FusionLogEventHandler(store, source="app") as handler:
        get_dispatcher().add_event_handler(handler)
        yield handler


@pytest.fixture
def logged(log: FusionLogEventHandler, store: LogStore) -> Logged:
    """Return what was logged so far."""

    def read() -> list[LogRecord]:
        assert log.flush(timeout_s=30)
        assert log.n_unrecorded == 0
        return list(store.records())

    return read


def native(answer: str | None = "twenty one") -> ChatClientLLM:
    def say(_: Any) -> str:
        if answer is None:
            raise RuntimeError("out of order")
        return answer

    return ChatClientLLM(ScriptedChatClient("tiny", answer=say))


async def ask(llm: LLM, way: str, query: str = SUM) -> None:
    answer = getattr(llm, way)(query if "complete" in way else [ChatMessage(content=query)])
    if way.startswith("astream"):
        _ = [chunk async for chunk in await answer]
    elif way.startswith("a"):
        await answer
    elif way.startswith("stream"):
        list(answer)


@pytest.mark.parametrize("way", WAYS)
async def test_log_when_an_llm_answers_holds_one_record(logged: Logged, way: str) -> None:
    with instrument_tags({"fusion_run_id": "run-1", "session_id": "s1"}):
        await ask(native(), way)

    (record,) = logged()
    assert (record.record_id, record.session_id, record.source) == ("run-1", "s1", "app")
    assert [(each.role, each.content) for each in record.messages] == [("user", SUM)]
    assert (record.candidate_id, record.model, record.response) == ("tiny", "tiny", "twenty one")
    assert (record.input_tokens, record.output_tokens) == (9, 2)
    assert (record.assignment, record.error, record.cost_usd) == ("unknown", None, None)
    assert record.latency_s is not None


@pytest.mark.parametrize("way", WAYS)
async def test_log_when_an_llm_fails_holds_its_error(logged: Logged, way: str) -> None:
    with pytest.raises(RuntimeError, match="out of order"):
        await ask(native(None), way)
    (record,) = logged()
    assert (record.response, record.error) == (None, "RuntimeError: out of order")


@pytest.mark.parametrize("way", WAYS)
async def test_log_when_a_method_is_made_of_another_holds_the_inner_call_of_the_outer_conversation(
    log: FusionLogEventHandler, logged: Logged, way: str
) -> None:
    # MockLLM completes prompts; chat and its async methods are LlamaIndex's, made of these.
    for query in (SUM, "Name a fish."):
        await ask(MockLLM(), way, query)
    records = logged()
    assert [record.messages[-1].content for record in records] == [SUM, "Name a fish."]
    assert {record.model for record in records} == {"MockLLM"}
    assert all(record.record_id.startswith(("MockLLM.complete-", "MockLLM.stream_")) for record in records)
    assert (dict(log._calls._open), dict(log._calls._call_around)) == ({}, {})


class Wrapper(CustomLLM):
    """An LLM that asks another LLM, twice."""

    inner: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="wrapper")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.inner.complete(f"Draft: {prompt}")
        return self.inner.complete(prompt)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        return self.inner.stream_complete(prompt)


@pytest.mark.parametrize("way", ["complete", "chat", "acomplete", "achat"])
async def test_log_when_an_llm_asks_another_holds_the_calls_of_the_other(logged: Logged, way: str) -> None:
    with instrument_tags({"fusion_run_id": "run-1"}):
        await ask(Wrapper(inner=native()), way)
    first, second = logged()
    assert {first.model, second.model} == {"tiny"}
    assert first.messages[0].content.startswith("Draft: ")
    # Both are calls of the one run: the first has its name, the other adds its own.
    assert first.record_id == "run-1"
    assert second.record_id.startswith("run-1/ChatClientLLM.complete-")


def test_log_when_a_stream_is_open_takes_other_calls_for_what_they_are(logged: Logged) -> None:
    llm = MockLLM()
    stream = llm.stream_complete("one two three")
    next(stream)
    llm.complete("something else")
    list(stream)
    assert [record.response for record in logged()] == ["something else", "one two three"]


@pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
async def test_log_when_the_reader_of_a_stream_leaves_holds_what_had_come(logged: Logged, way: str) -> None:
    messages = [ChatMessage(content=SUM)]
    if way == "stream_chat":
        stream = native("twenty one or so").stream_chat(messages)
        next(stream), next(stream)
        stream.close()
    else:
        astream = await native("twenty one or so").astream_chat(messages)
        await anext(astream), await anext(astream)
        assert isinstance(astream, AsyncGenerator)
        await astream.aclose()
    (record,) = logged()
    assert (record.response, record.finish_reason, record.error) == ("twenty one", "abandoned", None)


@pytest.mark.parametrize("way", ["astream_chat", "astream_complete"])
@pytest.mark.parametrize("llm", [MockLLM(), native()])
async def test_log_when_an_equal_stream_is_never_read_holds_the_one_that_is(
    log: FusionLogEventHandler, logged: Logged, store: LogStore, llm: LLM, way: str
) -> None:
    query: Any = SUM if "complete" in way else [ChatMessage(content=SUM)]
    with instrument_tags({"fusion_run_id": "unread"}):
        unread = await getattr(llm, way)(query)
    with instrument_tags({"fusion_run_id": "read"}):
        stream = await getattr(llm, way)(query)
    answer = [chunk async for chunk in stream][-1]
    (record,) = logged()
    assert (record.record_id, record.error) == ("read", None)
    assert record.response == str(getattr(answer, "text", None) or answer.message.content)
    await unread.aclose()
    log.close()
    assert (log.n_unrecorded, len(list(store.records()))) == (1, 1)


async def test_log_when_equal_streams_are_read_in_another_order_holds_each_once(logged: Logged) -> None:
    llm, messages = MockLLM(), [ChatMessage(content=SUM)]
    names = ["first", "second", "third"]
    streams = {}
    for name in names:
        with instrument_tags({"fusion_run_id": name}):
            streams[name] = await llm.astream_chat(messages)
    for name in reversed(names):
        _ = [chunk async for chunk in streams[name]]
    assert [record.record_id for record in logged()] == ["third", "second", "first"]


async def test_log_when_an_equal_stream_is_never_read_and_one_fails_holds_one_failure(
    logged: Logged,
) -> None:
    class Broken(MockLLM):
        @llm_completion_callback()
        def stream_complete(
            self, prompt: str, formatted: bool = False, **kwargs: Any
        ) -> Generator[CompletionResponse, None, None]:
            raise RuntimeError("out of order")

    messages = [ChatMessage(content=SUM)]
    _unread = await Broken().astream_chat(messages)
    with pytest.raises(RuntimeError, match="out of order"):
        await ask(Broken(), "astream_chat")
    (record,) = logged()
    assert record.error == "RuntimeError: out of order"


async def test_log_when_a_task_is_cancelled_holds_an_abandoned_answer(logged: Logged) -> None:
    started = asyncio.Event()

    class Slow(MockLLM):
        async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            return await _forever(self, prompt)

    @llm_completion_callback()
    async def _forever(self: Any, prompt: str) -> CompletionResponse:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(Slow().acomplete(SUM))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = logged()
    assert (record.response, record.finish_reason) == ("", "abandoned")


def test_log_when_an_llm_calls_tools_holds_the_call(logged: Logged) -> None:
    from llama_index.core.tools import FunctionTool

    def add(a: int, b: int) -> int:
        return a + b

    llm = MockFunctionCallingLLM()
    answer = llm.chat_with_tools([FunctionTool.from_defaults(add)], user_msg=SUM)
    assert isinstance(answer, ChatResponse)
    (record,) = logged()
    assert record.messages[-1].content == SUM


def test_log_when_a_query_engine_asks_holds_its_llm_calls_only(logged: Logged) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="Paris is the capital of France.")], embed_model=MockEmbedding(embed_dim=4)
    )
    index.as_query_engine(llm=native()).query("What is the capital of France?")
    (record,) = logged()
    assert "What is the capital of France?" in record.messages[-1].content
    assert record.response == "twenty one"


async def test_log_when_many_calls_run_at_once_holds_each_once(logged: Logged) -> None:
    queries = [f"What is {i} plus 4?" for i in range(60)]
    echo = ChatClientLLM(ScriptedChatClient("tiny"))
    ways = ["acomplete", "achat", "astream_complete"]
    await asyncio.gather(*(ask(echo, ways[i % 3], query) for i, query in enumerate(queries)))
    records = logged()
    assert sorted(record.messages[0].content for record in records) == sorted(queries)
    assert all(record.response == f"tiny heard: {record.messages[0].content}" for record in records)


@pytest.mark.parametrize("way", WAYS)
async def test_log_when_a_call_is_routed_is_the_pipelines_record_alone(
    llm: FusionLLM, logged: Logged, way: str
) -> None:
    await ask(llm, way)
    (record,) = logged()
    assert (record.candidate_id, record.assignment, record.source) == ("calculator", "policy", "tests")


def test_log_when_the_routers_pipeline_has_no_store_holds_the_call_under_the_same_id(
    model_router: RouterModel, logged: Logged
) -> None:
    llms = {name: ChatClientLLM(ScriptedChatClient(name)) for name in ("tiny-math", "tiny-prose")}
    answer = FusionLLM(FusionPipeline(model_router), llms=llms).complete(SUM)
    (record,) = logged()
    assert record.record_id == answer.additional_kwargs["fusion"]["run_id"]
    assert (record.candidate_id, record.assignment, record.source) == ("tiny-math", "unknown", "app")


async def test_feedback_when_it_comes_later_is_a_score_of_the_run(
    llm: FusionLLM, log: FusionLogEventHandler, store: LogStore
) -> None:
    with instrument_tags({"fusion_run_id": "run-1"}):
        native().complete(SUM)
    routed = llm.complete(SUM).additional_kwargs["fusion"]["run_id"]
    log.add_feedback("run-1", 1.0, reason="right")
    await log.aadd_feedback(routed, 0.0, scorer="thumbs")
    scores = {each.record_id: (each.kind, each.scorer, each.value, each.reason) for each in store.scores()}
    assert scores == {"run-1": ("feedback", "user", 1.0, "right"), routed: ("feedback", "thumbs", 0.0, "")}
    with pytest.raises(LogSchemaError, match="not in log store"):
        log.add_feedback("no-such-run", 1.0)


def test_log_when_prices_and_candidate_ids_are_known_uses_them(store: LogStore) -> None:
    prices = PriceTable(prices={"tiny": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})
    with FusionLogEventHandler(store, prices=prices, candidate_ids={"tiny": "tiny:direct"}) as log:
        get_dispatcher().add_event_handler(log)
        native().complete(SUM)
    (record,) = store.records()
    # 9 words in at 1 USD and 2 words out at 2 USD a million tokens
    assert record.cost_usd == pytest.approx(9e-6 + 2 * 2e-6)
    assert (record.candidate_id, record.model) == ("tiny:direct", "tiny")


class BrokenStore:
    def add(self, records: Any, scores: Any = ()) -> None:
        raise LogStoreError("disk full")

    def add_scores(self, scores: Any) -> int:
        raise LogStoreError("disk full")


async def test_log_when_the_store_fails_the_application_goes_on_and_it_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = BrokenStore()
    with FusionLogEventHandler(broken, writer=BackgroundWriter(broken, wait=lambda _: None)) as log:
        get_dispatcher().add_event_handler(log)
        for way in WAYS:
            await ask(native(), way)
            log.flush()
    assert log.stats() == WriterStats(n_failed=len(WAYS))
    assert caplog.text.count("1 log records could not be stored: disk full") == len(WAYS)


async def test_log_when_the_store_hangs_never_blocks_the_event_loop() -> None:
    class Gate(BrokenStore):
        def __init__(self) -> None:
            self.opened = threading.Event()

        def add(self, records: Any, scores: Any = ()) -> None:
            assert self.opened.wait(timeout=30)

    gate = Gate()
    with FusionLogEventHandler(gate, writer=BackgroundWriter(gate, max_pending=1)) as log:
        get_dispatcher().add_event_handler(log)
        for _ in range(5):
            await native().acomplete(SUM)
        assert log.stats().n_pending == 5
        gate.opened.set()
    assert log.stats() == WriterStats(n_written=5)


@pytest.mark.parametrize("role", ["user", "system"])
def test_log_when_no_user_message_has_text_counts_it_and_the_application_goes_on(
    log: FusionLogEventHandler, store: LogStore, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    message = ChatMessage(role=role, content="  " if role == "user" else SUM)
    assert native().chat([message]).message.content == "twenty one"
    log.flush()
    assert (log.n_unrecorded, list(store.records())) == (1, [])
    assert "the last user message of its conversation is missing or has no text" in caplog.text


def test_close_takes_the_handler_out_of_llamaindex(log: FusionLogEventHandler, store: LogStore) -> None:
    native().complete(SUM)
    log.close()
    native().complete(SUM)
    root = get_dispatcher()
    assert log not in root.event_handlers
    assert [type(handler).__name__ for handler in root.span_handlers] == ["NullSpanHandler"]
    assert len(list(store.records())) == 1


_APPLICATION = """
import asyncio, sys
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import MockLLM
from fusion_integrations import LogStore
from llamaindex_fusion import FusionLogEventHandler

get_dispatcher().add_event_handler(FusionLogEventHandler(LogStore.open(sys.argv[1])))
llm = MockLLM()

async def ask_all():
    await asyncio.gather(*(llm.acomplete(f"What is {i}?") for i in range(100)))

for i in range(100):
    llm.complete(f"What is {i} now?")
asyncio.run(ask_all())
"""


def test_log_when_the_process_ends_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "logs.sqlite"
    result = subprocess.run(
        [sys.executable, "-c", _APPLICATION, path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    with LogStore.open(path, create=False) as store:
        assert store.stats().n_records == 200
