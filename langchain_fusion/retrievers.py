"""Thought templates as a retriever: what similar solved queries teach about how to solve this one."""

from __future__ import annotations

import asyncio

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, SkipValidation

from fusion_integrations.thought_level.template_store import FoundTemplate, ThoughtTemplateStore

__all__ = ["ThoughtTemplateRetriever"]


class ThoughtTemplateRetriever(BaseRetriever):
    """Finds the thought templates of the solved queries most similar to a query; there may be none.

    A document is one template: its text, and in the metadata `template_id`, `query` and `query_id` of the
    solved query, its `task` if one was logged, and the `similarity` (cosine) of the two queries. A call can
    bring its own `k` and `min_similarity`.

    To put templates before a query as the prompt mode `thought` does, use `ThoughtTemplatePrompt`.

    Attributes:
        store: Where templates are searched.
        k: Most templates for a query; the paper uses 3.
        min_similarity: Lowest cosine similarity, in [-1, 1].

    Example:
        ```python
        retriever = ThoughtTemplateRetriever(store=store)
        retriever.invoke("What is 17 * 24?")[0].metadata["similarity"]
        retriever.invoke("What is 17 * 24?", k=1)
        ```
    """

    store: SkipValidation[ThoughtTemplateStore]  # a protocol, which pydantic cannot check
    k: int = 3
    min_similarity: float = 0.3

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # the framework's signature
        k: int | None = None,
        min_similarity: float | None = None,
    ) -> list[Document]:
        (found,) = self.store.search(
            [query],
            k=self.k if k is None else k,
            min_similarity=self.min_similarity if min_similarity is None else min_similarity,
        )
        return [_document(each) for each in found]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        min_similarity: float | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(
            self._get_relevant_documents,
            query,
            run_manager=run_manager.get_sync(),
            k=k,
            min_similarity=min_similarity,
        )


def _document(found: FoundTemplate) -> Document:
    template = found.template
    return Document(
        id=template.id,
        page_content=template.text,
        metadata={
            "template_id": template.id,
            "query": template.query,
            "query_id": template.query_id,
            "task": template.task,
            "similarity": found.similarity,
        },
    )
