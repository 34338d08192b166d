"""Native LangChain components over the core: route with a chat model or a runnable, and convert chat clients.

Importing this package imports `langchain-core` (extra `langchain`), and nothing heavier.
"""

from __future__ import annotations

from langchain_fusion.chat_models import FusionChatModel
from langchain_fusion.clients import ChatClientModel, LangChainChatClient
from langchain_fusion.router import FusionRouter

__all__ = ["ChatClientModel", "FusionChatModel", "FusionRouter", "LangChainChatClient"]
