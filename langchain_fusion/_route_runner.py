"""Make a call on the model the router chooses, in the six ways LangChain can ask for an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from fusion_integrations.pipeline import FusionPipeline
from langchain_fusion._convert import to_messages
from langchain_fusion._overrides import CallOverrides
from langchain_fusion._route_planner import CallRequest, RoutePlanner, refuse_model_option
from langchain_fusion._routed_call import (
    PlannedCall,
    RouteBinding,
    RoutedCall,
    arecorded,
    recorded,
    routing_metadata,
)
from langchain_fusion._run_watch import RunWatch

if TYPE_CHECKING:
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream

__all__ = ["RouteRunner"]

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RouteRunner:
    """Plans a call, makes it on the chosen model, records it and marks the answer.

    Sync and async differ in the awaited calls only; deciding is written once.

    Attributes:
        planner: Chooses the model.
        options: Keyword arguments of every model call.
    """

    planner: RoutePlanner
    options: Mapping[str, Any]

    @property
    def pipeline(self) -> FusionPipeline:
        """Where calls are recorded."""
        return self.planner.pipeline

    def invoke(self, model_input: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        """Return the chosen model's answer, as `config` (a child of the router's run) and `kwargs` ask."""
        call = self._plan(model_input, config, kwargs)
        with recorded(self.pipeline, call=call, watch=call.watch):
            answer = call.runnable.invoke(call.messages, call.config, **call.options)
        return call.annotated(answer, run=call.watch, pipeline=self.pipeline)

    async def ainvoke(self, model_input: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        """Return the chosen model's answer by its async method."""
        call = await self._aplan(model_input, config, kwargs)
        async with arecorded(self.pipeline, call=call, watch=call.watch):
            answer = await call.runnable.ainvoke(call.messages, call.config, **call.options)
        return call.annotated(answer, run=call.watch, pipeline=self.pipeline)

    def stream(
        self, inputs: Iterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the chosen model's chunks; the last one only when the call is recorded, with the decision."""
        call = self._plan(next(inputs), config, kwargs)
        stream = call.runnable.stream(call.messages, call.config, **call.options)
        last: list[Any] = []
        with (
            recorded(self.pipeline, call=call, watch=call.watch),
            closing(cast("Generator[Any]", stream)) as chunks,
        ):
            for chunk in chunks:
                yield from last
                last = [chunk] if _is_last(chunk) else []
                if not last:
                    yield chunk
        yield from (call.annotated(chunk, run=call.watch, pipeline=self.pipeline) for chunk in last)

    async def astream(
        self, inputs: AsyncIterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield the chosen model's chunks by its async method; otherwise as `stream`."""
        call = await self._aplan(await anext(inputs), config, kwargs)
        stream = call.runnable.astream(call.messages, call.config, **call.options)
        last: list[Any] = []
        async with (
            arecorded(self.pipeline, call=call, watch=call.watch),
            aclosing(cast("AsyncGenerator[Any]", stream)) as chunks,
        ):
            async for chunk in chunks:
                for held in last:
                    yield held
                last = [chunk] if _is_last(chunk) else []
                if not last:
                    yield chunk
        for chunk in last:
            yield call.annotated(chunk, run=call.watch, pipeline=self.pipeline)

    def events(
        self, inputs: Iterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Event]:
        """Yield the chosen model's protocol events; the final one carries the decision."""
        call = self._plan(next(inputs), config, kwargs)
        finish: Event | None = None
        with recorded(self.pipeline, call=call, watch=call.watch):
            stream: ChatModelStream = cast("Any", call.runnable).stream_events(
                call.messages, call.config, version="v3", **call.options
            )
            for event in stream:
                if event["event"] == "message-finish":
                    finish = event  # the model's run ends after it
                else:
                    yield event
        if finish is not None:
            yield self._annotated_event(finish, call)

    async def aevents(
        self, inputs: AsyncIterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Event]:
        """Yield the chosen model's protocol events by its async method; otherwise as `events`."""
        call = await self._aplan(await anext(inputs), config, kwargs)
        finish: Event | None = None
        async with arecorded(self.pipeline, call=call, watch=call.watch):
            stream: AsyncChatModelStream = await cast("Any", call.runnable).astream_events(
                call.messages, call.config, version="v3", **call.options
            )
            async with stream:
                async for event in stream:
                    if event["event"] == "message-finish":
                        finish = event
                    else:
                        yield event
        if finish is not None:
            yield self._annotated_event(finish, call)

    def _plan(
        self, model_input: LanguageModelInput, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> RoutedCall:
        request, binding, options = self._request(model_input, config, kwargs)
        call = self.planner.plan(request)
        return _routed(self.pipeline, call, config, binding=binding, options=options)

    async def _aplan(
        self, model_input: LanguageModelInput, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> RoutedCall:
        request, binding, options = self._request(model_input, config, kwargs)
        call = await self.planner.aplan(request)
        return _routed(self.pipeline, call, config, binding=binding, options=options)

    def _request(
        self, model_input: LanguageModelInput, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> tuple[CallRequest, RouteBinding | None, Mapping[str, Any]]:
        """Take apart what a call asks for: of the router, and of the model it chooses."""
        options = {**self.options, **{key: value for key, value in kwargs.items() if value is not None}}
        binding: RouteBinding | None = options.pop("route_binding", None)
        refuse_model_option(options)
        request = CallRequest(
            messages=to_messages(model_input),
            needed=binding.capabilities if binding else frozenset({"tools"} & options.keys()),
            overrides=CallOverrides.from_config(config),
        )
        return request, binding, options

    def _annotated_event(self, finish: Event, call: RoutedCall) -> Event:
        decision = call.decision_json(run=call.watch, pipeline=self.pipeline)
        return {**finish, "metadata": {**(finish.get("metadata") or {}), "fusion": decision}}


def _routed(
    pipeline: FusionPipeline,
    call: PlannedCall,
    config: RunnableConfig,
    *,
    binding: RouteBinding | None,
    options: Mapping[str, Any],
) -> RoutedCall:
    """Make a planned call ready to be made."""
    watch = RunWatch()
    return RoutedCall(
        plan=call.plan,
        model=call.model,
        messages=call.messages,
        session_id=call.session_id,
        runnable=call.model if binding is None else binding.replay(call.model, options=options),
        config=_watched(config, watch, routing=routing_metadata(pipeline, plan=call.plan)),
        options=options,
        watch=watch,
    )


def _watched(config: RunnableConfig, watch: RunWatch, *, routing: Mapping[str, Any]) -> RunnableConfig:
    """Let a watch see the runs below the router's own, and say in their metadata who was chosen."""
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks.add_handler(watch, inherit=True)  # made for this call alone
    metadata = {**(config.get("metadata") or {}), **routing}
    return {**config, "metadata": metadata}


def _is_last(chunk: Any) -> bool:
    """Whether a chunk ends the answer; a whole message does, from a model that cannot stream."""
    return isinstance(chunk, AIMessage) and getattr(chunk, "chunk_position", "last") == "last"
