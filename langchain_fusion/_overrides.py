"""What a caller may change for one call through `config["configurable"]`, alike for router and chat model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig
from langchain_core.runnables.config import ensure_config

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.policy import RoutingPolicy

__all__ = ["CONFIG_SPECS", "CallOverrides", "session_id_in", "with_own_settings"]

CONFIG_SPECS = (
    ConfigurableFieldSpec(
        id="fusion_route",
        annotation=str | None,
        name="Route",
        description="Id of the candidate that answers this call, whatever the router would choose.",
        default=None,
    ),
    ConfigurableFieldSpec(
        id="fusion_policy",
        annotation=RoutingPolicy | None,
        name="Policy",
        description="Routing policy of this call.",
        default=None,
    ),
)

# Where LangGraph, `RunnableWithMessageHistory` and LangSmith keep the name of a conversation.
_SESSION_KEYS = ("session_id", "thread_id", "conversation_id")


@dataclass(frozen=True, kw_only=True)
class CallOverrides:
    """What one call's config says about routing.

    Attributes:
        route: Id of the candidate that shall answer; None lets the router choose.
        policy: Replaces the component's policy; None keeps it.
        session_id: What groups the calls of one conversation, if the config names it.
    """

    route: str | None
    policy: RoutingPolicy | None
    session_id: str | None

    @classmethod
    def from_config(cls, config: RunnableConfig) -> Self:
        """Read a run's config.

        Args:
            config: The config.

        Returns:
            What it overrides; all None if nothing.

        Raises:
            InvalidPolicyError: If `fusion_route` is no text or `fusion_policy` no `RoutingPolicy`.
        """
        configurable = config.get("configurable") or {}
        route, policy = configurable.get("fusion_route"), configurable.get("fusion_policy")
        if route is not None and not isinstance(route, str):
            raise InvalidPolicyError(
                f"config['configurable']['fusion_route'] must be a candidate id, got {route!r}."
            )
        if policy is not None and not isinstance(policy, RoutingPolicy):
            message = f"config['configurable']['fusion_policy'] must be a RoutingPolicy, got {policy!r}."
            raise InvalidPolicyError(message)
        places = {**(config.get("metadata") or {}), **configurable}
        return cls(route=route, policy=policy, session_id=session_id_in(places))


def session_id_in(metadata: Mapping[str, Any]) -> str | None:
    """Return what groups the calls of one conversation, if metadata names it."""
    session = next((metadata[key] for key in _SESSION_KEYS if metadata.get(key)), None)
    return None if session is None else str(session)


def with_own_settings(model: BaseChatModel, config: RunnableConfig | None) -> RunnableConfig:
    """Add a chat model's own callbacks, tags and metadata to a run's config.

    A plain chat model has one run for them to see; the router's own run contains the chosen model's, so its
    callbacks are handed down.

    Args:
        model: The model whose fields apply.
        config: The caller's config; left as it is.

    Returns:
        A complete config.
    """
    own = ensure_config(config)
    own["tags"] = [*(model.tags or []), *own["tags"]]
    own["metadata"] = {**(model.metadata or {}), **own["metadata"]}
    if model.callbacks:
        given, callbacks = own["callbacks"], model.callbacks
        handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks
        if isinstance(given, BaseCallbackManager):
            given = given.copy()
            for handler in handlers:
                given.add_handler(handler, inherit=True)
            own["callbacks"] = given
        else:
            given = given or []
            own["callbacks"] = [*given, *(handler for handler in handlers if handler not in given)]
    return own
