"""Native LangChain components over the fusion core: router, thought templates and student.

Each name is loaded at its first use, so that importing the package is fast and says which extra is missing
only to those who need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fusion_integrations._optional import require

if TYPE_CHECKING:
    from langchain_fusion.callbacks import FusionLogCallbackHandler
    from langchain_fusion.chat_models import FusionChatModel
    from langchain_fusion.clients import ChatClientModel, LangChainChatClient
    from langchain_fusion.distilled import DistilledChatModel
    from langchain_fusion.middleware import FusionModelMiddleware
    from langchain_fusion.prompted_tools import PromptedToolsChatModel
    from langchain_fusion.prompts import ThoughtTemplatePrompt
    from langchain_fusion.retrievers import ThoughtTemplateRetriever
    from langchain_fusion.router import FusionRouter

__all__ = [
    "ChatClientModel",
    "DistilledChatModel",
    "FusionChatModel",
    "FusionLogCallbackHandler",
    "FusionModelMiddleware",
    "FusionRouter",
    "LangChainChatClient",
    "PromptedToolsChatModel",
    "ThoughtTemplatePrompt",
    "ThoughtTemplateRetriever",
]

_HOME = {
    "ChatClientModel": "clients",
    "DistilledChatModel": "distilled",
    "FusionChatModel": "chat_models",
    "FusionLogCallbackHandler": "callbacks",
    "FusionModelMiddleware": "middleware",
    "FusionRouter": "router",
    "LangChainChatClient": "clients",
    "PromptedToolsChatModel": "prompted_tools",
    "ThoughtTemplatePrompt": "prompts",
    "ThoughtTemplateRetriever": "retrievers",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    require("langchain_core", extra="langchain")
    if name == "FusionModelMiddleware":
        require("langchain", extra="agents")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
