"""Native LlamaIndex components over the fusion core: router, thought templates and student.

Each name is loaded at its first use, so that importing the package is fast and says which extra is missing
only to those who need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fusion_integrations._optional import require

if TYPE_CHECKING:
    from llamaindex_fusion.chat_client_llm import ChatClientLLM
    from llamaindex_fusion.clients import LlamaIndexChatClient
    from llamaindex_fusion.distilled import DistilledLLM
    from llamaindex_fusion.instrumentation import FusionLogEventHandler
    from llamaindex_fusion.llms import FusionLLM
    from llamaindex_fusion.query_transform import ThoughtTemplateQueryTransform
    from llamaindex_fusion.retrievers import ThoughtTemplateRetriever
    from llamaindex_fusion.selectors import FusionSelector

__all__ = [
    "ChatClientLLM",
    "DistilledLLM",
    "FusionLLM",
    "FusionLogEventHandler",
    "FusionSelector",
    "LlamaIndexChatClient",
    "ThoughtTemplateQueryTransform",
    "ThoughtTemplateRetriever",
]

_HOME = {
    "ChatClientLLM": "chat_client_llm",
    "DistilledLLM": "distilled",
    "FusionLLM": "llms",
    "FusionLogEventHandler": "instrumentation",
    "FusionSelector": "selectors",
    "LlamaIndexChatClient": "clients",
    "ThoughtTemplateQueryTransform": "query_transform",
    "ThoughtTemplateRetriever": "retrievers",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    require("llama_index.core", extra="llamaindex")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
