"""Native LangChain components over the fusion core: the router as a chat model and as a runnable.

Each name is loaded at its first use, so that importing the package is fast and says which extra is missing
only to those who need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fusion_integrations._optional import require

if TYPE_CHECKING:
    from langchain_fusion.chat_models import FusionChatModel
    from langchain_fusion.clients import ChatClientModel, LangChainChatClient
    from langchain_fusion.router import FusionRouter

__all__ = ["ChatClientModel", "FusionChatModel", "FusionRouter", "LangChainChatClient"]

_HOME = {
    "ChatClientModel": "clients",
    "FusionChatModel": "chat_models",
    "FusionRouter": "router",
    "LangChainChatClient": "clients",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    require("langchain_core", extra="langchain")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
