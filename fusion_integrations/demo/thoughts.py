"""The thought templates that ship with the demo, written by its small LLM from its own log."""

from __future__ import annotations

from pathlib import Path

from fusion_integrations.embedders import load_embedder
from fusion_integrations.protocols import Embedder
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import (
    InMemoryThoughtTemplateStore,
    ThoughtTemplateStore,
)

__all__ = ["demo_library", "demo_prompter"]

_FOLDER = Path(__file__).parent / "data" / "thought_templates"


def demo_library() -> ThoughtTemplateLibrary:
    """Load the library that ships with the demo."""
    return ThoughtTemplateLibrary.from_pretrained(_FOLDER)


def demo_prompter(
    embedder: Embedder | None = None, *, chroma_path: str | Path | None = None
) -> ThoughtPrompter:
    """Search the demo's library as its log was collected.

    Args:
        embedder: The library's embedder, if it is loaded already.
        chroma_path: Folder of a Chroma database to build the index in. None: in memory.

    Returns:
        The prompter of the candidate `smollm2:thought`.

    Raises:
        MissingDependencyError: If the embedder's or Chroma's packages are not installed.
    """
    library = demo_library()
    embedder = embedder or load_embedder(library.embedder)
    if chroma_path is None:
        return _prompter(InMemoryThoughtTemplateStore(library, embedder=embedder))
    return _prompter(ChromaThoughtTemplateStore.from_library(library, embedder=embedder, path=chroma_path))


def _prompter(store: ThoughtTemplateStore) -> ThoughtPrompter:
    # Fewer and shorter than the paper's three: on two cores a long prompt costs more time than the answer.
    return ThoughtPrompter(store, k=2, max_chars=300)
