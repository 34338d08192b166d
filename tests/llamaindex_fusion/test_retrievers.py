import asyncio
import threading

import pytest
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, QueryBundle

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from llamaindex_fusion import ChatClientLLM, ThoughtTemplateRetriever

SOLVED = {
    "trains": ("How long does a train need for 300 km at 60 km/h?", "Divide the distance by the speed."),
    "ships": (
        "How long does a ship need for 90 km at 30 km/h?",
        "Find the speed, then divide the way by it.",
    ),
    "poem": ("Write a poem about the quiet harbour.", "Pick one image and stay with it."),
}
QUESTION = "How long does a train need for 450 km at 90 km/h?"


@pytest.fixture
def library() -> ThoughtTemplateLibrary:
    templates = [
        ThoughtTemplate(
            id=name,
            query_id=f"query-{name}",
            query=query,
            text=text,
            task=None if name == "ships" else name,
        )
        for name, (query, text) in SOLVED.items()
    ]
    vectors = HashEmbedder().embed([template.query for template in templates])
    return ThoughtTemplateLibrary(templates, vectors=vectors, embedder=HashEmbedder().identity)


@pytest.fixture
def templates(library: ThoughtTemplateLibrary) -> InMemoryThoughtTemplateStore:
    return InMemoryThoughtTemplateStore(library, embedder=HashEmbedder())


def ids(nodes) -> list[str]:
    return [node.node_id for node in nodes]


async def test_retrieve_gives_the_stores_templates_as_nodes_most_similar_first(templates) -> None:
    retriever = ThoughtTemplateRetriever(templates)

    nodes = retriever.retrieve(QUESTION)

    (found,) = templates.search([QUESTION], k=3, min_similarity=0.3)
    assert ids(nodes) == ["trains", "ships"]
    assert [node.text for node in nodes] == [SOLVED["trains"][1], SOLVED["ships"][1]]
    assert [node.score for node in nodes] == [each.similarity for each in found]
    assert nodes[1].metadata == {"query": SOLVED["ships"][0], "query_id": "query-ships", "task": None}
    assert await retriever.aretrieve(QUESTION) == nodes


async def test_retrieve_when_nothing_is_similar_then_no_nodes(templates) -> None:
    retriever = ThoughtTemplateRetriever(templates, min_similarity=0.9)

    assert retriever.retrieve("Zebras?") == []
    assert await retriever.aretrieve("Zebras?") == []


def test_retrieve_keeps_to_k_and_min_similarity(templates) -> None:
    assert ids(ThoughtTemplateRetriever(templates, k=1).retrieve(QUESTION)) == ["trains"]
    everything = ThoughtTemplateRetriever(templates, min_similarity=-1).retrieve(QUESTION)
    assert ids(everything) == ["trains", "ships", "poem"]


@pytest.mark.parametrize("settings", [{"k": 0}, {"min_similarity": 1.5}])
def test_retrieve_when_a_setting_is_out_of_range_then_error(templates, settings) -> None:
    with pytest.raises(InvalidPolicyError, match=next(iter(settings))):
        ThoughtTemplateRetriever(templates, **settings).retrieve(QUESTION)


async def test_retrieve_when_query_is_blank_then_error(templates) -> None:
    retriever = ThoughtTemplateRetriever(templates)

    with pytest.raises(EmptyQueryError):
        retriever.retrieve(" ")
    with pytest.raises(EmptyQueryError):
        await retriever.aretrieve(" ")


def test_retrieve_when_bundle_holds_other_embedding_texts_then_the_query_counts(templates) -> None:
    bundle = QueryBundle(QUESTION, custom_embedding_strs=[SOLVED["poem"][0]], embedding=[1.0])

    assert ids(ThoughtTemplateRetriever(templates).retrieve(bundle)) == ["trains", "ships"]


async def test_aretrieve_when_the_store_waits_then_the_event_loop_is_free(library) -> None:
    go_on = threading.Event()

    class Waiting(InMemoryThoughtTemplateStore):
        def search(self, *args, **kwargs):
            assert go_on.wait(timeout=10)  # set by the event loop, which must not be blocked
            return super().search(*args, **kwargs)

    store = Waiting(library, embedder=HashEmbedder())
    asyncio.get_running_loop().call_later(0.01, go_on.set)

    assert ids(await ThoughtTemplateRetriever(store).aretrieve(QUESTION)) == ["trains", "ships"]


def test_node_when_a_model_or_a_reranker_reads_it_then_solved_query_and_template(templates) -> None:
    node = ThoughtTemplateRetriever(templates).retrieve(QUESTION)[0].node

    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert node.get_content(mode) == "query: {}\n\n{}".format(*SOLVED["trains"])


async def test_query_engine_when_over_the_retriever_then_the_model_reads_the_templates(templates) -> None:
    client = ScriptedChatClient("tiny", answer=lambda _: "5 hours")
    engine = RetrieverQueryEngine.from_args(
        ThoughtTemplateRetriever(templates, k=1), llm=ChatClientLLM(client)
    )

    for response in (engine.query(QUESTION), await engine.aquery(QUESTION)):
        assert str(response) == "5 hours"
        assert ids(response.source_nodes) == ["trains"]

    assert len(client.calls) == 2
    for _, message in client.calls:
        assert SOLVED["trains"][1] in message.content
        assert SOLVED["poem"][1] not in message.content
