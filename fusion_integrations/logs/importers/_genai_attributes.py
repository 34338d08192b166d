"""Read a model call from the attributes and events of a span, under each of the names they have had.

- OpenTelemetry's GenAI conventions since 1.37: `gen_ai.input.messages` and the like, as JSON or structured.
- Before: one event a message, or `gen_ai.prompt.N.*` (OpenLLMetry).
- OpenInference: `llm.input_messages.N.message.*`.

Source: OpenTelemetry semantic conventions for generative AI; OpenInference semantic conventions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusion_integrations.logs.importers._chat import Answer, answer_of, conversation, structured
from fusion_integrations.logs.importers._contract import GivenScore
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import decoded, first
from fusion_integrations.types import Message

__all__ = [
    "EVENT_NAMES",
    "Event",
    "answer_in",
    "is_call",
    "messages_in",
    "model_in",
    "scores_in",
    "tokens_in",
]

Event = tuple[str, Mapping[str, Any]]

_OPERATIONS = ("chat", "generate_content", "text_completion", "completion")

_EVALUATION = "gen_ai.evaluation.result"
_DETAILS = "gen_ai.client.inference.operation.details"
_MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE = "gen_ai.choice"
_PROMPT, _COMPLETION = "gen_ai.content.prompt", "gen_ai.content.completion"
EVENT_NAMES = frozenset({_EVALUATION, _DETAILS, _CHOICE, _PROMPT, _COMPLETION, *_MESSAGE_EVENTS})

# Where a flattened list of messages begins, and what stands between its index and a field.
_FLAT_INPUT = (("gen_ai.prompt.", ""), ("llm.input_messages.", "message."))
_FLAT_OUTPUT = (("gen_ai.completion.", ""), ("llm.output_messages.", "message."))

_MAX_MESSAGES = 10_000


def is_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span reports a call that answers a conversation, rather than an agent, a tool or a chain."""
    operation = first(attributes, "gen_ai.operation.name", "llm.request.type")
    if isinstance(operation, str):
        return operation.lower() in _OPERATIONS
    kind = attributes.get("openinference.span.kind")
    if isinstance(kind, str):
        return kind.upper() == "LLM"
    return first(attributes, "gen_ai.request.model", "gen_ai.response.model") is not None


def model_in(attributes: Mapping[str, Any]) -> Any:
    """Return the name of the model that answered, else of the one asked for; None if there is none."""
    return first(
        attributes,
        "gen_ai.response.model",
        "llm.response.model_name",
        "gen_ai.request.model",
        "llm.model_name",
        "llm.request.model_name",
    )


def messages_in(attributes: Mapping[str, Any], events: Sequence[Event]) -> tuple[Message, ...] | None:
    """Return the conversation; None if its content was not recorded.

    Args:
        attributes: Attributes of the span.
        events: Its events, oldest first.

    Returns:
        The messages, oldest first.

    Raises:
        ValueError: If they cannot be read.
    """
    attributes = _with_details(attributes, events)
    system = decoded(attributes.get("gen_ai.system_instructions"))
    recorded = attributes.get("gen_ai.input.messages")
    if recorded:
        return conversation(recorded, system=system)
    flat = _flat(attributes, _FLAT_INPUT)
    if flat:
        return conversation(flat, system=system)
    told = [
        {"role": body.get("role") or _MESSAGE_EVENTS[name], "content": structured(body.get("content"))}
        for name, body in events
        if name in _MESSAGE_EVENTS
    ]
    if told:
        return conversation(told)
    prompt = next((body.get("gen_ai.prompt") for name, body in events if name == _PROMPT), None)
    whole = prompt or first(attributes, "gen_ai.prompt", "input.value")
    return conversation(whole, system=system) if whole else None


def answer_in(attributes: Mapping[str, Any], events: Sequence[Event]) -> Answer:
    """Return the answer; its text is None if it was not recorded.

    Args:
        attributes: Attributes of the span.
        events: Its events, oldest first.

    Returns:
        The first of the answers.
    """
    attributes = _with_details(attributes, events)
    recorded = first(attributes, "gen_ai.output.messages") or _flat(attributes, _FLAT_OUTPUT)
    if not recorded:
        choices = (_choice(body) for name, body in events if name == _CHOICE)
        completions = (body.get("gen_ai.completion") for name, body in events if name == _COMPLETION)
        recorded = next(choices, None) or next(completions, None)
    answer = answer_of(recorded or first(attributes, "gen_ai.completion", "output.value"))
    reasons = decoded(attributes.get("gen_ai.response.finish_reasons"))
    reason = reasons[0] if isinstance(reasons, list) and reasons else reasons
    return Answer(
        text=answer.text,
        finish_reason=reason if isinstance(reason, str) and reason else answer.finish_reason,
        usage={},
    )


def tokens_in(attributes: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the record fields `input_tokens` and `output_tokens`; a ValueError says what is no count."""
    usage = {
        "input_tokens": first(
            attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"
        ),
        "output_tokens": first(
            attributes,
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
        ),
    }
    return tokens(usage)


def scores_in(events: Sequence[Event]) -> Iterator[GivenScore]:
    """Yield what evaluation events say of the answer; a label without a number is no score."""
    for name, body in events:
        value = first(body, "gen_ai.evaluation.score.value")
        if name == _EVALUATION and value is not None:
            explanation = body.get("gen_ai.evaluation.explanation")
            yield GivenScore(
                kind="judge",
                scorer=f"otel:{first(body, 'gen_ai.evaluation.name') or 'evaluation'}",
                value=value,
                reason=explanation if isinstance(explanation, str) else "",
            )


def _with_details(attributes: Mapping[str, Any], events: Sequence[Event]) -> Mapping[str, Any]:
    """Add what was recorded in an event of its own instead of on the span."""
    for name, body in events:
        if name == _DETAILS:
            attributes = {**body, **attributes}
    return attributes


def _choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    message = structured(body.get("message"))
    inner = message if isinstance(message, Mapping) else {"content": message or body.get("content")}
    return {"role": "assistant", **inner, "finish_reason": body.get("finish_reason")}


def _flat(attributes: Mapping[str, Any], places: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Gather messages that are spread over numbered attributes."""
    for prefix, between in places:
        messages = []
        for number in range(_MAX_MESSAGES):
            start = f"{prefix}{number}.{between}"
            content = attributes.get(f"{start}content")
            role = attributes.get(f"{start}role")
            parts = list(_flat_parts(attributes, f"{start}contents."))
            if content is None and role is None and not parts:
                break
            text = content if content is not None else parts
            reason = attributes.get(f"{start}finish_reason")
            messages.append({"role": role, "content": structured(text), "finish_reason": reason})
        if messages:
            return messages
    return []


def _flat_parts(attributes: Mapping[str, Any], prefix: str) -> Iterator[dict[str, Any]]:
    for number in range(_MAX_MESSAGES):
        start = f"{prefix}{number}.message_content."
        kind = attributes.get(f"{start}type")
        if kind is None:
            return
        yield {"type": kind, "text": attributes.get(f"{start}text")}
