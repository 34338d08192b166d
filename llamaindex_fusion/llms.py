"""A LlamaIndex LLM that plans every call with the fusion pipeline and lets the chosen native LLM answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeGuard

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection, default_completion_to_prompt
from llama_index.core.tools.types import BaseTool
from pydantic import Field

from fusion_integrations.errors import InvalidPolicyError, NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Candidate
from llamaindex_fusion._calls import DECISION_KEY, PlannedCall
from llamaindex_fusion._convert import edit_last_user_message, to_core_messages

__all__ = ["FusionLLM"]

_TOOLS = "tools"


class FusionLLM(FunctionCallingLLM):
    """An LLM that is, for each query, the one the router expects most of.

    Every method plans, applies the prompt mode to the last user message, hands the call whole to the chosen
    native LLM, and records it under a fresh run id: answers, failures, and streams that nobody read to their
    end (finish reason `"abandoned"`). A response says in `additional_kwargs["fusion"]` who was chosen and
    why, the `run_id`, and the `cost_usd`; of a stream, the cost is there once it has ended.

    Tools go to candidates with the capability `"tools"` only. For LlamaIndex to treat this LLM as
    function calling, all candidates the policy can choose need it: give the agent a
    `policy=RoutingPolicy(required_capabilities=frozenset({"tools"}))`.

    LlamaIndex's LLM events, callbacks and token counts come from the native LLMs, once a call and with the
    real model's name; so set `callback_manager` on those. The events carry the tag `fusion_run_id`, and
    `fusion_recorded`: whether the pipeline has a store.

    Args:
        pipeline: Decides and records.
        llms: The native LLMs, by `Candidate.model`.
        policy: Replaces the pipeline's policy. Each call may bring its own with the keyword `policy`, or name
            the candidate to take with the keyword `route`; neither reaches the native LLM.
        **kwargs: LlamaIndex's own fields, for example `system_prompt` or `output_parser`.

    Raises:
        UnknownCandidateError: If a candidate that the policy can choose has no LLM.
        NoEligibleCandidateError: If the policy can choose nobody.

    Example:
        ```python
        from fusion_integrations.testing import ScriptedChatClient, tiny_pipeline
        from llamaindex_fusion import ChatClientLLM, FusionLLM

        names = ("tiny-math", "tiny-prose")
        llms = {name: ChatClientLLM(ScriptedChatClient(name)) for name in names}
        answer = FusionLLM(tiny_pipeline(), llms=llms).complete("What is 17 plus 24?")
        answer.additional_kwargs["fusion"]["candidate"]  # "calculator"
        ```
    """

    # The collaborators stay out of every serialisation: LLMs may hold credentials.
    pipeline: FusionPipeline = Field(exclude=True, repr=False)
    llms: dict[str, LLM] = Field(exclude=True, repr=False)
    policy: RoutingPolicy | None = Field(default=None, exclude=True, repr=False)

    def __init__(
        self,
        pipeline: FusionPipeline,
        *,
        llms: Mapping[str, LLM],
        policy: RoutingPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, llms=dict(llms), policy=policy, **kwargs)
        for candidate in self._reachable():
            self._llm_of(candidate)

    @classmethod
    def class_name(cls) -> str:
        """Return the name LlamaIndex files the component under."""
        return "FusionLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What holds for every LLM that the policy can choose."""
        candidates = self._reachable()
        all_metadata = [self._llm_of(candidate).metadata for candidate in candidates]
        system_roles = {metadata.system_role for metadata in all_metadata}
        return LLMMetadata(
            context_window=min(metadata.context_window for metadata in all_metadata),
            num_output=min(metadata.num_output for metadata in all_metadata),
            is_chat_model=all(metadata.is_chat_model for metadata in all_metadata),
            is_function_calling_model=all(
                _TOOLS in candidate.capabilities and _calls_functions(self._llm_of(candidate))
                for candidate in candidates
            ),
            model_name="fusion",
            system_role=system_roles.pop() if len(system_roles) == 1 else MessageRole.SYSTEM,
        )

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        call = self._begin(messages, kwargs)
        return call.run(lambda: call.llm.chat(call.messages, **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece."""
        call = self._begin(messages, kwargs)
        return call.stream(lambda: call.llm.stream_chat(call.messages, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        call = await self._abegin(messages, kwargs)
        return await call.arun(lambda: call.llm.achat(call.messages, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        call = await self._abegin(messages, kwargs)
        return await call.astream(lambda: call.llm.astream_chat(call.messages, **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt."""
        call = self._begin([_user(prompt)], kwargs)
        formatted = self._is_final(formatted)
        return call.run(lambda: call.llm.complete(_prompt(call), formatted=formatted, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Complete a prompt piece by piece."""
        call = self._begin([_user(prompt)], kwargs)
        formatted = self._is_final(formatted)
        return call.stream(lambda: call.llm.stream_complete(_prompt(call), formatted=formatted, **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt without blocking the event loop."""
        call = await self._abegin([_user(prompt)], kwargs)
        formatted = self._is_final(formatted)
        return await call.arun(lambda: call.llm.acomplete(_prompt(call), formatted=formatted, **kwargs))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Complete a prompt piece by piece without blocking the event loop."""
        call = await self._abegin([_user(prompt)], kwargs)
        formatted = self._is_final(formatted)
        return await call.astream(
            lambda: call.llm.astream_complete(_prompt(call), formatted=formatted, **kwargs)
        )

    def chat_with_tools(  # noqa: PLR0917  # LlamaIndex's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer with text or tool calls."""
        call = self._begin(_conversation(chat_history, user_msg), kwargs, _TOOLS)
        llm = _function_calling(call)
        return call.run(
            lambda: llm.chat_with_tools(
                tools,
                chat_history=call.messages,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                tool_required=tool_required,
                **kwargs,
            )
        )

    def stream_chat_with_tools(  # noqa: PLR0917  # LlamaIndex's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Answer with text or tool calls piece by piece."""
        call = self._begin(_conversation(chat_history, user_msg), kwargs, _TOOLS)
        llm = _function_calling(call)
        return call.stream(
            lambda: llm.stream_chat_with_tools(
                tools,
                chat_history=call.messages,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                tool_required=tool_required,
                **kwargs,
            )
        )

    async def achat_with_tools(  # noqa: PLR0917  # LlamaIndex's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer with text or tool calls without blocking the event loop."""
        call = await self._abegin(_conversation(chat_history, user_msg), kwargs, _TOOLS)
        llm = _function_calling(call)
        return await call.arun(
            lambda: llm.achat_with_tools(
                tools,
                chat_history=call.messages,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                tool_required=tool_required,
                **kwargs,
            )
        )

    async def astream_chat_with_tools(  # noqa: PLR0917  # LlamaIndex's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Answer with text or tool calls piece by piece without blocking the event loop."""
        call = await self._abegin(_conversation(chat_history, user_msg), kwargs, _TOOLS)
        llm = _function_calling(call)
        return await call.astream(
            lambda: llm.astream_chat_with_tools(
                tools,
                chat_history=call.messages,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                tool_required=tool_required,
                **kwargs,
            )
        )

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tool calls as the LLM that made them reads them.

        Args:
            response: A response of this LLM.
            error_on_no_tool_call: Whether a response without tool calls is an error.
            **kwargs: Passed on.

        Returns:
            The tool calls.

        Raises:
            UnknownCandidateError: If the response does not say which of the LLMs gave it.
        """
        mark = response.additional_kwargs.get(DECISION_KEY)
        if mark is None and not response.message.blocks and not error_on_no_tool_call:
            return []  # LlamaIndex's agents ask this of the empty response that stands for an empty stream
        model = mark["model"] if mark else ""
        llm = self.llms.get(model)
        if not isinstance(llm, FunctionCallingLLM):
            message = (
                f"The response names no function calling model of this FusionLLM (got {model!r} in "
                f"additional_kwargs['{DECISION_KEY}']['model']). Pass a response as this FusionLLM gave it."
            )
            raise UnknownCandidateError(message)
        return llm.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> NoReturn:
        message = (
            "FusionLLM hands tool calls whole to the chosen LLM, which prepares them. Call chat_with_tools."
        )
        raise NotImplementedError(message)

    def _begin(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], *capabilities: str
    ) -> PlannedCall:
        """Plan a call; what `kwargs` holds for the router is taken out of it."""
        wanted = kwargs.pop("policy", None), kwargs.pop("route", None)
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        return self._plan(messages, *wanted, *capabilities)

    async def _abegin(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], *capabilities: str
    ) -> PlannedCall:
        wanted = kwargs.pop("policy", None), kwargs.pop("route", None)
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        return await asyncio.to_thread(self._plan, messages, *wanted, *capabilities)

    def _plan(
        self,
        messages: Sequence[ChatMessage],
        policy: RoutingPolicy | None,
        route: str | None,
        *capabilities: str,
    ) -> PlannedCall:
        policy = policy or self._policy
        policy = replace(policy, required_capabilities=policy.required_capabilities.union(capabilities))
        plan = self.pipeline.plan(to_core_messages(messages), policy=policy)
        if route is not None:
            plan = self.pipeline.pin(plan, route)
        return PlannedCall(
            pipeline=self.pipeline,
            plan=plan,
            llm=self._llm_of(plan.candidate),
            messages=edit_last_user_message(messages, plan.prompt),
        )

    @property
    def _policy(self) -> RoutingPolicy:
        return self.policy or self.pipeline.policy

    def _reachable(self) -> list[Candidate]:
        """Return the candidates that the policy can choose, whatever the query."""
        policy = self._policy
        reachable = [
            candidate
            for candidate in self.pipeline.router.candidates
            if (policy.allowed is None or candidate.id in policy.allowed)
            and policy.required_capabilities <= candidate.capabilities
        ]
        if not reachable:
            raise NoEligibleCandidateError(f"The policy can choose no candidate: {policy}. Loosen it.")
        return reachable

    def _llm_of(self, candidate: Candidate) -> LLM:
        llm = self.llms.get(candidate.model)
        if llm is None:
            what = f"model '{candidate.model}'" if candidate.model else "a tool, which FusionSelector is for"
            message = (
                f"There is no LLM for candidate '{candidate.id}' ({what}), only for {sorted(self.llms)}. "
                "Pass it in `llms`, or leave the candidate out of RoutingPolicy(allowed=...)."
            )
            raise UnknownCandidateError(message)
        return llm

    def _is_final(self, formatted: bool) -> bool:
        """Tell whether a prompt is in its final form for the chosen LLM.

        LlamaIndex's `predict` says so of every prompt. But unless this LLM was given a prompt format, none
        was applied yet, and only the chosen LLM knows its own.
        """
        return formatted and self.completion_to_prompt is not default_completion_to_prompt


def _user(prompt: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=prompt)


def _prompt(call: PlannedCall) -> str:
    return call.messages[-1].content or ""


def _conversation(
    chat_history: Sequence[ChatMessage] | None, user_msg: str | ChatMessage | None
) -> list[ChatMessage]:
    last = _user(user_msg) if isinstance(user_msg, str) else user_msg
    return [*(chat_history or []), *([last] if last is not None else [])]


def _calls_functions(llm: LLM) -> TypeGuard[FunctionCallingLLM]:
    return isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model


def _function_calling(call: PlannedCall) -> FunctionCallingLLM:
    if _calls_functions(call.llm):
        return call.llm
    candidate = call.plan.candidate
    message = (
        f"Candidate '{candidate.id}' was to use tools, but its LLM '{call.llm.class_name()}' cannot call "
        "functions. Pass a function calling LLM for it, or take 'tools' out of its capabilities."
    )
    raise InvalidPolicyError(message)
