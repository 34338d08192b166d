"""Put the guidance of thought templates before a query, without changing which documents are found for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle, QueryType

from fusion_integrations.thought_level.template_prompt import ThoughtPrompter

__all__ = ["ThoughtTemplateQueryTransform"]


class ThoughtTemplateQueryTransform(BaseQueryTransform):
    """Guides the answering model with what solved similar queries, for `TransformQueryEngine`.

    The guidance goes around `query_str`, which the answering model reads. Documents are still found by the
    original question, which stays in `custom_embedding_strs`. That holds for retrievers that embed the query;
    whatever searches or reranks by `query_str` would see the guidance too, so guide the answer alone there:
    `engine.synthesize(transform(question), nodes=engine.retrieve(QueryBundle(question)))`.

    `TransformQueryEngine` knows only synchronous transforms: its `aquery` embeds the query and searches the
    templates on the event loop (with a store on a server that is a round trip) before it goes on
    asynchronously. Where that matters, do without it: `await engine.aquery(await transform.arun(question))`.

    The prompt is versioned with the library, not a LlamaIndex prompt: `get_prompts` has none to show, and
    `update_prompts` none to change.

    Args:
        prompter: Finds the templates and writes the guidance.

    Raises:
        EmptyQueryError: From `run` and `arun`, if the query is blank.

    Example:
        ```python
        transform = ThoughtTemplateQueryTransform(ThoughtPrompter(store))
        engine = TransformQueryEngine(index.as_query_engine(llm=llm), query_transform=transform)
        engine.query("Which of the two rivers is longer?")
        ```
    """

    def __init__(self, prompter: ThoughtPrompter) -> None:
        super().__init__()
        self.prompter = prompter

    async def arun(
        self, query_bundle_or_str: QueryType, metadata: dict[str, Any] | None = None
    ) -> QueryBundle:
        """Transform a query without blocking the event loop.

        Args:
            query_bundle_or_str: The query.
            metadata: As in `run`; not used.

        Returns:
            The query with the guidance in `query_str`, found by the same embedding texts as before.
        """
        return await asyncio.to_thread(self.run, query_bundle_or_str, metadata)

    def _run(
        self,
        query_bundle: QueryBundle,
        metadata: dict[str, Any],  # noqa: ARG002  # LlamaIndex's signature
    ) -> QueryBundle:
        (guidance,) = self.prompter.guide([query_bundle.query_str])
        edit = guidance.prompt
        return replace(
            query_bundle,
            query_str=f"{edit.user_prefix}{query_bundle.query_str}{edit.user_suffix}",
            custom_embedding_strs=list(query_bundle.embedding_strs),
        )

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        """Do nothing: there is no prompt."""
