"""What `fusion demo` shows of LlamaIndex: a query engine that routes twice, to a source and to an LLM.

The selector's router is trained here, on logs collected here: each source is asked every training question,
and its performance is whether the sentence it finds holds the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.tools import QueryEngineTool
from pydantic import PrivateAttr

from fusion_integrations.demo.knowledge import (
    KNOWLEDGE_TOOLS,
    KnowledgeQuestion,
    knowledge_documents,
    knowledge_questions,
)
from fusion_integrations.demo.walkthrough import DemoStage
from fusion_integrations.logs.schema import LogRecord, Score, collection_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.scoring import METRICS, score
from llamaindex_fusion.chat_client_llm import ChatClientLLM
from llamaindex_fusion.llms import FusionLLM
from llamaindex_fusion.selectors import FusionSelector

__all__ = ["show"]

_METRIC = "cover_match"
_N_SHOWN = 3


def show(stage: DemoStage) -> Iterator[str]:
    """Train a selector on what each source really finds, then ask a routing query engine.

    Args:
        stage: The trained pipeline and the running models.

    Yields:
        Lines for people.
    """
    retrievers = _retrievers(stage.embedder)
    yield f"{len(retrievers)} sources, each a vector index: {', '.join(retrievers)}"
    with LogStore.open(stage.folder / "sources.sqlite") as store:
        _collect(knowledge_questions("train"), retrievers, store)
        router = RouterTrainer(embedder=stage.embedder).train(store, candidates=KNOWLEDGE_TOOLS)
    tests = knowledge_questions("test")
    decisions = router.route_batch([question.query for question in tests])
    default_id = decisions[0].default_id
    n_right = sum(d.candidate.id == q.tool_id for d, q in zip(decisions, tests, strict=True))
    n_default = sum(q.tool_id == default_id for q in tests)
    yield (
        f"FusionSelector sends {n_right} of {len(tests)} held-out questions to the source that knows; always "
        f"asking '{default_id}' would be right for {n_default}."
    )
    with LogStore.open(stage.folder / "calls.sqlite") as calls:
        pipeline = FusionPipeline(
            stage.pipeline.router,
            policy=stage.pipeline.policy,
            prices=stage.pipeline.prices,
            thoughts=stage.pipeline.thoughts,
            store=calls,
        )
        llms = {name: ChatClientLLM(client=client) for name, client in stage.clients.items()}
        llm = FusionLLM(pipeline=pipeline, llms=llms)
        engine = RouterQueryEngine(
            selector=FusionSelector(FusionPipeline(router)),
            query_engine_tools=_tools(retrievers, llm),
            llm=llm,
        )
        for question in tests[:: len(tests) // _N_SHOWN][:_N_SHOWN]:
            yield from _ask(engine, question, calls)
        yield from _complete(llm, "Is 'I will never come back to this hotel' positive or negative?")


class _StageEmbedding(BaseEmbedding):
    """The demo's embedder as LlamaIndex wants it."""

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(model_name=str(embedder.identity))
        self._embedder = embedder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self._embedder.embed(texts)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def _retrievers(embedder: Embedder) -> dict[str, BaseRetriever]:
    embedding = _StageEmbedding(embedder)
    return {
        tool_id: VectorStoreIndex(
            [TextNode(text=sentence) for sentence in sentences], embed_model=embedding
        ).as_retriever(similarity_top_k=1)
        for tool_id, sentences in knowledge_documents().items()
    }


def _collect(
    questions: Sequence[KnowledgeQuestion], retrievers: dict[str, BaseRetriever], store: LogStore
) -> None:
    records, scores = [], []
    for question in questions:
        for tool in KNOWLEDGE_TOOLS:
            query = question.query
            found = retrievers[tool.id].retrieve(query.text)[0].text
            record = LogRecord(
                record_id=collection_record_id(
                    collection="demo-sources",
                    query_id=query.query_id,
                    candidate_id=tool.id,
                    revision=tool.revision,
                    sample=0,
                ),
                messages=query.messages,
                task=query.task,
                reference=query.reference,
                metric=_METRIC,
                candidate_id=tool.id,
                response=found,
                assignment="factorial",
                propensity=1.0,
                created_at=datetime.now(UTC),
                source="demo-sources",
            )
            records.append(record)
            scores.append(
                Score(
                    record_id=record.record_id,
                    kind="performance",
                    scorer=_METRIC,
                    version=METRICS[_METRIC].version,
                    value=score(found, metric=_METRIC, reference=query.reference or ""),
                    created_at=record.created_at,
                )
            )
    store.add(records, scores)


def _tools(retrievers: dict[str, BaseRetriever], llm: FusionLLM) -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(
            RetrieverQueryEngine.from_args(retrievers[tool.id], llm=llm),
            name=tool.id,
            description=tool.description,
        )
        for tool in KNOWLEDGE_TOOLS
    ]


def _ask(engine: RouterQueryEngine, question: KnowledgeQuestion, calls: LogStore) -> Iterator[str]:
    known = {record.record_id for record in calls.records()}
    response = engine.query(question.query.text)
    selection = (response.metadata or {})["selector_result"]
    yield f"Q: {question.query.text}"
    yield f"A: {str(response).strip()}"
    yield f"   from {KNOWLEDGE_TOOLS[selection.ind].id}: {selection.reason}"
    for record in calls.records():
        if record.record_id not in known:
            yield f"   written by {record.candidate_id}, {_usd(record.cost_usd)}"


def _complete(llm: FusionLLM, question: str) -> Iterator[str]:
    for answer in llm.stream_complete(question):
        last = answer
    fusion = last.additional_kwargs["fusion"]
    yield f"Q: {question} (FusionLLM alone, streamed)"
    yield f"A: {last.text.strip()}"
    yield f"   by {fusion['candidate']}, {_usd(fusion['cost_usd'])}: {fusion['reason']}"


def _usd(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"{cost:.2e} USD (nominal)"
