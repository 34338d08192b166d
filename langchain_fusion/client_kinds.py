"""The client kind `langchain` of candidates files: any chat model that `init_chat_model` knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from fusion_integrations._optional import require
from fusion_integrations.clients.api_key import read_api_key, refuse_secrets
from fusion_integrations.errors import InvalidPolicyError, MissingDependencyError
from langchain_fusion.clients import LangChainChatClient

__all__ = ["langchain_client"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str | None = None
    model_provider: str | None = None
    api_key_env: str | None = None
    arguments: dict[str, JsonValue] = {}


def langchain_client(model_name: str, settings: Mapping[str, JsonValue], folder: Path) -> LangChainChatClient:  # noqa: ARG001  # the signature of every client kind
    """Make a client of the kind `langchain`.

    Args:
        model_name: Name to log and price answers under; by default also that of the model.
        settings: `model`, a name for `init_chat_model` such as `"openai:gpt-5"`; `model_provider`;
            `api_key_env`, the environment variable that holds the key, where LangChain shall not look for one
            by itself; and `arguments` of the model, such as `base_url`.
        folder: Where relative paths start; there are none.

    Returns:
        The client.

    Raises:
        InvalidPolicyError: If the environment variable is not set, the arguments hold a key, or LangChain
            does not know the model or refuses the arguments.
        MissingDependencyError: If the package `langchain`, or the provider's own, is not installed.
    """
    entry = _Settings.model_validate(settings)
    refuse_secrets(entry.arguments)
    arguments = dict(entry.arguments)
    api_key = read_api_key(entry.api_key_env)
    if api_key is not None:
        arguments["api_key"] = api_key
    init_chat_model = require("langchain.chat_models", extra="agents").init_chat_model
    name = entry.model or model_name
    try:
        model = init_chat_model(name, model_provider=entry.model_provider, **arguments)
        if "max_retries" not in arguments and hasattr(model, "max_retries"):
            # Whoever asks tries again, at the pace and within the budget it has; tries inside a try would
            # escape both.
            model = init_chat_model(name, model_provider=entry.model_provider, **arguments, max_retries=0)
    except ImportError as error:
        raise MissingDependencyError(f"LangChain cannot make '{name}': {error}") from error
    except (ValueError, TypeError) as error:
        # Not `from error`: pydantic's messages show the arguments, the key among them.
        message = f"LangChain cannot make '{name}' of these settings: {_reason(error)}"
        raise InvalidPolicyError(message) from None
    return LangChainChatClient(model, name=model_name, secret=api_key)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(problem["msg"] for problem in error.errors(include_input=False))
    return str(error)
