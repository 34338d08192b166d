"""The router as agent middleware: every turn of an agent goes to the model that should answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from langchain.agents import AgentState
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import ensure_config

from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from langchain_fusion._convert import begun_by
from langchain_fusion._overrides import CallOverrides
from langchain_fusion._route_planner import CallRequest, RoutePlanner, check_models, refuse_model_option
from langchain_fusion._routed_call import PlannedCall, arecorded, recorded, routing_metadata
from langchain_fusion._run_watch import RunsWatch

__all__ = ["FusionModelMiddleware"]

# Where a step's copy of the state keeps the model that the step began with; it is not written back.
_FIRST_MODEL = "fusion_first_model"


class FusionModelMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Lets a router choose the model of an agent's calls, and records what came of them.

    A turn is routed once: who answered the last user message with a tool call also sees the tool's result,
    since a model is easily confused by another's half-done work. The mark of the decision on the answer
    (`response_metadata["fusion"]`, with the actual cost) says who that is, so it holds across threads,
    checkpoints and processes. The next user message is routed anew; so is a turn whose candidate the policy
    no longer lets go on.

    The chosen model takes the place of the agent's own, which is never called: middleware further inside sees
    the native model, and tools and structured output are bound to it. With tools, or a schema that may be
    asked for as a tool, only candidates that declare the capability `"tools"` are eligible; with a
    `ProviderStrategy` those that declare `"structured_output"`. A prompt mode is applied to the call; the
    agent's messages stay as they are.

    One run can bring its own `fusion_policy` or pin a `fusion_route` through `config["configurable"]`, as for
    `FusionChatModel`; a pinned route is not checked for capabilities. Every model run is recorded if the
    pipeline has a store, failed ones too, under its run id.

    `ModelFallbackMiddleware` works on either side, and so does `ModelRetryMiddleware`: where an outer
    middleware asks again with another model, that model is called as it is, without being routed or recorded.
    Another model means another object. So give an outer `ModelFallbackMiddleware` a model object of its own,
    not the agent's: the same object cannot be told from a retry. An outer middleware that makes a new object
    for every attempt replaces the model, even if by an equal one.

    What LangChain's own middleware further inside asks the chosen model for itself, such as
    `LLMToolSelectorMiddleware`, is not recorded: LangChain marks such runs (`lc_source` in their metadata). A
    custom middleware that calls `request.model` itself sets no such mark, and its runs are recorded.

    The chosen model is a shallow copy for each call: what a model notes on itself meanwhile is not kept.

    Args:
        pipeline: Router, policy, prices and log store.
        models: Ready models by `Candidate.model`; prompt modes of one model share it.
        policy: Replaces the pipeline's policy. None keeps it.

    Raises:
        UnknownCandidateError: If a candidate that the policy can choose has no model.

    Example:
        ```python
        models = {"gpt-5": ChatOpenAI(model="gpt-5"), "qwen3": ChatOllama(model="qwen3")}
        routing = FusionModelMiddleware(pipeline, models=models)
        agent = create_agent(models["qwen3"], tools=[search], middleware=[routing])

        state = agent.invoke({"messages": [HumanMessage("Who wrote Middlemarch?")]})
        state["messages"][-1].response_metadata["fusion"]["candidate"]
        ```
    """

    def __init__(
        self,
        pipeline: FusionPipeline,
        *,
        models: Mapping[str, BaseChatModel],
        policy: RoutingPolicy | None = None,
    ) -> None:
        super().__init__()
        planner = RoutePlanner(pipeline=pipeline, models=models, policy=policy or pipeline.policy)
        check_models(models, candidates=pipeline.router.candidates, policy=planner.policy)
        self._planner = planner

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Make a call of the agent on the model that the router chooses.

        Args:
            request: What the agent asks for.
            handler: Makes the call.

        Returns:
            The response, the answer marked with the decision.

        Raises:
            EmptyQueryError: If the last user message has no text.
            NoEligibleCandidateError: If policy and tools exclude every candidate.
            UnknownCandidateError: If a pinned or allowed candidate is unknown, or has no model here.
            InvalidPolicyError: If the config or the model settings hold what cannot be followed.
            LogStoreError: If the answer cannot be recorded.
        """
        if _is_replaced(request):
            return handler(request)
        call, watch = self._planner.plan(_call_request(request)), RunsWatch()
        with recorded(self._planner.pipeline, call=call, watch=watch):
            response = handler(self._routed(request, call=call, watch=watch))
        return self._marked(response, call=call, watch=watch)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Make a call without blocking the event loop; otherwise as `wrap_model_call`."""
        if _is_replaced(request):
            return await handler(request)
        call, watch = await self._planner.aplan(_call_request(request)), RunsWatch()
        async with arecorded(self._planner.pipeline, call=call, watch=watch):
            response = await handler(self._routed(request, call=call, watch=watch))
        return self._marked(response, call=call, watch=watch)

    def _routed(
        self, request: ModelRequest[Any], *, call: PlannedCall, watch: RunsWatch
    ) -> ModelRequest[Any]:
        routing = routing_metadata(self._planner.pipeline, plan=call.plan)
        model = _watched(call.model, watch=watch, routing=routing)
        n_system = len(call.messages) - len(request.messages)
        return request.override(model=model, messages=cast("Any", call.messages[n_system:]))

    def _marked(
        self, response: ModelResponse[Any], *, call: PlannedCall, watch: RunsWatch
    ) -> ModelResponse[Any]:
        """Mark the chosen model's answers; a fallback's or an inner middleware's own are not its."""
        runs = {run.message.id: run for run in watch.runs if run.message is not None}
        result = [
            call.annotated(message, run=runs[message.id], pipeline=self._planner.pipeline)
            if message.id in runs
            else message
            for message in response.result
        ]
        return replace(response, result=result)


def _is_replaced(request: ModelRequest[Any]) -> bool:
    """Whether an outer middleware asks again within the same step, with another model than at first."""
    # The one object that all attempts of a step share, and no other step does: nothing to clean up after it.
    step = cast("dict[str, Any]", request.state)
    first: BaseChatModel = step.setdefault(_FIRST_MODEL, request.model)
    return first is not request.model


def _call_request(request: ModelRequest[Any]) -> CallRequest:
    refuse_model_option(request.model_settings)
    system = [request.system_message] if request.system_message else []
    return CallRequest(
        messages=[*system, *request.messages],
        needed=_needed(request),
        overrides=CallOverrides.from_config(ensure_config()),
        begun_by=begun_by(request.messages),
    )


def _needed(request: ModelRequest[Any]) -> frozenset[str]:
    needed = {"tools"} if request.tools else set()
    if isinstance(request.response_format, ProviderStrategy):
        needed.add("structured_output")
    elif request.response_format is not None:
        needed.add(
            "tools"
        )  # what the agent asks for a schema with, unless the model's profile has a better way
    return frozenset(needed)


def _watched(model: BaseChatModel, *, watch: RunsWatch, routing: Mapping[str, Any]) -> BaseChatModel:
    """Return the model with a watch on its own runs, and with metadata that say who was chosen."""
    callbacks: list[BaseCallbackHandler] | BaseCallbackManager
    if isinstance(model.callbacks, BaseCallbackManager):
        callbacks = model.callbacks.copy()
        callbacks.add_handler(watch, inherit=False)
    else:
        callbacks = [*(model.callbacks or []), watch]
    metadata = {**(model.metadata or {}), **routing}
    return model.model_copy(update={"callbacks": callbacks, "metadata": metadata})
