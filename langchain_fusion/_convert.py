"""Translate between LangChain's messages and the core's, in one place so that every component reads alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue

from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.prompts import PromptEdit
from fusion_integrations.types import Completion, Message, Role

__all__ = [
    "begun_by",
    "edit_last_user_message",
    "is_cached",
    "portable_messages",
    "reported_tokens",
    "to_completion",
    "to_core",
    "to_langchain",
    "to_messages",
]

# Names that providers give the reason why generation ended: OpenAI, Anthropic, Ollama, Bedrock.
_FINISH_KEYS = ("finish_reason", "stop_reason", "done_reason", "stopReason")

_CHAT_ROLES: dict[str, Role] = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "system",
    "function": "tool",
    "system": "system",
    "tool": "tool",
}


def to_messages(model_input: LanguageModelInput) -> list[BaseMessage]:
    """Return the messages of anything a LangChain chat model accepts; the list is the caller's own."""
    if isinstance(model_input, PromptValue):
        return model_input.to_messages()
    if isinstance(model_input, str):
        return [HumanMessage(model_input)]
    return convert_to_messages(model_input)


def to_core(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Return the text of a conversation; images, files and tool calls contribute none."""
    return tuple(Message(role=_role(message), content=str(message.text)) for message in messages)


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """Return a core conversation as LangChain messages.

    The core does not keep tool call ids, so a tool message gets the id `"unknown"`; providers that check ids
    refuse such a conversation.
    """
    return [_TO_LANGCHAIN[message.role](message.content) for message in messages]


_TO_LANGCHAIN: dict[Role, Callable[[str], BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
    "tool": lambda content: ToolMessage(content, tool_call_id="unknown"),
}


def to_completion(
    message: BaseMessage,
    *,
    model: str,
    latency_s: float | None = None,
    llm_output: Mapping[str, Any] | None = None,
) -> Completion:
    """Return a model's answer as the core logs and prices it.

    Args:
        message: The answer.
        model: Name to log it under.
        latency_s: Wall-clock seconds, if known.
        llm_output: What the model's result says besides its messages, if known.

    Returns:
        The completion; token counts are None where the model reported no usage.
    """
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    input_tokens, output_tokens = (
        (usage["input_tokens"], usage["output_tokens"])
        if usage
        else reported_tokens(message.response_metadata, llm_output)
    )
    reasons = (message.response_metadata.get(key) for key in _FINISH_KEYS)
    return Completion(
        text=str(message.text),
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        finish_reason=str(next((reason for reason in reasons if reason), "stop")),
        latency_s=latency_s,
    )


def reported_tokens(*reports: Mapping[str, Any] | None) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and answer by the first report with a `token_usage`, None if unknown."""
    usages = ((report or {}).get("token_usage") for report in reports)
    usage = next((usage for usage in usages if usage and isinstance(usage, Mapping)), {})
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def is_cached(message: BaseMessage) -> bool:
    """Whether the answer came from LangChain's cache, which marks it with a total cost of 0."""
    usage: Any = message.usage_metadata if isinstance(message, AIMessage) else None
    return bool(usage) and usage.get("total_cost") == 0


def begun_by(messages: Sequence[BaseMessage]) -> str | None:
    """Return the id of the candidate that has begun to answer the last user message, with a tool call say.

    Args:
        messages: The conversation, oldest first.

    Returns:
        What our routing mark on the newest answer after that message says; None if there is none.
    """
    for message in reversed(messages):
        if _role(message) == "user":
            return None
        decision = message.response_metadata.get("fusion") if isinstance(message, AIMessage) else None
        if decision:
            candidate_id: str | None = decision.get("candidate")
            return candidate_id
    return None


def edit_last_user_message(messages: Sequence[BaseMessage], edit: PromptEdit) -> list[BaseMessage]:
    """Put a prompt mode's text around the last user message; its images and other blocks stay as they are.

    Args:
        messages: The conversation, oldest first; left as it is.
        edit: What to put around the text.

    Returns:
        A conversation of the same length. Messages that need no edit are the same objects.

    Raises:
        EmptyQueryError: If no user message has text.
    """
    if not (edit.user_prefix or edit.user_suffix):
        return list(messages)
    last = next((i for i in reversed(range(len(messages))) if _role(messages[i]) == "user"), None)
    if last is None:
        raise EmptyQueryError("The conversation has no user message to apply a prompt mode to.")
    edited = messages[last].model_copy(update={"content": _edit_content(messages[last].content, edit)})
    return [*messages[:last], edited, *messages[last + 1 :]]


def portable_messages(messages: Sequence[BaseMessage], *, model: str) -> list[BaseMessage]:
    """Reduce turns that another routed model answered to what every provider reads: text and tool calls.

    Signed thinking blocks, reasoning items and the like are refused by a provider that did not make them.
    Turns without our routing mark are the application's own and stay as they are.

    Args:
        messages: The conversation, oldest first; left as it is.
        model: `Candidate.model` of the one that answers now.

    Returns:
        A conversation of the same length. Messages that need no change are the same objects.
    """
    return [_portable(message, model) for message in messages]


def _portable(message: BaseMessage, model: str) -> BaseMessage:
    decision = message.response_metadata.get("fusion") if isinstance(message, AIMessage) else None
    if not isinstance(message, AIMessage) or not decision or decision.get("model") == model:
        return message
    return AIMessage(
        content=str(message.text),
        name=message.name,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        response_metadata={"fusion": decision},
        usage_metadata=message.usage_metadata,
    )


def _role(message: BaseMessage) -> Role:
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, ToolMessage | FunctionMessage):
        return "tool"
    if isinstance(message, ChatMessage):
        return _CHAT_ROLES.get(message.role, "user")
    return "user"


def _edit_content(content: str | list[str | dict[str, Any]], edit: PromptEdit) -> Any:
    if isinstance(content, str):
        return f"{edit.user_prefix}{content}{edit.user_suffix}"
    texts = [i for i, block in enumerate(content) if _block_text(block) is not None]
    if not texts:
        raise EmptyQueryError("The last user message has no text to apply a prompt mode to.")
    blocks = list(content)
    blocks[texts[0]] = _with_text(blocks[texts[0]], prefix=edit.user_prefix)
    blocks[texts[-1]] = _with_text(blocks[texts[-1]], suffix=edit.user_suffix)
    return blocks


def _block_text(block: str | dict[str, Any]) -> str | None:
    if isinstance(block, str):
        return block
    text = block.get("text")
    return text if block.get("type") == "text" and isinstance(text, str) else None


def _with_text(block: str | dict[str, Any], *, prefix: str = "", suffix: str = "") -> str | dict[str, Any]:
    text = f"{prefix}{_block_text(block)}{suffix}"
    return text if isinstance(block, str) else {**block, "text": text}
