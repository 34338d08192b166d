"""Convert between LlamaIndex's messages and the core's.

The core sees text only: it plans on it and logs it. Images, tool calls and the rest stay in LlamaIndex's own
messages, which go to the native LLM unchanged but for the prompt edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)

from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.prompts import PromptEdit
from fusion_integrations.types import Completion, Message, Role

__all__ = ["AnswerTally", "edit_last_user_message", "to_chat_messages", "to_core_messages"]

_ROLES: Mapping[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
    MessageRole.TOOL: "tool",
}

# LlamaIndex has no field for usage: each provider's integration leaves its own names in `additional_kwargs`
# or in the raw response (OpenAI style, Anthropic style, Gemini style, Bedrock style).
_INPUT_TOKENS = ("prompt_tokens", "input_tokens", "prompt_token_count", "inputTokens")
_OUTPUT_TOKENS = ("completion_tokens", "output_tokens", "candidates_token_count", "outputTokens")
_FINISH_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason")


def to_core_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Return the messages' text; text blocks are joined with line breaks, other blocks add none."""
    return tuple(Message(role=_ROLES[message.role], content=message.content or "") for message in messages)


def to_chat_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Return core messages as LlamaIndex's."""
    return [ChatMessage(role=MessageRole(message.role), content=message.content) for message in messages]


def edit_last_user_message(messages: Sequence[ChatMessage], edit: PromptEdit) -> list[ChatMessage]:
    """Put the edit around the text of the last user message.

    Args:
        messages: The conversation, oldest first; left as it is.
        edit: What to put before the first and after the last text block.

    Returns:
        A conversation of the same length. All blocks that are not text are kept, in their places.

    Raises:
        EmptyQueryError: If there is no user message, or the last one has no text block.
    """
    edited = list(messages)
    if not (edit.user_prefix or edit.user_suffix):
        return edited
    last = next((i for i in reversed(range(len(edited))) if edited[i].role == MessageRole.USER), None)
    blocks = [] if last is None else list(edited[last].blocks)
    texts = [i for i, block in enumerate(blocks) if isinstance(block, TextBlock)]
    if last is None or not texts:
        raise EmptyQueryError("The conversation has no user message with text to apply a prompt mode to.")
    for i, before, after in ((texts[0], edit.user_prefix, ""), (texts[-1], "", edit.user_suffix)):
        block = blocks[i]
        assert isinstance(block, TextBlock)  # noqa: S101  # `texts` holds nothing else; tells the type checker
        blocks[i] = block.model_copy(update={"text": f"{before}{block.text}{after}"})
    edited[last] = edited[last].model_copy(update={"blocks": blocks})
    return edited


class AnswerTally:
    """What is known of an answer so far: add its response, or the responses of its stream one by one.

    Args:
        model: Name of the model that answers.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._text = ""
        self._input_tokens: int | None = None
        self._output_tokens: int | None = None
        self._finish_reason: str | None = None

    def add(self, response: ChatResponse | CompletionResponse) -> None:
        """Take note of a response; in a stream its text holds that of the responses before it."""
        message = response.message if isinstance(response, ChatResponse) else None
        text = message.content if message is not None else getattr(response, "text", "")
        # The last response of a stream may carry nothing but usage.
        self._text = text or self._text
        self._input_tokens = _find_count(response, _INPUT_TOKENS, default=self._input_tokens)
        self._output_tokens = _find_count(response, _OUTPUT_TOKENS, default=self._output_tokens)
        self._finish_reason = _find_finish_reason(response) or self._finish_reason

    def completion(self, *, latency_s: float, finish_reason: str | None = None) -> Completion:
        """Return the answer as the core knows it.

        Args:
            latency_s: Wall-clock seconds it took.
            finish_reason: Replaces the one the model gave.

        Returns:
            The answer. Counts of which the integration says nothing are None; such a finish reason is
            `"unknown"`.
        """
        return Completion(
            text=self._text,
            model=self._model,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            finish_reason=finish_reason or self._finish_reason or "unknown",
            latency_s=latency_s,
        )


def _find_count(
    response: ChatResponse | CompletionResponse, names: Sequence[str], *, default: int | None
) -> int | None:
    for holder in _usage_holders(response):
        for name in names:
            value = _get(holder, name)
            if isinstance(value, int) and value >= 0:
                return value
    return default


def _find_finish_reason(response: ChatResponse | CompletionResponse) -> str | None:
    for holder in (*_usage_holders(response), *_choices(response.raw)):
        for name in _FINISH_REASONS:
            value = _get(holder, name)
            if isinstance(value, str) and value:
                return str(value)
    if isinstance(response, ChatResponse) and any(
        isinstance(block, ToolCallBlock) for block in response.message.blocks
    ):
        return "tool_calls"
    return None


def _usage_holders(response: ChatResponse | CompletionResponse) -> Iterator[Any]:
    yield response.additional_kwargs
    if isinstance(response, ChatResponse):
        yield response.message.additional_kwargs
    for name in ("usage", "usage_metadata"):
        yield _get(response.raw, name)
    yield response.raw


def _choices(raw: Any) -> list[Any]:
    choices = _get(raw, "choices")
    return choices[:1] if isinstance(choices, list) else []


def _get(holder: Any, name: str) -> Any:
    """Read a field of what may be a dictionary, a pydantic model, another object or None."""
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
