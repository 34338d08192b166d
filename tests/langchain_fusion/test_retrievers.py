from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from langchain_fusion import ThoughtTemplateRetriever

SUM = "What is 5 plus 6?"


@pytest.fixture
def store(make_template_store):
    return make_template_store()


class TestThoughtTemplateRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _give_store(self, store) -> None:
        self._store = store

    @property
    def retriever_constructor(self) -> type[ThoughtTemplateRetriever]:
        return ThoughtTemplateRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self._store, "min_similarity": -1.0}

    @property
    def retriever_query_example(self) -> str:
        return SUM


def test_invoke_when_templates_are_similar_then_gives_them_most_similar_first(store):
    documents = ThoughtTemplateRetriever(store=store).invoke(SUM)

    assert [document.metadata["task"] for document in documents][:2] == ["sums", "sums"]
    similarities = [document.metadata["similarity"] for document in documents]
    assert similarities == sorted(similarities, reverse=True)
    assert min(similarities) >= 0.3


def test_document_when_found_then_holds_the_template_and_where_it_is_from(store):
    (found,), *_ = store.search([SUM], k=1)

    (document,) = ThoughtTemplateRetriever(store=store, k=1).invoke(SUM)

    assert document == Document(
        id=found.template.id,
        page_content=found.template.text,
        metadata={
            "template_id": found.template.id,
            "query": "What is 3 plus 4?",
            "query_id": found.template.query_id,
            "task": "sums",
            "similarity": found.similarity,
        },
    )


async def test_invoke_when_nothing_is_similar_then_is_empty(store):
    retriever = ThoughtTemplateRetriever(store=store, min_similarity=0.99)

    assert retriever.invoke("Zebras?") == await retriever.ainvoke("Zebras?") == []


async def test_invoke_when_call_brings_its_own_settings_then_those_count(store):
    retriever = ThoughtTemplateRetriever(store=store, k=1, min_similarity=0.99)

    assert len(retriever.invoke(SUM, k=2, min_similarity=-1.0)) == 2
    assert len(await retriever.ainvoke(SUM, k=2, min_similarity=-1.0)) == 2


async def test_batch_when_several_queries_then_each_has_its_own_templates(store):
    retriever = ThoughtTemplateRetriever(store=store, k=1)

    results = retriever.batch([SUM, "Tell a tale of old trains."])

    assert [documents[0].metadata["task"] for documents in results] == ["sums", "prose"]


def test_invoke_when_in_a_chain_then_feeds_it(store):
    chain = ThoughtTemplateRetriever(store=store, k=2) | RunnableLambda(len)

    assert chain.invoke(SUM) == 2


def test_invoke_when_query_is_blank_then_raises(store):
    with pytest.raises(EmptyQueryError):
        ThoughtTemplateRetriever(store=store).invoke("  ")


@pytest.mark.parametrize("settings", [{"k": 0}, {"min_similarity": 1.5}])
def test_invoke_when_a_setting_is_out_of_range_then_raises(store, settings):
    with pytest.raises(InvalidPolicyError):
        ThoughtTemplateRetriever(store=store).invoke(SUM, **settings)


def test_retriever_when_a_field_is_misspelt_then_is_refused(store):
    with pytest.raises(ValidationError, match="top_k"):
        ThoughtTemplateRetriever(store=store, top_k=3)
