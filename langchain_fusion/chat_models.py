"""The chat model that routes: each call goes to the model that the logs say should answer it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableBinding, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from langchain_fusion._delegating import DelegatingChatModel
from langchain_fusion._model_profile import common_profile
from langchain_fusion._overrides import CONFIG_SPECS, with_own_settings
from langchain_fusion._route_planner import RoutePlanner, check_models
from langchain_fusion._route_runner import RouteRunner
from langchain_fusion._routed_call import RouteBinding

if TYPE_CHECKING:
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
    from langchain_core.runnables.schema import StreamEvent

__all__ = ["FusionChatModel"]

logger = logging.getLogger(__name__)

_MODEL_NAME = "fusion-router"
# Standard parameters of LangChain chat models that only a model which makes requests can act on.
_WITHOUT_EFFECT = ("api_key", "max_retries", "timeout")
# Settings that would be ignored where the caller relies on them.
_REFUSED = ("cache", "rate_limiter")


class FusionChatModel(DelegatingChatModel):
    """A chat model that sends each call to the model that should answer it, and records what came of it.

    The chosen model is called natively: with its own tracing, streaming, tools and structured output, inside
    a chain run of the router. So usage and cost are counted once, under the name of the model that answered.
    The answer carries the decision and its actual cost in `response_metadata["fusion"]`.

    Setup:
        ```python
        model = FusionChatModel(
            pipeline=FusionPipeline(RouterModel.from_pretrained("router"), store=store),
            models={"gpt-5": ChatOpenAI(model="gpt-5"), "qwen3": ChatOllama(model="qwen3")},
        )
        ```

    Use:
        ```python
        model.invoke("What is 17 * 24?").response_metadata["fusion"]["candidate"]
        chain = prompt | model.bind_tools([search]) | parser

        model.invoke(question, {"configurable": {"fusion_route": "qwen3:direct"}})  # this candidate answers
        model.invoke(question, {"configurable": {"fusion_policy": RoutingPolicy(cost_weight=0.8)}})
        ```

    With tools bound, only candidates that declare the capability `"tools"` are eligible; with structured
    output `"structured_output"`, or `"tools"` for `method="function_calling"`. A pinned route is not checked.

    Calls that started are recorded if the pipeline has a store, under the id of the model's run. A reader who
    leaves a stream early leaves a record of what had come, with the finish reason `"abandoned"`. Answers from
    LangChain's cache are nobody's call and not recorded.

    Attributes:
        pipeline: Router, policy, prices and log store.
        models: Ready models by `Candidate.model`; prompt modes of one model share it.
        policy: Replaces the pipeline's policy. None keeps it.
        temperature: Passed to the chosen model with each call. None leaves the model's own.
        max_tokens: As `temperature`.
        stop: As `temperature`.
        streaming: False makes `stream` give the whole answer at once.
        api_key: Accepted like every standard parameter, but without effect: set it on the models.
        max_retries: As `api_key`; or use `with_retry`.
        timeout: As `api_key`.

    Raises:
        UnknownCandidateError: If a candidate that the policy can choose has no model.
        InvalidPolicyError: If `cache` or `rate_limiter` is set, which belong on the models. (Wrapped into
            pydantic's `ValidationError`.)
    """

    pipeline: FusionPipeline
    models: Mapping[str, BaseChatModel]
    policy: RoutingPolicy | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    max_retries: int | None = None
    timeout: float | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        check_models(self.models, candidates=self.pipeline.router.candidates, policy=self._planner.policy)
        refused = [name for name in _REFUSED if getattr(self, name) is not None]
        if refused:
            message = f"The router calls no provider itself: set {refused} on the models it routes to."
            raise InvalidPolicyError(message)
        idle = [name for name in _WITHOUT_EFFECT if getattr(self, name) is not None]
        if idle:
            logger.warning("%s have no effect on FusionChatModel: set them on its models.", idle)
        if "output_version" in self.model_fields_set:
            update = {"output_version": self.output_version}
            self.models = {name: model.model_copy(update=update) for name, model in self.models.items()}
        return self

    @property
    def _llm_type(self) -> str:
        return _MODEL_NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        candidates = [candidate.id for candidate in self.pipeline.router.candidates]
        return {"candidates": candidates, "models": sorted(self.models)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "fusion"
        params.setdefault("ls_model_name", _MODEL_NAME)
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return common_profile([model.profile for model in self.models.values()])

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What `config["configurable"]` may hold: `fusion_route` and `fusion_policy`."""
        return [*super().config_specs, *CONFIG_SPECS]

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, for the chosen model to format its own way.

        Args:
            tools: The tools, kept as they are.
            tool_choice: Passed on as it is.
            **kwargs: Passed on as they are.

        Returns:
            The router with tools; it chooses among candidates that declare the capability `"tools"`.
        """
        arguments = kwargs if tool_choice is None else {"tool_choice": tool_choice, **kwargs}
        return self.bind(
            route_binding=RouteBinding(method="bind_tools", subject=list(tools), arguments=arguments)
        )

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Ask for output of a schema, by the chosen model's own method.

        Args:
            schema: The schema, kept as it is.
            include_raw: Whether to return a dict of the message, the parsed output and the parsing error.
            **kwargs: Passed on as they are.

        Returns:
            The router with an output schema; it chooses among candidates that declare the capability
            `"structured_output"`, or `"tools"` for `method="function_calling"`.
        """
        arguments = {"include_raw": True, **kwargs} if include_raw else kwargs
        binding = RouteBinding(method="with_structured_output", subject=schema, arguments=arguments)
        return RunnableBinding(
            bound=cast("Runnable[LanguageModelInput, Any]", self),
            kwargs={"route_binding": binding},
            custom_output_type=schema if isinstance(schema, type) and not include_raw else dict,
        )

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Let the chosen model answer.

        Args:
            input: A text, a prompt value or messages.
            config: The run's config; `configurable` may hold `fusion_route` and `fusion_policy`.
            stop: Texts at which the answer ends.
            **kwargs: Passed to the chosen model.

        Returns:
            The model's own message, with the decision in `response_metadata["fusion"]`.

        Raises:
            EmptyQueryError: If the last user message has no text.
            NoEligibleCandidateError: If policy and bound tools exclude every candidate.
            UnknownCandidateError: If a pinned or allowed candidate is unknown, or has no model here.
            InvalidPolicyError: If `config` or `kwargs` hold what cannot be followed.
            LogStoreError: If the answer cannot be recorded.
        """
        own = with_own_settings(self, config)
        return self._call_with_config(cast("Any", self._runner.invoke), input, own, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Let the chosen model answer by its own async method; otherwise as `invoke`."""
        own = with_own_settings(self, config)
        return await self._acall_with_config(
            cast("Any", self._runner.ainvoke), input, own, stop=stop, **kwargs
        )

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the chosen model's answer; the last chunk carries the decision. Otherwise as `invoke`."""
        if self._is_streaming_off(kwargs):
            yield cast("AIMessageChunk", self.invoke(input, config, stop=stop, **kwargs))
            return
        own = with_own_settings(self, config)
        chunks = self._transform_stream_with_config(
            iter([input]), cast("Any", self._runner.stream), own, stop=stop, **kwargs
        )
        yield from cast("Iterator[AIMessageChunk]", chunks)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream the chosen model's answer by its own async method; otherwise as `stream`."""
        if self._is_streaming_off(kwargs):
            yield cast("AIMessageChunk", await self.ainvoke(input, config, stop=stop, **kwargs))
            return
        own = with_own_settings(self, config)
        chunks = self._atransform_stream_with_config(
            _once(input), cast("Any", self._runner.astream), own, stop=stop, **kwargs
        )
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", chunks)) as open_chunks:
            async for chunk in open_chunks:
                yield chunk

    def stream_events(  # type: ignore[override]  # the framework overloads it by version
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[StreamEvent] | ChatModelStream:
        """Stream events; `version="v3"` gives the chosen model's, the final one with the decision."""
        if version != "v3":
            return super().stream_events(input, config, version=version, stop=stop, **kwargs)
        from langchain_fusion._event_stream import RoutedStream  # noqa: PLC0415  # absent from old cores

        own = with_own_settings(self, config)
        events = self._transform_stream_with_config(
            iter([input]), cast("Any", self._runner.events), own, stop=stop, **kwargs
        )
        return RoutedStream(cast("Any", events))

    def astream_events(  # type: ignore[override]  # the framework overloads it by version
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[StreamEvent] | Awaitable[AsyncChatModelStream]:
        """Stream events asynchronously; otherwise as `stream_events`."""
        if version != "v3":
            return super().astream_events(input, config, version=version, stop=stop, **kwargs)
        return self._astream_protocol_events(input, config, stop=stop, **kwargs)

    async def _astream_protocol_events(
        self, input: LanguageModelInput, config: RunnableConfig | None, **kwargs: Any
    ) -> AsyncChatModelStream:
        from langchain_fusion._event_stream import AsyncRoutedStream  # noqa: PLC0415  # as above

        own = with_own_settings(self, config)
        events = self._atransform_stream_with_config(
            _once(input), cast("Any", self._runner.aevents), own, **kwargs
        )
        return AsyncRoutedStream(cast("Any", events))

    # Its methods are cast to Any where they are handed over: the framework's helpers call a function with the
    # config if it asks for one, but their annotations know only functions that ask for the run manager too.
    @property
    def _runner(self) -> RouteRunner:
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": self.stop}
        return RouteRunner(
            planner=self._planner,
            options={name: value for name, value in options.items() if value is not None},
        )

    @property
    def _planner(self) -> RoutePlanner:
        policy = self.policy or self.pipeline.policy
        return RoutePlanner(pipeline=self.pipeline, models=self.models, policy=policy)

    def _is_streaming_off(self, kwargs: Mapping[str, Any]) -> bool:
        binding = kwargs.get("route_binding")
        has_tools = isinstance(binding, RouteBinding) and binding.method == "bind_tools"
        is_disabled = has_tools if self.disable_streaming == "tool_calling" else self.disable_streaming
        return is_disabled or self.streaming is False


async def _once(value: LanguageModelInput) -> AsyncIterator[LanguageModelInput]:
    yield value
