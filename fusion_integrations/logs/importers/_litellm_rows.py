"""What the two logs of LiteLLM share: the answer or error of a call, and why its model was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion_integrations.logs.importers._chat import answer_of_response
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import as_mapping, as_number, decoded, first, name_of

__all__ = ["call_fields", "is_cached", "is_chat", "routing_fields"]

_CHAT = ("completion", "responses", "anthropic_messages", "generate_content", "text_completion")


def is_chat(values: Mapping[str, Any]) -> bool:
    """Whether the row is of a call that answers a conversation, rather than of an embedding, say."""
    kind = values.get("call_type")
    return not isinstance(kind, str) or not kind or any(name in kind for name in _CHAT)


def is_cached(values: Mapping[str, Any]) -> bool:
    """Whether the answer came from LiteLLM's cache; spend logs write that as text."""
    return str(values.get("cache_hit")).lower() == "true"


def call_fields(values: Mapping[str, Any], *, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the record that both logs name alike.

    Args:
        values: The row.
        metadata: Its metadata, decoded.

    Returns:
        Model, answer or error, and token counts.

    Raises:
        ValueError: If a field cannot be read.
    """
    model = _model(values)
    is_failure = values.get("status") == "failure" or metadata.get("status") == "failure"
    response = values.get("response")
    answer = answer_of_response(response if decoded(response) else None)  # "{}" is written for none
    return {
        "candidate_id": model,
        "model": model,
        "response": None if is_failure else answer.text,
        "error": _error(values, metadata) if is_failure else None,
        "finish_reason": None if is_failure else answer.finish_reason,
        **tokens({} if is_failure else values),
    }


def routing_fields(values: Mapping[str, Any], *, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a routing decision of LiteLLM says of how the model was chosen.

    The probabilities are a propensity only where they are of models. Those of the complexity router are of
    tiers and say how sure its classifier was: the choice itself was certain, or made by chance within a tier,
    which the log does not tell; propensity stays unknown then. The routed model is often an alias of the one
    that answered. It is never another one: where a fallback answers, LiteLLM logs no decision.

    Args:
        values: The row.
        metadata: Its metadata, decoded.

    Returns:
        Fields of the record; empty if no router chose. Eligible candidates are known only where the
        probabilities are of models, not of aliases.

    Raises:
        ValueError: If a probability is no number.
    """
    decision = as_mapping(metadata.get("routing_decision"))
    routed = decision.get("routed_model")
    if not isinstance(routed, str) or not routed.strip():
        return {}
    fields: dict[str, Any] = {"assignment": "policy"}
    probabilities = as_mapping(decision.get("classifier_probabilities"))
    is_model = _without_provider(routed, values) == _model(values)
    if routed in probabilities and (is_model or routed == values.get("model_group")):
        fields["propensity"] = as_number(probabilities[routed], what="classifier_probabilities")
        if is_model:
            fields["eligible"] = tuple(_without_provider(name, values) for name in probabilities)
    return fields


def _model(values: Mapping[str, Any]) -> str:
    return _without_provider(name_of(values.get("model"), what="model"), values)


def _without_provider(model: str, values: Mapping[str, Any]) -> str:
    # LiteLLM logs "openai/gpt-4o" for calls through its router and "gpt-4o" for others: one model, one name.
    provider = values.get("custom_llm_provider")
    return model.removeprefix(f"{provider}/") if provider else model


def _error(values: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    found = as_mapping(first(values, "error_information") or first(metadata, "error_information"))
    texts = [
        str(text)
        for text in (found.get("error_class"), first(found, "error_message") or first(values, "error_str"))
        if text
    ]
    return ": ".join(texts) or "failed"
