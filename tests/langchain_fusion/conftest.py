from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from fusion_integrations import FusionPipeline, LogStore, Message, RouterModel
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.protocols import Embedder
from fusion_integrations.testing import ScriptedChatClient, tiny_prices, tiny_router
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from fusion_integrations.types import Query
from langchain_fusion import ChatClientModel, FusionChatModel

Answer = Callable[[Sequence[Message]], str]


class RunLog(BaseCallbackHandler):
    """Notes every run as (kind, name, id, parent id), and how it ended."""

    run_inline = True

    def __init__(self) -> None:
        self.starts: list[tuple[str, str, UUID, UUID | None]] = []
        self.ends: list[tuple[str, UUID]] = []
        self.outputs: dict[UUID, Any] = {}
        self.metadata: dict[UUID, dict[str, Any]] = {}

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, name=None, **kwargs):
        self.starts.append(("chain", name, run_id, parent_run_id))

    def on_chat_model_start(
        self, serialized, messages, *, run_id, parent_run_id=None, name=None, metadata=None, **kwargs
    ):
        self.starts.append(("llm", (metadata or {}).get("ls_model_name", name), run_id, parent_run_id))
        self.metadata[run_id] = metadata or {}

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.ends.append(("chain", run_id))
        self.outputs[run_id] = outputs

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.ends.append(("chain error", run_id))

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.ends.append(("llm", run_id))
        self.outputs[run_id] = response

    def on_llm_error(self, error, *, run_id, **kwargs):
        self.ends.append(("llm error", run_id))

    def kinds(self) -> list[tuple[str, str]]:
        return [(kind, name) for kind, name, *_ in self.starts]


@pytest.fixture
def run_log() -> RunLog:
    return RunLog()


@pytest.fixture(scope="session")
def router() -> RouterModel:
    return tiny_router()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    with LogStore.open(tmp_path / "logs.db") as opened:
        yield opened


@pytest.fixture
def pipeline(router: RouterModel, store: LogStore) -> FusionPipeline:
    return FusionPipeline(router, prices=tiny_prices(), store=store, source="tests")


@pytest.fixture
def fusion(pipeline: FusionPipeline) -> Callable[..., SimpleNamespace]:
    """Make a routing chat model over two scripted clients; `.model`, `.math`, `.prose`."""

    def make(*, math: Answer | None = None, prose: Answer | None = None, **fields: Any) -> SimpleNamespace:
        clients = {
            "tiny-math": ScriptedChatClient("tiny-math", answer=math),
            "tiny-prose": ScriptedChatClient("tiny-prose", answer=prose),
        }
        models = {name: ChatClientModel(client=client) for name, client in clients.items()}
        model = FusionChatModel(**{"pipeline": pipeline, "models": models, **fields})
        return SimpleNamespace(model=model, math=clients["tiny-math"], prose=clients["tiny-prose"])

    return make


# Solved queries with their tasks; nothing is like a query about zebras.
SOLVED = (
    ("What is 3 plus 4?", "sums"),
    ("What is 12 plus 30?", "sums"),
    ("Describe old trains kindly.", "prose"),
    ("Tell a story of rivers.", "prose"),
)


@pytest.fixture
def make_template_store() -> Callable[..., InMemoryThoughtTemplateStore]:
    """Make a store of one template for each solved query."""

    def make(embedder: Embedder | None = None) -> InMemoryThoughtTemplateStore:
        embedder = embedder or HashEmbedder()
        templates = [
            ThoughtTemplate(
                id=f"template-{number}",
                query_id=Query.from_text(text).query_id,
                query=text,
                text=f"Take it step by step, as for {task}.",
                task=task,
                sources=(),
            )
            for number, (text, task) in enumerate(SOLVED)
        ]
        library = ThoughtTemplateLibrary(
            templates,
            vectors=embedder.embed([text for text, _ in SOLVED]),
            embedder=embedder.identity,
            arguments={},
            log_fingerprint="",
            metrics={},
        )
        return InMemoryThoughtTemplateStore(library, embedder=embedder)

    return make
