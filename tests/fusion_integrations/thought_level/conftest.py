"""Libraries of real-looking queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.protocols import Embedder
from fusion_integrations.thought_level.template_library import (
    TemplateSource,
    ThoughtTemplate,
    ThoughtTemplateLibrary,
)


@pytest.fixture(scope="session")
def demo_queries() -> list[str]:
    """1,280 queries of eight task families; those of a family share many words."""
    tasks = generate_tasks()
    return [query.text for query in tasks.train + tasks.test]


@pytest.fixture(scope="session")
def make_library() -> Callable[..., ThoughtTemplateLibrary]:
    """Make a library of a template for each query, the embedder of which is `HashEmbedder()` by default."""

    def make(queries: Sequence[str], *, embedder: Embedder | None = None) -> ThoughtTemplateLibrary:
        embedder = embedder or HashEmbedder()
        templates = [
            ThoughtTemplate(
                id=f"template-{number}",
                query_id=f"query-{number}",
                query=query,
                text=f"Work it out in {number + 1} steps.",
                task=f"task-{number % 3}" if number % 4 else None,
                sources=(
                    TemplateSource(record_id=f"record-{number}", candidate_id="writer", performance=1.0),
                    TemplateSource(record_id=f"record-{number}b", candidate_id="thinker", judge_score=0.75),
                )[: number % 3],
            )
            for number, query in enumerate(queries)
        ]
        return ThoughtTemplateLibrary(
            templates, vectors=embedder.embed(list(queries)), embedder=embedder.identity
        )

    return make
