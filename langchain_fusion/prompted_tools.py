"""Tools for models that know only text: described in the prompt, and their calls read from the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from fusion_integrations.errors import CandidateCallError
from langchain_fusion._convert import to_core
from langchain_fusion._tool_text import OfferedTools, ToolLike, as_text, tools_prompt
from langchain_fusion.clients import ChatClientModel

__all__ = ["PromptedToolsChatModel"]


class PromptedToolsChatModel(ChatClientModel):
    """A chat client as a chat model with tools, though the client knows only text.

    The system message describes the tools and asks for calls of the form
    `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. How well that works is up to the model: small
    ones often get it wrong. So an answer is taken by its word:

    - A call is valid only if it is exactly of that form, names a tool that was offered, and its arguments fit
      the schema as they are, with none besides. It becomes one of the message's `tool_calls`;
      what else was said stays in the content.
    - Anything else after the opening tag becomes one of the message's `invalid_tool_calls`, with the reason,
      and stays in the content. An agent that gets no valid call ends there, with what the model really said.
    - A call written in any other way is text.

    Earlier calls and results are written as text too, in assistant and user messages. What a tool returned
    stands between tags that it cannot close; models may still follow instructions in it.

    With tools bound, an answer is never streamed, since whether it is a call shows only at its end: `stream`
    gives it in one piece. (Where LangChain adds chunks, an invalid call stays invalid but loses its reason.)
    Without tools this is a `ChatClientModel`.

    A router asks for the capability `"tools"` when tools are bound. If you accept what is said above, declare
    it on the candidates of this model: `Candidate(..., capabilities=frozenset({"tools"}))`.

    Attributes:
        examples: Turns shown before every conversation while tools are bound, such as questions and the calls
            that they lead to. Small models hardly call without.

    Example:
        ```python
        model = PromptedToolsChatModel(client=client, temperature=0)
        agent = create_agent(model, tools=[search])
        state = agent.invoke({"messages": [HumanMessage("Who wrote Middlemarch?")]})
        state["messages"][-1].invalid_tool_calls
        ```
    """

    examples: list[BaseMessage] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fusion-prompted-tools"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        examples = [[message.role, message.content] for message in to_core(as_text(self.examples))]
        return super()._identifying_params | {"tools_prompt": tools_prompt(), "examples": examples}

    def bind_tools(
        self, tools: Sequence[ToolLike], *, tool_choice: str | bool | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, to be described in the prompt.

        A text model cannot be made to call a tool. A forced choice is asked for in the prompt and checked: an
        answer without such a call raises `CandidateCallError`. So does structured output, which forces one.

        Args:
            tools: Whatever LangChain takes for a tool.
            tool_choice: None or `"auto"` leaves it to the model; `"any"`, `"required"` or True asks for a
                call; a name offers that tool only and asks for a call.
            **kwargs: More settings for each call.

        Returns:
            The model with the tools bound.

        Raises:
            InvalidPolicyError: If the tools or the choice cannot be used.
            MissingDependencyError: If jsonschema is not installed.
        """
        OfferedTools.of(tools, choice=tool_choice)  # says now what is wrong with them
        if not tools:
            return self.bind(**kwargs)
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[ToolLike] = (),
        tool_choice: str | bool | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        offered = OfferedTools.of(tools, choice=tool_choice)
        result = super()._generate(self._prompt(messages, offered), stop, run_manager, **kwargs)
        return self._read(result, offered)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[ToolLike] = (),
        tool_choice: str | bool | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        offered = OfferedTools.of(tools, choice=tool_choice)
        result = await super()._agenerate(self._prompt(messages, offered), stop, run_manager, **kwargs)
        return self._read(result, offered)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if kwargs.get("tools"):
            return iter(_chunks(self._generate(messages, stop, run_manager, **kwargs)))
        return super()._stream(as_text(messages), stop, run_manager, **kwargs)

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if kwargs.get("tools"):
            return self._achunks(messages, stop, run_manager, **kwargs)
        return super()._astream(as_text(messages), stop, run_manager, **kwargs)

    async def _achunks(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(await self._agenerate(*args, **kwargs)):
            yield chunk

    def _prompt(self, messages: Sequence[BaseMessage], offered: OfferedTools) -> list[BaseMessage]:
        if not offered.functions:
            return as_text(messages)
        n_system = sum(isinstance(message, SystemMessage) for message in messages[:1])
        return offered.offer(as_text([*messages[:n_system], *self.examples, *messages[n_system:]]))

    def _read(self, result: ChatResult, offered: OfferedTools) -> ChatResult:
        if not offered.functions:
            return result
        message = result.generations[0].message
        answer = offered.read(str(message.text))
        if offered.is_required and not answer.calls:
            error = (
                f"Model '{self.client.model}' was asked to call one of the tools {offered.names}, but "
                f"answered: {message.text!r}"
            )
            raise CandidateCallError(error)
        calls = {"tool_calls": answer.calls, "invalid_tool_calls": answer.invalid}
        read = message.model_copy(update={"content": answer.text, **calls})
        return ChatResult(generations=[ChatGeneration(message=read)])


def _chunks(result: ChatResult) -> list[ChatGenerationChunk]:
    """Return a whole answer as a stream of its text, its calls and its end, each in a chunk of its own.

    LangChain's event streams miss invalid calls in a chunk that has text, or that is the last.
    """
    message = cast("AIMessage", result.generations[0].message)
    calls = {"tool_calls": message.tool_calls, "invalid_tool_calls": message.invalid_tool_calls}
    parts = [AIMessageChunk(content=message.content)] if message.content else []
    parts += [AIMessageChunk(content="", **calls)] if any(calls.values()) else []
    end = AIMessageChunk(
        content="",
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
    return [ChatGenerationChunk(message=part) for part in (*parts, end)]
