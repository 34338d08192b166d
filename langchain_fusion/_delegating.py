"""The entry points that every chat model has, reduced to the four that a router implements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult, RunInfo
from langchain_core.runnables import RunnableConfig

__all__ = ["DelegatingChatModel"]


class DelegatingChatModel(BaseChatModel):
    """A chat model that has no model run of its own, since another model's run lies inside its own.

    Subclasses implement `invoke`, `ainvoke`, `stream` and `astream`; the base class's would open a model run,
    and usage would count twice.
    """

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer conversations in turn, each by `invoke`; prefer `batch`."""
        shared = _config(callbacks=callbacks, tags=tags, metadata=metadata, run_name=run_name)
        configs = _with_run_ids(shared, count=len(messages), first=run_id)
        answers = [
            self.invoke(turns, config, stop=stop, **kwargs)
            for turns, config in zip(messages, configs, strict=True)
        ]
        return _llm_result(answers, configs)

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer conversations at once, each by `ainvoke`; prefer `abatch`."""
        shared = _config(callbacks=callbacks, tags=tags, metadata=metadata, run_name=run_name)
        configs = _with_run_ids(shared, count=len(messages), first=run_id)
        calls = [
            self.ainvoke(turns, config, stop=stop, **kwargs)
            for turns, config in zip(messages, configs, strict=True)
        ]
        return _llm_result(await asyncio.gather(*calls), configs)

    # The four methods below serve code that calls them directly, inside a model run of its own: what they
    # call stays out of that run's callbacks, or its usage would count twice.

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        answer = self.invoke(messages, {"callbacks": []}, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        answer = await self.ainvoke(messages, {"callbacks": []}, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.stream(messages, {"callbacks": []}, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self.astream(messages, {"callbacks": []}, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)


def _with_run_ids(shared: RunnableConfig, *, count: int, first: UUID | None) -> list[RunnableConfig]:
    return [{**shared, "run_id": first if first and not i else uuid4()} for i in range(count)]


def _config(**values: Any) -> RunnableConfig:
    return cast("RunnableConfig", {key: value for key, value in values.items() if value is not None})


def _llm_result(answers: Sequence[AIMessage], configs: Sequence[RunnableConfig]) -> LLMResult:
    return LLMResult(
        generations=[[ChatGeneration(message=answer)] for answer in answers],
        llm_output={},
        run=[RunInfo(run_id=cast("UUID", config["run_id"])) for config in configs],
    )
