"""A chat client as a LlamaIndex LLM, so that local models and students answer in LlamaIndex applications."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    DocumentBlock,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    VideoBlock,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from pydantic import Field

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.streaming import aread_stream, read_stream
from fusion_integrations.types import Completion, GenerationOptions, Message
from llamaindex_fusion._convert import to_core_messages

__all__ = ["ChatClientLLM"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, function: _Function, /) -> _Function: ...


# LlamaIndex leaves its decorators untyped; they keep the signature.
_chat_events = cast("_Decorator", llm_chat_callback())
_completion_events = cast("_Decorator", llm_completion_callback())


class ChatClientLLM(LLM):
    """A chat client as a LlamaIndex LLM: the demo's local models, a distilled student, a scripted stand-in.

    Async calls are async all the way down, and streams arrive as they are generated where the client can
    stream; other clients give their answer in one piece. Token counts are where LlamaIndex's own counters
    look, in `raw["usage"]`, and in `additional_kwargs`; of a stream, on its last response.

    Args:
        client: Who answers.
        context_window: Tokens of prompt and answer together, for LlamaIndex to fit its prompts into.
        options: How to generate; None leaves it to the client. Each call may replace single fields with the
            keyword arguments `max_tokens`, `temperature`, `stop` and `seed`.
        **kwargs: LlamaIndex's own fields, for example `system_prompt` or `callback_manager`.

    Example:
        ```python
        llm = ChatClientLLM(smollm2_client(), context_window=2048)
        index.as_query_engine(llm=llm).query("Who wrote the report?")
        ```
    """

    client: ChatClient = Field(exclude=True, repr=False)
    context_window: int = DEFAULT_CONTEXT_WINDOW
    options: GenerationOptions | None = None

    def __init__(
        self,
        client: ChatClient,
        *,
        context_window: int = DEFAULT_CONTEXT_WINDOW,
        options: GenerationOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(client=client, context_window=context_window, options=options, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Return the name LlamaIndex files the component under."""
        return "ChatClientLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex needs to know of the model."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=(self.options or GenerationOptions()).max_tokens,
            is_chat_model=True,
            model_name=self.client.model,
        )

    @_chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return _chat_response(self._answer(_text_only(messages), self._options(kwargs)))

    @_completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a conversation of one user message."""
        return _completion_response(self._answer(self._prompt(prompt, formatted), self._options(kwargs)))

    @_chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece."""
        steps = self._steps(_text_only(messages), self._options(kwargs))
        return _each(steps, _chat_response)

    @_completion_events
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece."""
        steps = self._steps(self._prompt(prompt, formatted), self._options(kwargs))
        return _each(steps, _completion_response)

    @_chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        return _chat_response(await self._aanswer(_text_only(messages), self._options(kwargs)))

    @_completion_events
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt without blocking the event loop."""
        return _completion_response(
            await self._aanswer(self._prompt(prompt, formatted), self._options(kwargs))
        )

    @_chat_events
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        steps = self._asteps(_text_only(messages), self._options(kwargs))
        return _aeach(steps, _chat_response)

    @_completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt piece by piece without blocking the event loop."""
        steps = self._asteps(self._prompt(prompt, formatted), self._options(kwargs))
        return _aeach(steps, _completion_response)

    def _prompt(self, prompt: str, formatted: bool) -> tuple[Message, ...]:
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return (Message(role="user", content=prompt),)

    def _options(self, kwargs: Mapping[str, Any]) -> GenerationOptions | None:
        unknown = sorted(kwargs.keys() - {"max_tokens", "temperature", "stop", "seed"})
        if unknown:
            message = (
                f"ChatClientLLM does not know {unknown}: a chat client takes max_tokens, temperature, "
                "stop and seed."
            )
            raise InvalidPolicyError(message)
        if not kwargs:
            return self.options
        named = dict(kwargs)
        if "stop" in named:
            stop = named["stop"] or ()
            named["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        return replace(self.options or GenerationOptions(), **named)

    def _answer(self, messages: Sequence[Message], options: GenerationOptions | None) -> _Step:
        return _whole(self.client.complete(messages, options=options))

    async def _aanswer(self, messages: Sequence[Message], options: GenerationOptions | None) -> _Step:
        return _whole(await self.client.acomplete(messages, options=options))

    def _steps(
        self, messages: Sequence[Message], options: GenerationOptions | None
    ) -> Generator[_Step, None, None]:
        if not isinstance(self.client, StreamingChatClient):
            yield replace(whole := self._answer(messages, options), delta=whole.text)
            return
        with contextlib.closing(read_stream(self.client.stream(messages, options=options))) as items:
            text = ""
            for item in items:
                step = _next_step(text, item)
                text = step.text
                yield step

    async def _asteps(
        self, messages: Sequence[Message], options: GenerationOptions | None
    ) -> AsyncGenerator[_Step, None]:
        if not isinstance(self.client, StreamingChatClient):
            yield replace(whole := await self._aanswer(messages, options), delta=whole.text)
            return
        async with contextlib.aclosing(aread_stream(self.client.stream(messages, options=options))) as items:
            text = ""
            async for item in items:
                step = _next_step(text, item)
                text = step.text
                yield step


@dataclass(frozen=True, kw_only=True)
class _Step:
    """An answer as far as it is given: its text, the newest piece, and at the end what it took."""

    text: str
    delta: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


def _chat_response(step: _Step) -> ChatResponse:
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=step.text),
        delta=step.delta,
        raw=step.raw,
        additional_kwargs=dict(step.raw.get("usage", {})),
    )


def _completion_response(step: _Step) -> CompletionResponse:
    return CompletionResponse(
        text=step.text,
        delta=step.delta,
        raw=step.raw,
        additional_kwargs=dict(step.raw.get("usage", {})),
    )


_Response = TypeVar("_Response", ChatResponse, CompletionResponse)


def _each(
    steps: Generator[_Step, None, None], respond: Callable[[_Step], _Response]
) -> Generator[_Response, None, None]:
    with contextlib.closing(steps):
        for step in steps:
            yield respond(step)


async def _aeach(
    steps: AsyncGenerator[_Step, None], respond: Callable[[_Step], _Response]
) -> AsyncGenerator[_Response, None]:
    async with contextlib.aclosing(steps):
        async for step in steps:
            yield respond(step)


def _next_step(text: str, item: str | Completion) -> _Step:
    """Return the step after the text so far: one more piece, or the end, which adds what the answer took."""
    if isinstance(item, Completion):
        return replace(_whole(item), delta="")
    return _Step(text=text + item, delta=item)


def _whole(completion: Completion) -> _Step:
    counts = {"prompt_tokens": completion.input_tokens, "completion_tokens": completion.output_tokens}
    usage = {name: count for name, count in counts.items() if count is not None}
    if len(usage) == len(counts):
        usage["total_tokens"] = sum(usage.values())
    raw: dict[str, Any] = {"model": completion.model, "finish_reason": completion.finish_reason}
    return _Step(text=completion.text, raw=raw | ({"usage": usage} if usage else {}))


def _text_only(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Convert messages, refusing to answer as if an image had not been there."""
    for message in messages:
        for block in message.blocks:
            if isinstance(block, ImageBlock | AudioBlock | VideoBlock | DocumentBlock):
                reason = (
                    f"A chat client takes text only, but a message holds a '{block.block_type}' block. "
                    "Route such messages to another LLM: RoutingPolicy(required_capabilities=...)."
                )
                raise InvalidPolicyError(reason)
    return to_core_messages(messages)
