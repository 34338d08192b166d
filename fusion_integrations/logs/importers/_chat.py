"""Read conversations and answers as the common APIs write them: OpenAI, Anthropic, LangChain, GenAI parts.

Text alone is kept, exactly as the live adapters keep it: images, files and tool calls contribute none. So a
conversation is the same query whether it was seen live or imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion_integrations.logs.importers._values import as_list, as_mapping, as_text, decoded, first
from fusion_integrations.types import Message, Role

__all__ = [
    "Answer",
    "answer_of",
    "answer_of_response",
    "conversation",
    "conversation_of_request",
    "structured",
    "text_of",
]

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}

# LangChain names its serialized messages by class.
_CLASSES: Mapping[str, str] = {
    "SystemMessage": "system",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "ToolMessage": "tool",
    "FunctionMessage": "tool",
}

_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: The answer's text; empty if it only called tools, None if there is no answer.
        finish_reason: Why generation ended, if known.
        usage: What the API reported of tokens; empty if nothing.
    """

    text: str | None
    finish_reason: str | None = None
    usage: Mapping[str, Any]


def conversation(value: Any, *, system: Any = None) -> tuple[Message, ...]:
    """Read a conversation.

    Args:
        value: A list of messages, one message, plain text (a user's), or any of these as JSON text.
        system: A system prompt that stands apart, in any of these forms; None if there is none.

    Returns:
        The messages, oldest first.

    Raises:
        ValueError: If it is none of these, or a message has no known role.
    """
    before = [Message(role="system", content=text)] if system and (text := text_of(system)) else []
    value = structured(value)
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("messages", "input", "prompt") if key in value), [value])
        value = structured(value)
    if isinstance(value, str):
        return (*before, Message(role="user", content=value))
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("messages: there are none" if not value else f"messages: got {value!r:.200}")
    if len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # LangChain logs batches, here of one
    return (*before, *(_message(each) for each in value))


def conversation_of_request(request: Mapping[str, Any]) -> tuple[Message, ...]:
    """Read what the body of an API's request asks: chat, completion, OpenAI Responses, Anthropic, Gemini.

    Args:
        request: The body.

    Returns:
        The messages, oldest first; none if the body holds no prompt.

    Raises:
        ValueError: If its prompt cannot be read.
    """
    names = ("messages", "input", "prompt", "contents")
    prompt = next((request[name] for name in names if request.get(name)), None)
    if prompt is None:
        return ()
    return conversation(prompt, system=first(request, "system", "instructions"))


def structured(value: Any) -> Any:
    """Return the messages or the response that JSON text holds; any other text is what somebody said.

    Args:
        value: What stands where messages or a response should. Models answer in JSON and users ask about it:
            such text stays text.

    Returns:
        A mapping or a list if the text is one of messages, parts or a response; else the value as it is.
    """
    parsed = decoded(value)
    parts = parsed if isinstance(parsed, list) else [parsed]
    return parsed if parts and all(_is_known(part) for part in parts) else value


def _is_known(part: Any) -> bool:
    if isinstance(part, list):
        return bool(part) and all(_is_known(each) for each in part)
    if not isinstance(part, Mapping):
        return False
    return (
        "role" in part
        or "kwargs" in part
        or "choices" in part
        or "messages" in part
        or ("type" in part and any(key in part for key in ("content", "text", "data")))
    )


def text_of(content: Any) -> str:
    """Return the text of a message's content; what is not text gives none.

    Args:
        content: Text, or a list of parts (OpenAI, Anthropic, LangChain, GenAI, Gemini), or a message.

    Returns:
        The texts of its parts, joined without a separator.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return _part(content)
    if isinstance(content, (list, tuple)):
        return "".join(part if isinstance(part, str) else _part(part) for part in content)
    return ""


def answer_of(message: Any) -> Answer:
    """Read an answer that is a message, a list of messages (the first counts), or plain text.

    Args:
        message: The answer, or any of these as JSON text; None if there is none.

    Returns:
        The answer.
    """
    message = structured(message)
    if isinstance(message, (list, tuple)):
        message = message[0] if message else None
    if isinstance(message, str):
        return Answer(text=message, usage={})
    if not isinstance(message, Mapping):
        return Answer(text=None, usage={})
    message = _unwrapped(message)
    meta = as_mapping(message.get("response_metadata"))
    reason = first(message, "finish_reason", "stop_reason") or first(
        meta, "finish_reason", "stop_reason", "done_reason", "stopReason"
    )
    has_text = any(key in message for key in ("content", "parts", "text", "tool_calls"))
    # A structured answer is what the model said, too.
    text = _message_text(message) if has_text else (as_text(message) if message else None)
    return Answer(
        text=text,
        finish_reason=reason if isinstance(reason, str) else None,
        usage=as_mapping(first(message, "usage_metadata", "usage")),
    )


def answer_of_response(response: Any) -> Answer:
    """Read the body of an API's response: chat completion, text completion, OpenAI Responses, Anthropic.

    Args:
        response: The body, or it as JSON text.

    Returns:
        The first answer in it.
    """
    response = structured(response)
    if not isinstance(response, Mapping):
        return answer_of(response)
    usage = as_mapping(response.get("usage"))
    choices = as_list(response.get("choices"))
    if choices:
        choice = as_mapping(choices[0])
        found = answer_of(choice.get("message", choice))
        reason = choice.get("finish_reason")
        reason = reason if isinstance(reason, str) else found.finish_reason
        return Answer(text=found.text, finish_reason=reason, usage=usage or found.usage)
    if isinstance(response.get("output"), str):
        return answer_of(response["output"])
    if "output" in response:
        texts = [
            text_of(item.get("content")) for item in as_list(response["output"]) if isinstance(item, Mapping)
        ]
        status = response.get("status")
        return Answer(
            text="".join(texts), finish_reason=status if isinstance(status, str) else None, usage=usage
        )
    found = answer_of(response)
    return Answer(text=found.text, finish_reason=found.finish_reason, usage=usage or found.usage)


def _message(value: Any) -> Message:
    if isinstance(value, str):
        return Message(role="user", content=value)
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):
        value = {"role": value[0], "content": value[1]}  # LangChain's short form
    if not isinstance(value, Mapping):
        raise ValueError(f"messages: a message is no object, got {value!r:.200}")
    message = _unwrapped(value)
    role = first(message, "role", "type")
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise ValueError(f"messages: no known role, got {role!r:.200}")
    text = _message_text(message)
    known = _ROLES[role.lower()]
    # Anthropic lets the user bring back what tools said.
    is_result = known == "user" and not text and _has_results(message.get("content"))
    return Message(role="tool" if is_result else known, content=_results(message) if is_result else text)


def _has_results(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )


def _results(message: Mapping[str, Any]) -> str:
    return "".join(text_of(part.get("content")) for part in message["content"] if isinstance(part, Mapping))


def _unwrapped(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message inside the envelopes that LangChain and others put it in."""
    inner = message.get("message")
    if isinstance(inner, Mapping) and "content" not in message:
        return _unwrapped(inner)
    arguments = message.get("kwargs", message.get("data"))
    if not isinstance(arguments, Mapping) or "content" in message:
        return message
    name = message.get("id")
    class_name = name[-1] if isinstance(name, list) and name else message.get("type", "")
    role = _CLASSES.get(str(class_name).removesuffix("Chunk"), first(arguments, "role", "type") or class_name)
    return {**arguments, "role": role}


def _message_text(message: Mapping[str, Any]) -> str:
    content = next((message[key] for key in ("content", "parts", "text") if message.get(key) is not None), "")
    return text_of(content)


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    kind = part.get("type", "text")
    if kind == "tool_call_response":
        return text_of(first(part, "response", "result"))
    if kind not in _TEXT_PARTS and "role" not in part:
        return ""
    text = next((part[key] for key in ("text", "content", "parts") if part.get(key) is not None), "")
    return text_of(text)
