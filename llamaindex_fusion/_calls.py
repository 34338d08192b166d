"""Run one planned call on a native LLM, mark its responses with the decision, and record it.

Sync, async, streamed and not: what happens around the model is written once here, so the four ways cannot
come to differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.instrumentation.dispatcher import (  # type: ignore[attr-defined]  # not declared there
    active_instrument_tags,
    instrument_tags,
)
from llama_index.core.llms.llm import LLM

from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.types import ABANDONED, Completion
from llamaindex_fusion._convert import AnswerTally

__all__ = ["DECISION_KEY", "RECORDED_TAG", "RUN_ID_TAG", "PlannedCall"]

# Where a response carries its decision, and an event of the native LLM the id of the call's log record.
DECISION_KEY = "fusion"
RUN_ID_TAG = "fusion_run_id"
# Whether the pipeline records the call, so that a log event handler need not.
RECORDED_TAG = "fusion_recorded"

_Response = TypeVar("_Response", ChatResponse, CompletionResponse)


@dataclass(kw_only=True, eq=False)
class PlannedCall:
    """One call from its plan to its record.

    Attributes:
        pipeline: Records the call.
        plan: Who answers, and why.
        llm: The native LLM of the chosen candidate.
        messages: The conversation with the prompt mode applied.
    """

    pipeline: FusionPipeline
    plan: FusionPlan
    llm: LLM
    messages: list[ChatMessage]
    _run_id: str = field(default_factory=lambda: str(uuid4()), init=False)
    _start: float = field(default_factory=time.perf_counter, init=False)
    _mark: dict[str, Any] = field(init=False)
    _tally: AnswerTally = field(init=False)

    def __post_init__(self) -> None:
        """Start the tally, and the mark that every response of the call shares."""
        self._tally = AnswerTally(self.plan.candidate.model)
        self._mark = self.plan.decision.to_json() | {"run_id": self._run_id, "cost_usd": None}

    def run(self, ask: Callable[[], _Response]) -> _Response:
        """Ask the native LLM; return its response, marked. The call is recorded, whatever happens."""
        try:
            with self._tags():
                response = ask()
        except BaseException as error:
            self._record(error)
            raise
        self._tally.add(response)
        self._record(self._completion())
        return self._marked(response)

    async def arun(self, ask: Callable[[], Awaitable[_Response]]) -> _Response:
        """Ask without blocking the event loop; otherwise as `run`."""
        try:
            with self._tags():
                response = await ask()
        except BaseException as error:
            await self._arecord(error)
            raise
        self._tally.add(response)
        await self._arecord(self._completion())
        return self._marked(response)

    def stream(self, ask: Callable[[], Generator[_Response, None, None]]) -> Generator[_Response, None, None]:
        """Start a stream now; its responses come marked, and its end, failure or abandonment is recorded.

        A stream of which nothing is read leaves no record and spends no budget: nothing is known of its
        answer.
        """
        try:
            with self._tags():
                responses = ask()
        except BaseException as error:
            self._record(error)
            raise
        return self._follow(responses)

    async def astream(
        self, ask: Callable[[], Awaitable[AsyncGenerator[_Response, None]]]
    ) -> AsyncGenerator[_Response, None]:
        """Start a stream without blocking the event loop; otherwise as `stream`."""
        try:
            with self._tags():
                responses = await ask()
        except BaseException as error:
            await self._arecord(error)
            raise
        return self._afollow(responses)

    def _follow(self, responses: Generator[_Response, None, None]) -> Generator[_Response, None, None]:
        try:
            with contextlib.closing(responses):
                for response in responses:
                    self._tally.add(response)
                    yield self._marked(response)
        except BaseException as error:
            self._record(self._broken_off(error))
            raise
        self._record(self._completion())

    async def _afollow(self, responses: AsyncGenerator[_Response, None]) -> AsyncGenerator[_Response, None]:
        try:
            async with contextlib.aclosing(responses):
                async for response in responses:
                    self._tally.add(response)
                    yield self._marked(response)
        except BaseException as error:
            await self._arecord(self._broken_off(error))
            raise
        await self._arecord(self._completion())

    def _tags(self) -> contextlib.AbstractContextManager[None]:
        """Tag the native LLM's events, so that a log event handler knows what is recorded here."""
        own = {RUN_ID_TAG: self._run_id, RECORDED_TAG: self.pipeline.store is not None}
        return instrument_tags({**active_instrument_tags.get(), **own})

    def _marked(self, response: _Response) -> _Response:
        # A copy: the LLM may keep its response, in a cache for instance.
        marked = {**response.additional_kwargs, DECISION_KEY: self._mark}
        return response.model_copy(update={"additional_kwargs": marked})

    def _completion(self, finish_reason: str | None = None) -> Completion:
        return self._tally.completion(
            latency_s=time.perf_counter() - self._start, finish_reason=finish_reason
        )

    def _broken_off(self, error: BaseException) -> Completion | BaseException:
        """Tell a stream that nobody wanted to its end from one that failed."""
        is_abandoned = isinstance(error, GeneratorExit | asyncio.CancelledError)
        return self._completion(ABANDONED) if is_abandoned else error

    def _record(self, outcome: Completion | BaseException) -> None:
        self._note(self.pipeline.record(self.plan, outcome, run_id=self._run_id))

    async def _arecord(self, outcome: Completion | BaseException) -> None:
        self._note(await self.pipeline.arecord(self.plan, outcome, run_id=self._run_id))

    def _note(self, record: LogRecord) -> None:
        self._mark["cost_usd"] = record.cost_usd
