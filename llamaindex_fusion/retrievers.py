"""Find thought templates as LlamaIndex nodes, so that any query engine can work with what was learned."""

from __future__ import annotations

import asyncio

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from fusion_integrations.thought_level.template_store import FoundTemplate, ThoughtTemplateStore

__all__ = ["ThoughtTemplateRetriever"]

# A model reads the solved query with its template, as in the prompt mode `thought`; so does a reranker, since
# the query is what makes a template similar. The rest is for programs.
_FOR_PROGRAMS = ("query_id", "task")


class ThoughtTemplateRetriever(BaseRetriever):
    """Finds the thought templates of the solved queries most similar to a query; no task label is needed.

    A node has the template's id and text; its metadata tells the solved `query`, its `query_id` and its
    `task` (None if unknown); its score is the cosine similarity of the two queries. The nodes come most
    similar first, and there may be none. A model or a reranker reads the solved query and the template; to
    put templates before a query as the prompt mode `thought` does, use `ThoughtTemplateQueryTransform`.

    What is compared are queries, with the store's own embedder. So the search goes by
    `QueryBundle.query_str`: `embedding`, which another model may have made, and `custom_embedding_strs`, for
    example HyDE's made-up answers, are not used.

    Args:
        store: Where to search.
        k: Most templates to find.
        min_similarity: Less similar ones are left out; cosine, in [-1, 1].
        callback_manager: LlamaIndex's callbacks.

    Raises:
        EmptyQueryError: From `retrieve` and `aretrieve`, if the query is blank.

    Example:
        ```python
        library = ThoughtTemplateLibrary.from_pretrained("templates")
        retriever = ThoughtTemplateRetriever(InMemoryThoughtTemplateStore(library, embedder=embedder))
        retriever.retrieve("What is 17 plus 24?")[0].node.text
        ```
    """

    def __init__(
        self,
        store: ThoughtTemplateStore,
        *,
        k: int = 3,
        min_similarity: float = 0.3,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self.store = store
        self.k = k
        self.min_similarity = min_similarity

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._search(query_bundle.query_str)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._search, query_bundle.query_str)

    def _search(self, query: str) -> list[NodeWithScore]:
        (found,) = self.store.search([query], k=self.k, min_similarity=self.min_similarity)
        return [_node(one) for one in found]


def _node(found: FoundTemplate) -> NodeWithScore:
    template = found.template
    node = TextNode(
        id_=template.id,
        text=template.text,
        metadata={"query": template.query, "query_id": template.query_id, "task": template.task},
        excluded_llm_metadata_keys=list(_FOR_PROGRAMS),
        excluded_embed_metadata_keys=list(_FOR_PROGRAMS),
    )
    return NodeWithScore(node=node, score=found.similarity)
