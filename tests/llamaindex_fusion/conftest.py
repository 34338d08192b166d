"""Routers trained once, native LLMs over scripted clients, and an ear for LlamaIndex's events."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms.mock import MockFunctionCallingLLM
from pydantic import PrivateAttr

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.testing import ScriptedChatClient, tiny_prices, tiny_router
from fusion_integrations.types import Candidate, Query
from llamaindex_fusion import ChatClientLLM, FusionLLM

SUM = "What is 17 plus 4? Give the number only."
PROSE = "Write a line about rivers."


@pytest.fixture(scope="session")
def model_router() -> RouterModel:
    return tiny_router()


@pytest.fixture(scope="session")
def tool_router() -> RouterModel:
    """A router that learned: 'numbers' answers sums, 'texts' describes things."""
    candidates = tuple(Candidate(id=name, kind="tool") for name in ("numbers", "texts"))
    queries = [
        (f"{form.format(7 + 3 * i, 2 + i)}", "numbers")
        for form in ("What is {} plus {}?", "Add {} and {}.", "Compute {} times {}.")
        for i in range(8)
    ] + [
        (form.format(topic), "texts")
        for form in ("Write a line about {}.", "Describe {} kindly.", "Tell a story of {}.")
        for topic in ("rivers", "trains", "bread", "harbours", "brothers", "winter", "ink", "moss")
    ]
    with LogStore.open(":memory:") as store:
        for n, (text, best) in enumerate(queries):
            for candidate in candidates:
                record = LogRecord(
                    record_id=f"{n}-{candidate.id}",
                    messages=Query.from_text(text).messages,
                    candidate_id=candidate.id,
                    response="scripted",
                    assignment="factorial",
                    propensity=1.0,
                    created_at=datetime(2026, 1, 1, tzinfo=UTC),
                    source="tests",
                )
                score = Score(
                    record_id=record.record_id,
                    kind="performance",
                    scorer="scripted",
                    version="1",
                    value=float(candidate.id == best),
                    created_at=record.created_at,
                )
                store.add([record], [score])
        return RouterTrainer(embedder=HashEmbedder()).train(store.to_frame(), candidates=candidates)


@pytest.fixture
def tool_pipeline(tool_router: RouterModel) -> FusionPipeline:
    return FusionPipeline(tool_router)


@pytest.fixture
def store() -> Iterator[LogStore]:
    with LogStore.open(":memory:") as opened:
        yield opened


@pytest.fixture
def pipeline(model_router: RouterModel, store: LogStore) -> FusionPipeline:
    return FusionPipeline(model_router, prices=tiny_prices(), store=store, source="tests")


@pytest.fixture
def clients() -> dict[str, ScriptedChatClient]:
    return {name: ScriptedChatClient(name) for name in ("tiny-math", "tiny-prose")}


@pytest.fixture
def llm(pipeline: FusionPipeline, clients: dict[str, ScriptedChatClient]) -> FusionLLM:
    return FusionLLM(pipeline, llms={name: ChatClientLLM(client) for name, client in clients.items()})


@pytest.fixture
def tools_llm(pipeline: FusionPipeline, clients: dict[str, ScriptedChatClient]) -> FusionLLM:
    """Only 'tiny-math' is function calling, and declares so."""
    prose = ChatClientLLM(clients["tiny-prose"])
    return FusionLLM(pipeline, llms={"tiny-math": MockFunctionCallingLLM(), "tiny-prose": prose})


class Listener(BaseEventHandler):
    """Keeps every event of LlamaIndex's instrumentation."""

    _events: list[Any] = PrivateAttr(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        self._events.append(event)

    def names(self, *prefixes: str) -> list[str]:
        names = [type(event).__name__ for event in self._events]
        return [name for name in names if name.startswith(prefixes or ("",))]

    def first(self, name: str) -> Any:
        return next(event for event in self._events if type(event).__name__ == name)


@pytest.fixture
def events() -> Iterator[Listener]:
    dispatcher, listener = get_dispatcher(), Listener()
    dispatcher.add_event_handler(listener)
    yield listener
    dispatcher.event_handlers.remove(listener)
