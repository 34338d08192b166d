"""The event handler that logs the model calls of a LlamaIndex application."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.instrumentation import (  # type: ignore[attr-defined]  # not declared there
    get_dispatcher,
)
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from pydantic import PrivateAttr

from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.logs.live_calls import FeedbackStore, LiveCall, LiveCallLog
from fusion_integrations.types import Completion, Message, PriceTable
from llamaindex_fusion._calls import RECORDED_TAG, RUN_ID_TAG
from llamaindex_fusion._convert import AnswerTally, to_core_messages

__all__ = ["FusionLogEventHandler"]

_SESSION_TAG = "session_id"
_NAME_KEYS = ("model_name", "class_name")
_UNKNOWN = "unknown"  # LlamaIndex's word for the model of an LLM that does not say
_MAX_UNREAD = 1_000


class FusionLogEventHandler(BaseEventHandler):
    """Logs every real LLM call of an application: answers, streams, tool calls, failures.

    Add it to LlamaIndex's root dispatcher. It serves sync and async code and any number of threads. Records
    are written in the background; what cannot be written is counted and logged, and the application goes on.
    LlamaIndex tells of events on the thread that makes the call, which may run an event loop: there a full
    queue grows instead of waiting.

    An LLM whose method calls another LLM method, as those for local models do, is one call: the inner one,
    with the conversation that the outer was given. A call whose span is dropped has failed. A stream that
    nobody reads to its end leaves a record with the finish reason `"abandoned"`. One that nobody begins to
    read leaves none: it is counted in `n_unrecorded` when the handler is closed, as are calls that still run
    then. Conversations whose last user message is missing or has no text are counted there too, since no
    record can hold them.

    A record has the id in the tag `fusion_run_id`, where the application sets one with `instrument_tags`,
    else that of the call's span. Calls of `FusionLLM` have that tag, and where its pipeline records them
    in the same store, the pipeline's is the one record. The tag `session_id` names the conversation.

    Args:
        store: Where records go, usually a `LogStore`. It stays open; close the handler first.
        source: Name of the application in the records.
        prices: Prices by model name; without one the cost is unknown.
        candidate_ids: Candidate ids by model name. A model that is not named goes by its own name.
        writer: Writes the records, for example with other limits. Default: a `BackgroundWriter` of its own.

    Example:
        ```python
        with LogStore.open("logs.sqlite") as store, FusionLogEventHandler(store, source="my-app") as log:
            get_dispatcher().add_event_handler(log)
            with instrument_tags({"fusion_run_id": "answer-1"}):
                llm.complete("What is 17 * 24?")
            log.add_feedback("answer-1", 1.0)
        ```
    """

    _calls: LiveCallLog = PrivateAttr()
    _spans: _SpanWatch | None = PrivateAttr(default=None)
    _streams: _UnreadStreams = PrivateAttr()

    def __init__(
        self,
        store: FeedbackStore,
        *,
        source: str = "llamaindex",
        prices: PriceTable | None = None,
        candidate_ids: Mapping[str, str] | None = None,
        writer: BackgroundWriter | None = None,
    ) -> None:
        super().__init__()
        self._calls = LiveCallLog(
            store, source=source, prices=prices, candidate_ids=candidate_ids, writer=writer
        )
        self._streams = _UnreadStreams()

    @classmethod
    def class_name(cls) -> str:
        """Return the name LlamaIndex files the component under."""
        return "FusionLogEventHandler"

    def add_feedback(self, run_id: str, value: float, *, scorer: str = "user", reason: str = "") -> None:
        """Attach a user's opinion to a logged call, at any time after it.

        Args:
            run_id: What the tag `fusion_run_id` said, or `FusionLLM` in `additional_kwargs["fusion"]`.
            value: Between 0 (worthless) and 1 (perfect).
            scorer: Who says so.
            reason: Why, in their words.

        Raises:
            InvalidPolicyError: If the value is not between 0 and 1.
            LogSchemaError: If the store has no record of that call.
            LogStoreError: If the store cannot be written.
        """
        self._calls.add_feedback(run_id, value, scorer=scorer, reason=reason)

    async def aadd_feedback(
        self, run_id: str, value: float, *, scorer: str = "user", reason: str = ""
    ) -> None:
        """Attach an opinion without blocking the event loop; otherwise as `add_feedback`."""
        await self._calls.aadd_feedback(run_id, value, scorer=scorer, reason=reason)

    def flush(self, *, timeout_s: float | None = None) -> bool:
        """Wait until the calls so far are written; see `BackgroundWriter.flush`."""
        return self._calls.writer.flush(timeout_s=timeout_s)

    def close(self) -> None:
        """Log or count calls whose end is not known, and write what is pending; later calls are not logged.

        When the process ends without this, what is pending is still written.
        """
        root = get_dispatcher()
        root.span_handlers = [handler for handler in root.span_handlers if handler is not self._spans]
        root.event_handlers = [handler for handler in root.event_handlers if handler is not self]
        self._calls.close()

    def stats(self) -> WriterStats:
        """Count what became of the records so far."""
        return self._calls.writer.stats()

    @property
    def n_unrecorded(self) -> int:
        """How many calls no record could be made of; see `LiveCallLog.n_unrecorded`."""
        return self._calls.n_unrecorded

    def __enter__(self) -> FusionLogEventHandler:
        """Return the handler."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the handler."""
        self.close()

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Take note of an event; LlamaIndex calls this."""
        if event.span_id is None:
            return
        with self._calls.guarded():
            if isinstance(event, LLMChatStartEvent):
                self._begin(event, to_core_messages(event.messages))
            elif isinstance(event, LLMCompletionStartEvent):
                self._begin(event, (Message(role="user", content=event.prompt),))
            elif isinstance(event, LLMChatInProgressEvent | LLMCompletionInProgressEvent):
                self._read(event.span_id)
                self._calls.add_text(event.span_id, event.response.delta or "")
            elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
                self._read(event.span_id)
                self._calls.end(event.span_id, _completion(event.response))
            elif isinstance(event, ExceptionEvent):
                self._read(event.span_id)
                self._calls.fail(event.span_id, event.exception)

    def _read(self, span_id: str) -> None:
        mistaken = self._streams.read(span_id)
        if mistaken is not None:
            self._calls.move(mistaken.inner, into=span_id, out_of=mistaken.outer)

    def _begin(
        self, event: LLMChatStartEvent | LLMCompletionStartEvent, messages: tuple[Message, ...]
    ) -> None:
        if self._spans is None:
            # Now, not earlier: what calls the first LLM has begun, what that LLM calls in turn has not.
            self._spans = _SpanWatch(self._calls)
            get_dispatcher().add_span_handler(self._spans)
        span_id, names = event.span_id or "", event.model_dict
        around = self._streams.around(span_id, messages)
        if around is not None:
            self._calls.enter(span_id, parent_id=around)
        session_id = event.tags.get(_SESSION_TAG)
        call = LiveCall(
            messages=messages,
            model=next((names[key] for key in _NAME_KEYS if names.get(key, _UNKNOWN) != _UNKNOWN), _UNKNOWN),
            record_id=event.tags.get(RUN_ID_TAG),
            session_id=None if session_id is None else str(session_id),
            is_recorded=bool(event.tags.get(RECORDED_TAG)),
            is_rendered=event.additional_kwargs.get("formatted") is True,
        )
        self._calls.begin(span_id, call)


class _SpanWatch(BaseSpanHandler[BaseSpan]):
    """Tells a live log which span lies in which, and why one was dropped; events say neither."""

    _calls: LiveCallLog = PrivateAttr()

    def __init__(self, calls: LiveCallLog) -> None:
        super().__init__()
        self._calls = calls

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,  # noqa: ARG002  # the framework's signature
        instance: Any | None = None,  # noqa: ARG002
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Take note of where a span begins."""
        self._calls.enter(id_, parent_id=parent_span_id)

    def prepare_to_exit_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,  # noqa: ARG002  # the framework's signature
        instance: Any | None = None,  # noqa: ARG002
        result: Any | None = None,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Forget a span."""
        self._calls.leave(id_)

    def prepare_to_drop_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,  # noqa: ARG002  # the framework's signature
        instance: Any | None = None,  # noqa: ARG002
        err: BaseException | None = None,
        **_: Any,
    ) -> None:
        """Log the failure of a call."""
        self._calls.leave(id_)
        with self._calls.guarded():
            self._calls.fail(id_, err or RuntimeError("the span was dropped"))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """An async stream and the sync one that it is taken to be made of."""

    outer: str
    inner: str


class _UnreadStreams:
    """Knows async streams that nothing has come of yet, and finds the sync ones that they are made of.

    `CustomLLM` makes an async stream of its sync one at the first reading, when the span of the async call is
    over: no span says that the one lies in the other. Of several equal streams it first takes the oldest;
    which one is being read shows when something comes of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unread: OrderedDict[str, tuple[Message, ...]] = OrderedDict()
        self._inner: dict[str, str] = {}  # what an unread stream is taken to be made of

    def around(self, span_id: str, messages: tuple[Message, ...]) -> str | None:
        """Return the async stream that a beginning call serves, None if it serves none."""
        owner, method = _owner_and_method(span_id)
        with self._lock:
            if method.startswith("astream_"):
                self._unread[span_id] = messages
                if len(self._unread) > _MAX_UNREAD:
                    oldest, _ = self._unread.popitem(last=False)
                    self._inner.pop(oldest, None)
            outer = next(self._equal(owner, f"a{method}", messages, has_inner=False), None)
            if outer is not None:
                self._inner[outer] = span_id
            return outer

    def read(self, span_id: str) -> _Pair | None:
        """Take note that a stream gave something, or ended; return the pair that this shows to be mistaken.

        The inner stream of that pair is this one's.
        """
        with self._lock:
            messages = self._unread.pop(span_id, None)
            inner = self._inner.pop(span_id, None)
            if messages is None or inner is not None:
                return None
            # What gives something without an inner stream may have had it taken by an equal one.
            other = next(self._equal(*_owner_and_method(span_id), messages, has_inner=True), None)
            return None if other is None else _Pair(outer=other, inner=self._inner.pop(other))

    def _equal(
        self, owner: str, method: str, messages: tuple[Message, ...], *, has_inner: bool
    ) -> Iterator[str]:
        return (
            each
            for each, given in self._unread.items()
            if _owner_and_method(each) == (owner, method)
            and given == messages
            and (each in self._inner) == has_inner
        )


def _owner_and_method(span_id: str) -> tuple[str, str]:
    owner, _, method = span_id.partition("-")[0].rpartition(".")
    return owner, method


def _completion(response: ChatResponse | CompletionResponse | None) -> Completion:
    tally = AnswerTally("")
    if response is not None:
        tally.add(response)
    return tally.completion(latency_s=0.0)
