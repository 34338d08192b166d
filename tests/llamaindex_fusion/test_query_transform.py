import asyncio
import threading

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import TransformQueryEngine
from llama_index.core.schema import QueryBundle

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from llamaindex_fusion import ChatClientLLM, ThoughtTemplateQueryTransform

QUESTION = "Which river is longer, the Elbe or the Rhine?"
# Full of words of another document, and of what a string formatter would stumble over.
TEMPLATE = (
    "Look up {both} lengths. Old trains, steam trains, night trains and winter trains: all {0} trains help."
)
DOCUMENTS = {
    "rivers": "The river Rhine is 1233 km long, the river Elbe 1094 km.",
    "trains": "Old trains, steam trains, night trains and winter trains: all trains help.",
}


class HashEmbedding(BaseEmbedding):
    """The hash embedder as a LlamaIndex embedding."""

    def _get_text_embedding(self, text):
        return HashEmbedder().embed([text])[0].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


@pytest.fixture
def library() -> ThoughtTemplateLibrary:
    query = "Which river is longer, the Nile or the Amazon?"
    template = ThoughtTemplate(id="t", query_id="q", query=query, text=TEMPLATE)
    embedder = HashEmbedder()
    return ThoughtTemplateLibrary([template], vectors=embedder.embed([query]), embedder=embedder.identity)


@pytest.fixture
def prompter(library: ThoughtTemplateLibrary) -> ThoughtPrompter:
    return ThoughtPrompter(InMemoryThoughtTemplateStore(library, embedder=HashEmbedder()))


@pytest.fixture
def transform(prompter: ThoughtPrompter) -> ThoughtTemplateQueryTransform:
    return ThoughtTemplateQueryTransform(prompter)


@pytest.fixture
def index() -> VectorStoreIndex:
    documents = [Document(text=text, id_=name) for name, text in DOCUMENTS.items()]
    return VectorStoreIndex.from_documents(documents, embed_model=HashEmbedding())


@pytest.fixture
def client() -> ScriptedChatClient:
    return ScriptedChatClient("tiny", answer=lambda _: "the Rhine")


@pytest.fixture
def engine(index: VectorStoreIndex, client: ScriptedChatClient):
    return index.as_query_engine(llm=ChatClientLLM(client), similarity_top_k=1)


def documents(nodes) -> list[str | None]:
    return [node.node.ref_doc_id for node in nodes]


def test_transform_puts_the_prompters_edit_around_the_query(transform, prompter) -> None:
    bundle = transform(QUESTION)

    edit = prompter.guide([QUESTION])[0].prompt
    assert bundle.query_str == f"{edit.user_prefix}{QUESTION}{edit.user_suffix}"
    assert TEMPLATE in bundle.query_str
    assert bundle.custom_embedding_strs == [QUESTION]


def test_transform_when_nothing_is_similar_then_the_query_stays(transform) -> None:
    assert transform(QueryBundle("Zebras?")).query_str == "Zebras?"


def test_transform_when_bundle_says_how_to_find_documents_then_that_stays(transform) -> None:
    before = QueryBundle(
        QUESTION, image_path="map.png", custom_embedding_strs=["a", "b"], embedding=[0.0, 1.0]
    )

    after = transform(before)

    assert (after.image_path, after.embedding_strs, after.embedding) == ("map.png", ["a", "b"], [0.0, 1.0])
    assert before.query_str == QUESTION


@pytest.mark.parametrize("query", ["", " "])
async def test_transform_when_query_is_blank_then_error(transform, query) -> None:
    with pytest.raises(EmptyQueryError):
        transform(query)
    with pytest.raises(EmptyQueryError):
        await transform.arun(QueryBundle(query))


async def test_query_engine_when_transformed_then_same_documents_and_the_model_sees_the_guidance(
    engine, transform, index, client
) -> None:
    guided = TransformQueryEngine(engine, query_transform=transform)

    plain, in_sync, in_async = engine.query(QUESTION), guided.query(QUESTION), await guided.aquery(QUESTION)

    assert documents(index.as_retriever(similarity_top_k=1).retrieve(transform(QUESTION).query_str)) == [
        "trains"  # what the guided text itself is nearest to
    ]
    assert documents(plain.source_nodes) == ["rivers"]
    for response in (in_sync, in_async):
        assert str(response) == "the Rhine"
        assert documents(response.source_nodes) == ["rivers"]
        assert [node.score for node in response.source_nodes] == [node.score for node in plain.source_nodes]
    without, with_sync, with_async = (messages[-1] for messages in client.calls)
    assert TEMPLATE not in without.content
    assert with_sync == with_async
    assert with_sync.content == without.content.replace(QUESTION, transform(QUESTION).query_str)


def test_query_engine_when_only_the_answer_is_guided_then_retrieval_sees_the_question(
    engine, transform, client
) -> None:
    nodes = engine.retrieve(QueryBundle(QUESTION))
    response = engine.synthesize(transform(QUESTION), nodes=nodes)

    assert documents(response.source_nodes) == ["rivers"]
    assert TEMPLATE in client.calls[-1][-1].content


async def test_arun_when_the_store_waits_then_the_event_loop_is_free(library, engine, client) -> None:
    go_on = threading.Event()

    class Waiting(InMemoryThoughtTemplateStore):
        def search(self, *args, **kwargs):
            assert go_on.wait(timeout=10)  # set by the event loop, which must not be blocked
            return super().search(*args, **kwargs)

    transform = ThoughtTemplateQueryTransform(ThoughtPrompter(Waiting(library, embedder=HashEmbedder())))
    asyncio.get_running_loop().call_later(0.01, go_on.set)

    response = await engine.aquery(await transform.arun(QUESTION))

    assert documents(response.source_nodes) == ["rivers"]
    assert TEMPLATE in client.calls[-1][-1].content


def test_prompts_when_asked_for_or_updated_then_only_the_engines_are_there(engine, transform, client) -> None:
    guided = TransformQueryEngine(engine, query_transform=transform)
    key = "query_engine:response_synthesizer:text_qa_template"

    assert transform.get_prompts() == {}
    assert all(name.startswith("query_engine:") for name in guided.get_prompts())
    transform.update_prompts({"thought": PromptTemplate("{query_str}")})
    engine.update_prompts({key.removeprefix("query_engine:"): PromptTemplate("Say: {query_str}")})
    guided.query(QUESTION)

    assert client.calls[-1][-1].content == f"Say: {transform(QUESTION).query_str}"
