"""Tools for models that know only text: described in the prompt, and their calls read from the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool

from fusion_integrations.errors import CandidateCallError
from langchain_fusion._tool_text import OfferedTools, ToolLike, as_text, tools_prompt
from langchain_fusion.clients import ChatClientModel

__all__ = ["PromptedToolsChatModel"]


class PromptedToolsChatModel(ChatClientModel):
    """A chat client as a chat model with tools, though the client knows only text.

    The system message describes the tools and asks for calls of the form
    `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. How well that works is up to the model: small
    ones often get it wrong. So an answer is taken by its word:

    - A call is valid only if it is exactly of that form, names a tool that was offered, and its arguments fit
      the tool's schema without conversion. It becomes one of the message's `tool_calls`, the rest its content.
    - Anything else after the opening tag is one of the message's `invalid_tool_calls`, with the reason, and
      stays in the content. An agent that gets no valid call ends there, with what the model really said.
    - A call written in any other way is text.

    Earlier calls and results are written as text too, in assistant and user messages. What a tool returned
    stands between tags that it cannot close; models may still follow instructions in it.

    With tools bound, an answer is never streamed: whether it is a call shows only at its end. `stream` then
    gives it as one message. Without tools it is a `ChatClientModel`.

    A router asks for the capability `"tools"` when tools are bound. If you accept what is said above, declare
    it on the candidates of this model: `Candidate(..., capabilities=frozenset({"tools"}))`.

    Attributes:
        disable_streaming: True streams nothing; `"tool_calling"` streams while no tools are bound.

    Example:
        ```python
        model = PromptedToolsChatModel(client=client, temperature=0)
        agent = create_agent(model, tools=[search])
        state = agent.invoke({"messages": [HumanMessage("Who wrote Middlemarch?")]})
        state["messages"][-1].invalid_tool_calls
        ```
    """

    # Chunks cannot say that a call is invalid: LangChain reads it again when it adds them, repairs it,
    # and takes it for valid. So False is no choice here.
    disable_streaming: Literal[True, "tool_calling"] = "tool_calling"

    @property
    def _llm_type(self) -> str:
        return "fusion-prompted-tools"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return super()._identifying_params | {"tools_prompt": tools_prompt()}

    def bind_tools(
        self, tools: Sequence[ToolLike], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, to be described in the prompt.

        A text model cannot be made to call a tool. A forced choice is asked for in the prompt and checked: an
        answer without such a call raises `CandidateCallError`. So does structured output, which forces one.

        Args:
            tools: Whatever LangChain takes for a tool.
            tool_choice: None or `"auto"` leaves it to the model; `"any"` asks for a call; a name offers that
                tool only and asks for a call.
            **kwargs: More settings for each call.

        Returns:
            The model with the tools bound.

        Raises:
            InvalidPolicyError: If the tools or the choice cannot be used.
            MissingDependencyError: If jsonschema is not installed.
        """
        OfferedTools.of(tools, choice=tool_choice)  # say now what is wrong with them
        converted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=converted, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[ToolLike] = (),
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        offered = _offered(tools, tool_choice)
        result = super()._generate(_prompted(messages, offered), stop, run_manager, **kwargs)
        return result if offered is None else self._read(result, offered)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[ToolLike] = (),
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        offered = _offered(tools, tool_choice)
        result = await super()._agenerate(_prompted(messages, offered), stop, run_manager, **kwargs)
        return result if offered is None else self._read(result, offered)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        return super()._stream(as_text(messages), stop, run_manager, **kwargs)

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        return super()._astream(as_text(messages), stop, run_manager, **kwargs)

    def _read(self, result: ChatResult, offered: OfferedTools) -> ChatResult:
        message = result.generations[0].message
        answer = offered.read(str(message.text))
        if offered.is_required and not answer.calls:
            error = (
                f"Model '{self.client.model}' was asked to call one of the tools {list(offered.functions)}, "
                f"but answered: {message.text!r}"
            )
            raise CandidateCallError(error)
        update = {
            "content": answer.text,
            "tool_calls": answer.calls,
            "invalid_tool_calls": answer.invalid,
        }
        return ChatResult(generations=[ChatGeneration(message=message.model_copy(update=update))])


def _offered(tools: Sequence[ToolLike], choice: str | None) -> OfferedTools | None:
    return OfferedTools.of(tools, choice=choice) if tools or choice else None


def _prompted(messages: Sequence[BaseMessage], offered: OfferedTools | None) -> list[BaseMessage]:
    written = as_text(messages)
    return written if offered is None else offered.offer(written)
