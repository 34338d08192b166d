"""Make a call on the model the router chooses, in the six ways LangChain can ask for an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from fusion_integrations.errors import (
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Candidate, Query
from langchain_fusion._convert import edit_last_user_message, portable_messages, to_core, to_messages
from langchain_fusion._overrides import CallOverrides
from langchain_fusion._routed_call import RouteBinding, RoutedCall, RunWatch, arecorded, recorded

if TYPE_CHECKING:
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream

__all__ = ["RouteRunner", "check_models"]

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RouteRunner:
    """Plans a call, makes it on the chosen model, records it and marks the answer.

    Sync and async differ in the awaited calls only; deciding is written once.

    Attributes:
        pipeline: Plans and records.
        models: Models by `Candidate.model`.
        policy: The policy of calls that bring none.
        options: Keyword arguments of every model call.
    """

    pipeline: FusionPipeline
    models: Mapping[str, BaseChatModel]
    policy: RoutingPolicy
    options: Mapping[str, Any]

    def invoke(self, model_input: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        """Return the chosen model's answer, as `config` (a child of the router's run) and `kwargs` ask."""
        call = self._plan(model_input, config, kwargs)
        with recorded(self.pipeline, call):
            answer = call.runnable.invoke(call.messages, call.config, **call.options)
        return call.annotated(answer, pipeline=self.pipeline)

    async def ainvoke(self, model_input: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        """Return the chosen model's answer by its async method."""
        call = await self._aplan(model_input, config, kwargs)
        async with arecorded(self.pipeline, call):
            answer = await call.runnable.ainvoke(call.messages, call.config, **call.options)
        return call.annotated(answer, pipeline=self.pipeline)

    def stream(
        self, inputs: Iterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the chosen model's chunks; the last one only when the call is recorded, with the decision."""
        call = self._plan(next(inputs), config, kwargs)
        stream = call.runnable.stream(call.messages, call.config, **call.options)
        last: list[Any] = []
        with recorded(self.pipeline, call), closing(cast("Generator[Any]", stream)) as chunks:
            for chunk in chunks:
                yield from last
                last = [chunk] if _is_last(chunk) else []
                if not last:
                    yield chunk
        yield from (call.annotated(chunk, pipeline=self.pipeline) for chunk in last)

    async def astream(
        self, inputs: AsyncIterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Yield the chosen model's chunks by its async method; otherwise as `stream`."""
        call = await self._aplan(await anext(inputs), config, kwargs)
        stream = call.runnable.astream(call.messages, call.config, **call.options)
        last: list[Any] = []
        async with (
            arecorded(self.pipeline, call),
            aclosing(cast("AsyncGenerator[Any]", stream)) as chunks,
        ):
            async for chunk in chunks:
                for held in last:
                    yield held
                last = [chunk] if _is_last(chunk) else []
                if not last:
                    yield chunk
        for chunk in last:
            yield call.annotated(chunk, pipeline=self.pipeline)

    def events(
        self, inputs: Iterator[LanguageModelInput], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Event]:
        """Yield the chosen model's protocol events; the final one carries the decision."""
        call = self._plan(next(inputs), config, kwargs)
        finish: Event | None = None
        with recorded(self.pipeline, call):
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
        async with arecorded(self.pipeline, call):
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
        request = self._request(model_input, config, kwargs)
        return self._call(request, self.pipeline.plan(request.query, policy=request.policy))

    async def _aplan(
        self, model_input: LanguageModelInput, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> RoutedCall:
        request = self._request(model_input, config, kwargs)
        return self._call(request, await self.pipeline.aplan(request.query, policy=request.policy))

    def _request(
        self, model_input: LanguageModelInput, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> _Request:
        """Take apart what a call asks for."""
        options = {**self.options, **{key: value for key, value in kwargs.items() if value is not None}}
        binding: RouteBinding | None = options.pop("route_binding", None)
        if "model" in options:
            message = (
                f"'model' cannot be set for a call of the router (got {options['model']!r}): the answer "
                "would be logged as another model's. To choose who answers, pin a candidate: "
                "config={'configurable': {'fusion_route': '<id>'}}."
            )
            raise InvalidPolicyError(message)
        overrides = CallOverrides.from_config(config)
        policy = overrides.policy or self.policy
        if overrides.route is None:  # a caller who pins knows what the candidate can do
            needed = binding.capabilities if binding else frozenset({"tools"} & options.keys())
            policy = self._requiring(needed, policy)
        messages = to_messages(model_input)
        return _Request(
            messages=messages,
            query=Query(messages=to_core(messages)),
            policy=policy,
            overrides=overrides,
            binding=binding,
            options=options,
            config=config,
        )

    def _requiring(self, capabilities: frozenset[str], policy: RoutingPolicy) -> RoutingPolicy:
        if not capabilities:
            return policy
        if not any(candidate.capabilities for candidate in self.pipeline.router.candidates):
            wanted = ", ".join(f"'{name}'" for name in sorted(capabilities))
            message = (
                f"This call needs a candidate with {wanted}, but no candidate of the router declares any "
                "capability. Declare them, Candidate(..., capabilities=frozenset({...})), in the candidates "
                "that the router is trained with; or pin one: "
                "config={'configurable': {'fusion_route': '<id>'}}."
            )
            raise NoEligibleCandidateError(message)
        return replace(policy, required_capabilities=policy.required_capabilities | capabilities)

    def _call(self, request: _Request, plan: FusionPlan) -> RoutedCall:
        """Prepare the call of a plan."""
        if request.overrides.route is not None:
            plan = self.pipeline.pin(plan, request.overrides.route)
        model = self.models.get(plan.candidate.model)
        if model is None:
            raise UnknownCandidateError(_lacks_model(plan.candidate, self.models))
        binding, options = request.binding, request.options
        own = portable_messages(request.messages, model=plan.candidate.model)
        watch = RunWatch()
        return RoutedCall(
            plan=plan,
            runnable=model if binding is None else binding.replay(model, options=options),
            messages=edit_last_user_message(own, plan.prompt),
            config=_watched(request.config, watch, candidate_id=plan.candidate.id),
            options=options,
            watch=watch,
            session_id=request.overrides.session_id,
        )

    def _annotated_event(self, finish: Event, call: RoutedCall) -> Event:
        decision = call.decision_json(self.pipeline)
        return {**finish, "metadata": {**(finish.get("metadata") or {}), "fusion": decision}}


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What one call of the router asks for."""

    messages: list[BaseMessage]
    query: Query
    policy: RoutingPolicy
    overrides: CallOverrides
    binding: RouteBinding | None
    options: Mapping[str, Any]
    config: RunnableConfig


def check_models(
    models: Mapping[str, BaseChatModel], *, candidates: tuple[Candidate, ...], policy: RoutingPolicy
) -> None:
    """Check that every candidate a policy can choose has a model.

    Args:
        models: Models by `Candidate.model`.
        candidates: The router's candidates.
        policy: The policy.

    Raises:
        UnknownCandidateError: If one has none; says which.
    """
    for candidate in candidates:
        is_allowed = policy.allowed is None or candidate.id in policy.allowed
        is_able = policy.required_capabilities <= candidate.capabilities
        if is_allowed and is_able and candidate.model not in models:
            raise UnknownCandidateError(_lacks_model(candidate, models))


def _lacks_model(candidate: Candidate, models: Mapping[str, BaseChatModel]) -> str:
    if candidate.kind == "tool":
        return (
            f"Candidate '{candidate.id}' is a tool, which a chat model cannot call. "
            "Leave it out: RoutingPolicy(allowed=frozenset({...}))."
        )
    known = ", ".join(f"'{name}'" for name in models) or "the models (none)"
    return (
        f"Candidate '{candidate.id}' needs model '{candidate.model}', which is not among {known}. "
        "Add it, or leave the candidate out: RoutingPolicy(allowed=frozenset({...}))."
    )


def _watched(config: RunnableConfig, watch: RunWatch, *, candidate_id: str) -> RunnableConfig:
    """Let a watch see the runs below the router's own, and name the candidate in their metadata."""
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks.add_handler(watch, inherit=True)  # made for this call alone
    metadata = {**(config.get("metadata") or {}), "fusion_candidate": candidate_id}
    return {**config, "metadata": metadata}


def _is_last(chunk: Any) -> bool:
    """Whether a chunk ends the answer; a whole message does, from a model that cannot stream."""
    return isinstance(chunk, AIMessage) and getattr(chunk, "chunk_position", "last") == "last"
