"""One routed call as the chosen model sees it: what it is asked, what came of it, and its record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.types import ABANDONED, Completion
from langchain_fusion._convert import is_cached, to_completion

__all__ = ["RouteBinding", "RoutedCall", "RunWatch", "arecorded", "recorded"]


@dataclass(frozen=True, kw_only=True)
class RouteBinding:
    """A call of `bind_tools` or `with_structured_output`, kept to be made on whichever model is chosen.

    Every provider formats tools and schemas its own way, so they stay as the caller gave them until then.

    Attributes:
        method: The method to call.
        subject: The tools or the schema.
        arguments: Its other arguments.
    """

    method: Literal["bind_tools", "with_structured_output"]
    subject: Any
    arguments: Mapping[str, Any]

    @property
    def capabilities(self) -> frozenset[str]:
        """What a candidate must declare to be chosen."""
        if self.method == "with_structured_output":
            is_tool_call = self.arguments.get("method") == "function_calling"
            return frozenset({"tools" if is_tool_call else "structured_output"})
        formats = {"structured_output"} if self.arguments.get("response_format") else set()
        return frozenset(formats | ({"tools"} if self.subject else set()))

    def replay(
        self, model: BaseChatModel, *, options: Mapping[str, Any]
    ) -> Runnable[LanguageModelInput, Any]:
        """Make the call on a model.

        Args:
            model: The chosen model.
            options: What the model will be called with.

        Returns:
            The model with tools or an output schema.

        Raises:
            InvalidPolicyError: If the options would be lost: LangChain drops them beside `include_raw`.
        """
        if options and self.arguments.get("include_raw"):
            message = (
                f"{sorted(options)} cannot be passed on with with_structured_output(include_raw=True), where "
                "LangChain drops call-time settings. Set them on the models that are routed to."
            )
            raise InvalidPolicyError(message)
        bound: Runnable[LanguageModelInput, Any] = getattr(model, self.method)(self.subject, **self.arguments)
        return bound


class RunWatch(BaseCallbackHandler):
    """Sees the run of the chosen model: its id, its answer, and what had come when it was given up.

    A routed call may wrap the model in parsers and bindings; the first model run below it is the one.

    Attributes:
        run_id: Id of the run; None if it never started.
        message: The complete answer; None before it ended well.
        latency_s: Seconds from start to end of the run.
    """

    run_inline = True  # in order and on the loop: it only notes things down

    def __init__(self) -> None:
        self.run_id: UUID | None = None
        self.message: BaseMessage | None = None
        self.latency_s: float | None = None
        self._started_at = 0.0
        self._tokens: list[str] = []
        self._deltas: list[str] = []

    @property
    def text(self) -> str:
        """The text that was streamed so far."""
        # A provider may report tokens beside the events made of them: never count both.
        return "".join(self._deltas or self._tokens)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        messages: list[list[BaseMessage]],  # noqa: ARG002
        *,
        run_id: UUID,
        **_: Any,
    ) -> None:
        """Note the first run."""
        if self.run_id is None:
            self.run_id = run_id
            self._started_at = time.perf_counter()

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **_: Any,
    ) -> None:
        """Note a piece of the answer."""
        if run_id == self.run_id:
            text = token if isinstance(token, str) else ""
            self._tokens.append(text if chunk is None else chunk.text)

    def on_stream_event(self, event: Mapping[str, Any], *, run_id: UUID, **_: Any) -> None:
        """Note a piece of the answer that comes as a protocol event."""
        delta = event.get("delta") or {}
        if run_id == self.run_id and delta.get("type") == "text-delta":
            self._deltas.append(delta.get("text", ""))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Note the answer."""
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if run_id == self.run_id and isinstance(generation, ChatGeneration):
            self.message = generation.message
            self.latency_s = time.perf_counter() - self._started_at

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """Note when the run broke off."""
        if run_id == self.run_id:
            self.latency_s = time.perf_counter() - self._started_at


@dataclass(frozen=True, kw_only=True)
class RoutedCall:
    """A planned call, ready to be made.

    Attributes:
        plan: Who answers, and why.
        runnable: The chosen model with what was bound to the router.
        messages: What it is asked, prompt mode applied.
        config: The run's config, as a child of the router's run.
        options: Keyword arguments of the model.
        watch: Sees the model's run.
        session_id: What groups the calls of one conversation.
    """

    plan: FusionPlan
    runnable: Runnable[LanguageModelInput, Any]
    messages: list[BaseMessage]
    config: RunnableConfig
    options: Mapping[str, Any]
    watch: RunWatch
    session_id: str | None

    def answered(self, message: BaseMessage) -> Completion:
        """Return an answer as the core records it."""
        return to_completion(message, model=self.plan.candidate.model, latency_s=self.watch.latency_s)

    def outcome(self, error: BaseException | None) -> Completion | BaseException | None:
        """Return what to record: an answer, an error, or None where the model was not called.

        Args:
            error: What ended the call; None if it ended well.

        Returns:
            The answer also where only what follows it failed, such as a parser.
        """
        watch = self.watch
        if watch.message is not None:
            return None if is_cached(watch.message) else self.answered(watch.message)
        if watch.run_id is None:
            return None
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            return Completion(
                text=watch.text,
                model=self.plan.candidate.model,
                finish_reason=ABANDONED,
                latency_s=watch.latency_s,
            )
        return error

    def annotated(self, answer: Any, *, pipeline: FusionPipeline) -> Any:
        """Return an answer with the decision in `response_metadata["fusion"]`; other output as it is.

        The message is copied: the model's own trace and the cache hold the original.
        """
        if isinstance(answer, dict) and isinstance(answer.get("raw"), AIMessage):
            return {**answer, "raw": self.annotated(answer["raw"], pipeline=pipeline)}
        if not isinstance(answer, AIMessage):
            return answer
        metadata = {**answer.response_metadata, "fusion": self.decision_json(pipeline)}
        return answer.model_copy(update={"response_metadata": metadata})

    def decision_json(self, pipeline: FusionPipeline) -> dict[str, Any]:
        """Return the decision with the call's actual cost, None if unknown."""
        message = self.watch.message
        if message is None:
            cost = None
        else:
            cost = 0.0 if is_cached(message) else pipeline.cost_usd(self.plan, self.answered(message))
        return {**self.plan.decision.to_json(), "cost_usd": cost}


@contextmanager
def recorded(pipeline: FusionPipeline, call: RoutedCall) -> Iterator[None]:
    """Record what comes of a call made inside, be it an answer, an error, or a reader who left.

    Args:
        pipeline: Where to record.
        call: The call.

    Yields:
        Once; the call is made meanwhile.

    Raises:
        LogStoreError: If the answer cannot be recorded. Where the call failed too, its own error is raised
            and says so in a note.
    """
    try:
        yield
    except BaseException as error:
        try:
            _record(pipeline, call, error)
        except Exception as failure:  # the call's own error matters more
            error.add_note(f"This call could not be recorded either: {failure}")
        raise
    _record(pipeline, call, None)


@asynccontextmanager
async def arecorded(pipeline: FusionPipeline, call: RoutedCall) -> AsyncIterator[None]:
    """Record without blocking the event loop; otherwise as `recorded`."""
    try:
        yield
    except BaseException as error:
        try:
            await _arecord(pipeline, call, error)
        except Exception as failure:  # the call's own error matters more
            error.add_note(f"This call could not be recorded either: {failure}")
        raise
    await _arecord(pipeline, call, None)


def _record(pipeline: FusionPipeline, call: RoutedCall, error: BaseException | None) -> None:
    outcome, run_id = call.outcome(error), call.watch.run_id
    if pipeline.store is not None and outcome is not None:
        pipeline.record(call.plan, outcome, run_id=str(run_id), session_id=call.session_id)


async def _arecord(pipeline: FusionPipeline, call: RoutedCall, error: BaseException | None) -> None:
    outcome, run_id = call.outcome(error), call.watch.run_id
    if pipeline.store is not None and outcome is not None:
        await pipeline.arecord(call.plan, outcome, run_id=str(run_id), session_id=call.session_id)
