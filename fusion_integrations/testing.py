"""Small deterministic stand-ins for your own tests and for examples: no model, no network, no key.

Nothing in production imports this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.logs.schema import LogRecord, Score, collection_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.heads import HeadInputs
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.types import (
    Candidate,
    Completion,
    GenerationOptions,
    Message,
    Price,
    PriceTable,
    Query,
    query_text,
)

__all__ = [
    "ScriptedChatClient",
    "head_inputs",
    "tiny_candidates",
    "tiny_logs",
    "tiny_pipeline",
    "tiny_prices",
    "tiny_router",
]


class ScriptedChatClient:
    """A chat client that answers from a function; it streams word by word and counts words as tokens.

    Args:
        model: Name of the model.
        answer: Turns the messages into an answer; may raise to act as a failing model. Default: repeats the
            query.

    Attributes:
        calls: The message lists it was called with, oldest first.
    """

    def __init__(self, model: str, *, answer: Callable[[Sequence[Message]], str] | None = None) -> None:
        self._model = model
        self._answer = answer or (lambda messages: f"{model} heard: {query_text(messages)}")
        self.calls: list[tuple[Message, ...]] = []

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation, cut at `options.max_tokens` words."""
        self.calls.append(tuple(messages))
        pieces = _pieces(self._answer(messages))
        limit = options.max_tokens if options else len(pieces)
        return Completion(
            text="".join(pieces[:limit]),
            model=self._model,
            input_tokens=sum(len(message.content.split()) for message in messages),
            output_tokens=min(limit, len(pieces)),
            finish_reason="length" if len(pieces) > limit else "stop",
            latency_s=0.0,
        )

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation, giving other tasks a turn first."""
        await asyncio.sleep(0)
        return self.complete(messages, options=options)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations, in their order."""
        return [self.complete(messages, options=options) for messages in conversations]

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer word by word, then return the completion."""
        completion = self.complete(messages, options=options)
        yield from _pieces(completion.text)
        return completion


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [piece for piece in (words[0], *(f" {word}" for word in words[1:])) if piece]


_SUMS = ("What is {} plus {}?", "Add {} and {}.", "Compute {} times {}.", "How much is {} minus {}?")
_WAYS = ("Give the number only.", "Reply in digits.", "No words, please.", "Show the result.", "Be exact.")
_FORMS = ("Write a line about {}.", "Describe {} kindly.", "Tell a story of {}.", "Praise {} in prose.")
_TOPICS = ("rivers", "old trains", "winter bread", "a quiet harbour", "two brothers")


def tiny_candidates() -> tuple[Candidate, ...]:
    """Return three candidates: a calculator that can use tools, and a writer in two prompt modes."""
    return (
        Candidate(id="calculator", model="tiny-math", capabilities=frozenset({"tools"})),
        Candidate(id="thinker", model="tiny-prose", prompt_mode="reasoning"),
        Candidate(id="writer", model="tiny-prose"),
    )


def tiny_prices() -> PriceTable:
    """Return prices for the models of `tiny_candidates`."""
    return PriceTable(
        prices={
            "tiny-math": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0, is_nominal=True),
            "tiny-prose": Price(input_usd_per_mtok=0.5, output_usd_per_mtok=1.0, is_nominal=True),
        }
    )


def tiny_logs() -> pl.DataFrame:
    """Return logs of 40 queries: the calculator solves sums, the writer prose, the thinker half of both."""
    with LogStore.open(":memory:") as store:
        for number, query in enumerate(_queries()):
            for candidate, performance, output_tokens in _outcomes(number, query):
                record = _record(query, candidate, output_tokens)
                score = Score(
                    record_id=record.record_id,
                    kind="performance",
                    scorer="scripted",
                    version="1",
                    value=performance,
                    created_at=record.created_at,
                )
                store.add([record], [score])
        return store.to_frame()


def _queries() -> list[Query]:
    sums = [
        Query.from_text(f"{form.format(7 + 3 * i, 2 + i)} {way}", task="sums")
        for i, form in enumerate(_SUMS)
        for way in _WAYS
    ]
    return sums + [Query.from_text(form.format(topic), task="prose") for form in _FORMS for topic in _TOPICS]


def _outcomes(number: int, query: Query) -> list[tuple[Candidate, float, int]]:
    calculator, thinker, writer = tiny_candidates()
    is_sum = query.task == "sums"
    return [
        (calculator, float(is_sum), 3),
        (thinker, float(number % 2), 60),
        (writer, float(not is_sum), 20),
    ]


def _record(query: Query, candidate: Candidate, output_tokens: int) -> LogRecord:
    input_tokens = len(query.text.split())
    return LogRecord(
        record_id=collection_record_id(
            collection="tiny",
            query_id=query.query_id,
            candidate_id=candidate.id,
            revision=candidate.revision,
            sample=0,
        ),
        messages=query.messages,
        task=query.task,
        candidate_id=candidate.id,
        model=candidate.model,
        prompt_mode=candidate.prompt_mode,
        response="scripted",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=tiny_prices().cost_usd(candidate, input_tokens=input_tokens, output_tokens=output_tokens),
        assignment="factorial",
        propensity=1.0,
        eligible=tuple(candidate.id for candidate in tiny_candidates()),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        source="tiny",
    )


def tiny_router() -> RouterModel:
    """Return a router trained on `tiny_logs` with the hash embedder; takes about a second."""
    return RouterTrainer(embedder=HashEmbedder()).train(tiny_logs(), candidates=tiny_candidates())


def tiny_pipeline(
    *,
    policy: RoutingPolicy = PERFORMANCE_FIRST,
    prices: PriceTable | None = None,
    store: LogStore | None = None,
) -> FusionPipeline:
    """Return a pipeline over `tiny_router`."""
    return FusionPipeline(tiny_router(), policy=policy, prices=prices, store=store)


def head_inputs(
    features: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    texts: Sequence[str] | None = None,
    tasks: Sequence[str | None] | None = None,
    n_embedding: int = 0,
    seed: int = 0,
) -> HeadInputs:
    """Make what a head learns from: every logged value counts alike, candidates are told apart at random.

    Args:
        features: (n, d), the embedding first.
        targets: (n, t), NaN where nothing was logged.
        texts: n query texts. Default: numbers, which say nothing.
        tasks: n names. Default: all unknown.
        n_embedding: How many of the features are the embedding.
        seed: Seed of the head's random choices.

    Returns:
        The inputs, for one thread.
    """
    values = np.asarray(targets, dtype=np.float32)
    descriptions = np.random.default_rng(0).normal(size=(values.shape[1], 4)).astype(np.float32)
    return HeadInputs(
        texts=tuple(texts or map(str, range(len(values)))),
        features=np.asarray(features, dtype=np.float32),
        targets=values,
        weights=(~np.isnan(values)).astype(np.float32),
        tasks=tuple(tasks) if tasks else (None,) * len(values),
        column_embeddings=descriptions / np.linalg.norm(descriptions, axis=1, keepdims=True),
        n_embedding=n_embedding,
        n_threads=1,
        seed=seed,
    )
