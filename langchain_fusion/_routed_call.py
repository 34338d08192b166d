"""One routed call as the chosen model sees it: what it is asked, what came of it, and its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.types import ABANDONED, Completion
from langchain_fusion._convert import is_cached, to_completion
from langchain_fusion._run_watch import RunsWatch, RunWatch

__all__ = [
    "RECORDED_KEY",
    "PlannedCall",
    "RouteBinding",
    "RoutedCall",
    "arecorded",
    "recorded",
    "routing_metadata",
]

# In the metadata of a model's run: its pipeline records it, so that a log callback handler need not.
RECORDED_KEY = "fusion_recorded"


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


@dataclass(frozen=True, kw_only=True)
class PlannedCall:
    """Who is asked what, and how the outcome reads.

    Attributes:
        plan: Who answers, and why.
        model: The chosen model.
        messages: What it is asked, prompt mode applied.
        session_id: What groups the calls of one conversation.
    """

    plan: FusionPlan
    model: BaseChatModel
    messages: list[BaseMessage]
    session_id: str | None

    def outcome(self, run: RunWatch, *, error: BaseException | None) -> Completion | BaseException | None:
        """Return what to record of a run: an answer, an error, or None for an answer from the cache.

        Args:
            run: The model's run, which started.
            error: What ended the call around it; None if it ended well.

        Returns:
            The answer also where only what follows it failed, such as a parser. A run that never ended in a
            call that ended well was given up by whoever made it, to answer in its place for example.
        """
        if run.message is not None:
            return None if is_cached(run.message) else self._answered(run.message, run)
        failure = error if run.error is None else run.error
        if failure is None or isinstance(failure, GeneratorExit | asyncio.CancelledError):
            return Completion(
                text=run.text,
                model=self.plan.candidate.model,
                finish_reason=ABANDONED,
                latency_s=run.latency_s,
            )
        return failure

    def annotated(self, answer: Any, *, run: RunWatch, pipeline: FusionPipeline) -> Any:
        """Return an answer with the decision in `response_metadata["fusion"]`; other output as it is.

        The message is copied: the model's own trace and the cache hold the original.
        """
        if isinstance(answer, dict) and isinstance(answer.get("raw"), AIMessage):
            return {**answer, "raw": self.annotated(answer["raw"], run=run, pipeline=pipeline)}
        if not isinstance(answer, AIMessage):
            return answer
        metadata = {**answer.response_metadata, "fusion": self.decision_json(run=run, pipeline=pipeline)}
        return answer.model_copy(update={"response_metadata": metadata})

    def decision_json(self, *, run: RunWatch, pipeline: FusionPipeline) -> dict[str, Any]:
        """Return the decision with the run's actual cost, None if unknown."""
        message = run.message
        if message is None:
            cost = None
        else:
            cost = 0.0 if is_cached(message) else pipeline.cost_usd(self.plan, self._answered(message, run))
        return {**self.plan.decision.to_json(), "cost_usd": cost}

    def _answered(self, message: BaseMessage, run: RunWatch) -> Completion:
        return to_completion(message, model=self.plan.candidate.model, latency_s=run.latency_s)


@dataclass(frozen=True, kw_only=True)
class RoutedCall(PlannedCall):
    """A planned call, ready to be made.

    Attributes:
        runnable: The chosen model with what was bound to the router.
        config: The run's config, as a child of the router's run.
        options: Keyword arguments of the model.
        watch: Sees the model's run.
    """

    runnable: Runnable[LanguageModelInput, Any]
    config: RunnableConfig
    options: Mapping[str, Any]
    watch: RunWatch


def routing_metadata(pipeline: FusionPipeline, *, plan: FusionPlan) -> dict[str, Any]:
    """Return what the metadata of a routed model's run says: who was chosen, and whether that is recorded."""
    return {"fusion_candidate": plan.candidate.id, RECORDED_KEY: pipeline.store is not None}


@contextmanager
def recorded(pipeline: FusionPipeline, *, call: PlannedCall, watch: RunWatch | RunsWatch) -> Iterator[None]:
    """Record what comes of a call made inside, be it an answer, an error, or a reader who left.

    Args:
        pipeline: Where to record.
        call: The call.
        watch: Sees the model's runs.

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
            _record(pipeline, call, watch, error)
        except Exception as failure:  # the call's own error matters more
            error.add_note(f"This call could not be recorded either: {failure}")
        raise
    _record(pipeline, call, watch, None)


@asynccontextmanager
async def arecorded(
    pipeline: FusionPipeline, *, call: PlannedCall, watch: RunWatch | RunsWatch
) -> AsyncIterator[None]:
    """Record without blocking the event loop; otherwise as `recorded`."""
    try:
        yield
    except BaseException as error:
        try:
            await _arecord(pipeline, call, watch, error)
        except Exception as failure:  # the call's own error matters more
            error.add_note(f"This call could not be recorded either: {failure}")
        raise
    await _arecord(pipeline, call, watch, None)


def _record(
    pipeline: FusionPipeline, call: PlannedCall, watch: RunWatch | RunsWatch, error: BaseException | None
) -> None:
    for run_id, outcome in _outcomes(pipeline, call, watch, error):
        pipeline.record(call.plan, outcome, run_id=run_id, session_id=call.session_id)


async def _arecord(
    pipeline: FusionPipeline, call: PlannedCall, watch: RunWatch | RunsWatch, error: BaseException | None
) -> None:
    for run_id, outcome in _outcomes(pipeline, call, watch, error):
        await pipeline.arecord(call.plan, outcome, run_id=run_id, session_id=call.session_id)


def _outcomes(
    pipeline: FusionPipeline, call: PlannedCall, watch: RunWatch | RunsWatch, error: BaseException | None
) -> list[tuple[str, Completion | BaseException]]:
    if pipeline.store is None and pipeline.budget is None:
        return []
    outcomes = [(str(run.run_id), call.outcome(run, error=error)) for run in watch.runs]
    return [(run_id, outcome) for run_id, outcome in outcomes if outcome is not None]
