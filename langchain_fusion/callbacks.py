"""The callback handler that logs the model calls of a LangChain application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import LC_ID_PREFIX, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.logs.live_calls import FeedbackStore, LiveCall, LiveCallLog
from fusion_integrations.types import Completion, Message, PriceTable
from langchain_fusion._convert import is_cached, reported_tokens, to_completion, to_core
from langchain_fusion._overrides import session_id_in
from langchain_fusion._routed_call import RECORDED_KEY

__all__ = ["FusionLogCallbackHandler"]

_UUID_LENGTH = 36


class FusionLogCallbackHandler(BaseCallbackHandler):
    """Logs every real model call of an application: answers, streams, tool calls, failures, retries.

    One handler serves sync and async code, any number of chains and threads. Records are written in the
    background; what cannot be written is counted and logged, and the application goes on. In async code the
    handler works in a thread, so that waiting for a full queue blocks no event loop.

    A record has the id of the model's run. So a call that `FusionChatModel` or `FusionModelMiddleware` has
    routed, and that its pipeline records in the same store, is one record: the pipeline's. A model that is
    called inside another model's run is the one that is logged. Answers from LangChain's cache are nobody's
    call and not logged. Where a model gives several answers to one call, the first is logged. A stream that
    nobody reads to its end leaves a record with the finish reason `"abandoned"`.

    LangChain does not tell of a call that is cancelled, or that a timeout ends, without streaming. If the run
    around it is cancelled with it, the call is logged as failed; if that run goes on and ends, the call is
    logged when the handler is closed. A call with no run around it leaves no record: it is counted in
    `n_unrecorded` when the handler is closed, as are calls that still run then. Conversations whose last user
    message is missing or has no text are counted there too, since no record can hold them.

    Args:
        store: Where records go, usually a `LogStore`. It stays open; close the handler first.
        source: Name of the application in the records.
        prices: Prices by model name; without one the cost is unknown.
        candidate_ids: Candidate ids by model name. A model that is not named goes by its own name.
        writer: Writes the records, for example with other limits. Default: a `BackgroundWriter` of its own.

    Example:
        ```python
        with LogStore.open("logs.sqlite") as store, FusionLogCallbackHandler(store, source="my-app") as log:
            run_id = uuid4()
            answer = model.invoke("What is 17 * 24?", {"callbacks": [log], "run_id": run_id})
            log.add_feedback(run_id, 1.0)
        ```
    """

    def __init__(
        self,
        store: FeedbackStore,
        *,
        source: str = "langchain",
        prices: PriceTable | None = None,
        candidate_ids: Mapping[str, str] | None = None,
        writer: BackgroundWriter | None = None,
    ) -> None:
        self._calls = LiveCallLog(
            store, source=source, prices=prices, candidate_ids=candidate_ids, writer=writer
        )

    def add_feedback(
        self, run_id: UUID | str, value: float, *, scorer: str = "user", reason: str = ""
    ) -> None:
        """Attach a user's opinion to a logged call, at any time after it.

        Args:
            run_id: Id of the model's run, as the config gave it; or the id of the answer, where the provider
                gave it none and LangChain made it of the run's: `"lc_run--..."`.
            value: Between 0 (worthless) and 1 (perfect).
            scorer: Who says so.
            reason: Why, in their words.

        Raises:
            InvalidPolicyError: If the value is not between 0 and 1.
            LogSchemaError: If the store has no record of that call.
            LogStoreError: If the store cannot be written.
        """
        self._calls.add_feedback(_run_id(run_id), value, scorer=scorer, reason=reason)

    async def aadd_feedback(
        self, run_id: UUID | str, value: float, *, scorer: str = "user", reason: str = ""
    ) -> None:
        """Attach an opinion without blocking the event loop; otherwise as `add_feedback`."""
        await self._calls.aadd_feedback(_run_id(run_id), value, scorer=scorer, reason=reason)

    def flush(self, *, timeout_s: float | None = None) -> bool:
        """Wait until the calls so far are written; see `BackgroundWriter.flush`."""
        return self._calls.writer.flush(timeout_s=timeout_s)

    def close(self) -> None:
        """Log or count calls whose end is not known, and write what is pending; later calls are not logged.

        When the process ends without this, what is pending is still written.
        """
        self._calls.close()

    def stats(self) -> WriterStats:
        """Count what became of the records so far."""
        return self._calls.writer.stats()

    @property
    def n_unrecorded(self) -> int:
        """How many calls no record could be made of; see `LiveCallLog.n_unrecorded`."""
        return self._calls.n_unrecorded

    def __enter__(self) -> FusionLogCallbackHandler:
        """Return the handler."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the handler."""
        self.close()

    # What follows is called by LangChain.

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a call of a chat model."""
        with self._calls.guarded():
            self._begin(to_core(messages[0]), run_id, parent_run_id, metadata or {}, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a call of a model that completes texts."""
        with self._calls.guarded():
            prompt = (Message(role="user", content=prompts[0]),)
            self._begin(prompt, run_id, parent_run_id, metadata or {}, kwargs)

    def _begin(
        self,
        messages: tuple[Message, ...],
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._enter(run_id, parent_run_id)
        call = LiveCall(
            messages=messages,
            model=_model_name(metadata, kwargs),
            session_id=session_id_in(metadata),
            # LangChain marks what its own middleware asks for itself; no router records that.
            is_recorded=bool(metadata.get(RECORDED_KEY)) and "lc_source" not in metadata,
        )
        self._calls.begin(str(run_id), call, parent_id=None if parent_run_id is None else str(parent_run_id))

    def on_stream_event(self, event: Mapping[str, Any], *, run_id: UUID, **_: Any) -> None:
        """Take note of a piece of an answer: a run that breaks off tells of events nothing."""
        delta = event.get("delta") or {}
        if delta.get("type") == "text-delta":
            self._calls.add_text(str(run_id), delta.get("text", ""))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Log an answer."""
        with self._calls.guarded():
            self._calls.leave(str(run_id))
            self._calls.end(str(run_id), _completion(_first(response), response))

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **_: Any
    ) -> None:
        """Log a failure, or an answer whose reader left."""
        with self._calls.guarded():
            self._calls.leave(str(run_id))
            so_far = _first(response) if response is not None else None
            self._calls.fail(str(run_id), error, text=so_far.text if so_far else "")

    def _enter(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        self._calls.enter(str(run_id), parent_id=None if parent_run_id is None else str(parent_run_id))

    def on_chain_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        inputs: dict[str, Any],  # noqa: ARG002
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **_: Any,
    ) -> None:
        """Take note of a run that may lie between two model calls, one inside the other."""
        self._enter(run_id, parent_run_id)

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """Forget a run."""
        self._calls.leave(str(run_id))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Forget a run, and log the calls that were cancelled with it."""
        self._calls.leave(str(run_id), error=error)

    def on_tool_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        input_str: str,  # noqa: ARG002
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **_: Any,
    ) -> None:
        """Take note of a run, as of a chain."""
        self._enter(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """Forget a run."""
        self._calls.leave(str(run_id))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Forget a run, as of a chain."""
        self._calls.leave(str(run_id), error=error)


def _run_id(run_or_message_id: UUID | str) -> str:
    """Return a run's id, also where a message's holds it: `lc_run--<run id>-<number of the answer>`."""
    given = str(run_or_message_id)
    is_message = given.startswith(f"{LC_ID_PREFIX}-")
    return given.removeprefix(f"{LC_ID_PREFIX}-")[:_UUID_LENGTH] if is_message else given


def _model_name(metadata: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """Return the name that the application calls a model by, or what comes closest to one."""
    params: Mapping[str, Any] = kwargs.get("invocation_params") or {}
    names: Sequence[Any] = (
        metadata.get("ls_model_name"),
        params.get("model"),
        params.get("model_name"),
        params.get("_type"),
        metadata.get("ls_provider"),
    )
    return next((name for name in names if isinstance(name, str) and name.strip()), "unknown")


def _first(response: LLMResult) -> Generation | None:
    generations = response.generations[0] if response.generations else []
    return generations[0] if generations and isinstance(generations[0], Generation) else None


def _completion(generation: Generation | None, response: LLMResult) -> Completion | None:
    """Return an answer, None for one from LangChain's cache."""
    if isinstance(generation, ChatGeneration):
        if is_cached(generation.message):
            return None
        return to_completion(generation.message, model="", llm_output=response.llm_output)
    input_tokens, output_tokens = reported_tokens(response.llm_output)
    return Completion(
        text=generation.text if generation else "",
        model="",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )
