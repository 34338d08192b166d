"""Which calls a collection consists of, which of them the store lacks, and what each sends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.schema import collection_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.prompts import apply_prompt_edit, prompt_edit
from fusion_integrations.scoring.metrics import score
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, Message, Query

__all__ = ["CandidatePlan", "PlannedCall", "conversations", "distinct_queries", "plan_calls"]


@dataclass(frozen=True, kw_only=True)
class PlannedCall:
    """One call of a collection.

    Attributes:
        record_id: What its record is called; known before the call is made.
        query: What is asked.
        candidate: Who is asked.
        sample: Number of the repeat, from 0.
    """

    record_id: str
    query: Query
    candidate: Candidate
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class CandidatePlan:
    """The calls of one candidate.

    Attributes:
        candidate: Who is asked.
        missing: Calls whose answer the store lacks, sample by sample, long queries first.
        n_known: How many answers the store has.
    """

    candidate: Candidate
    missing: tuple[PlannedCall, ...]
    n_known: int

    @property
    def n_total(self) -> int:
        """How many answers there will be."""
        return self.n_known + len(self.missing)

    def batches(self, size: int) -> Iterator[Sequence[PlannedCall]]:
        """Yield the missing calls in batches of one sample each; `size` is the most calls of a batch."""
        for _, group in itertools.groupby(self.missing, key=lambda call: call.sample):
            calls = list(group)
            yield from (calls[first : first + size] for first in range(0, len(calls), size))


def plan_calls(
    candidate: Candidate, queries: Sequence[Query], *, collection: str, n_samples: int, store: LogStore
) -> CandidatePlan:
    """Find what a candidate has yet to answer.

    Args:
        candidate: Who is asked.
        queries: Distinct queries.
        collection: Name of the collection.
        n_samples: Answers wanted to each query.
        store: Has what was answered before.

    Returns:
        The plan.

    Raises:
        LogStoreError: If the store cannot be read.
    """
    calls = [
        PlannedCall(
            record_id=collection_record_id(
                collection=collection,
                query_id=query.query_id,
                candidate_id=candidate.id,
                revision=candidate.revision,
                sample=sample,
            ),
            query=query,
            candidate=candidate,
            sample=sample,
        )
        for sample in range(n_samples)
        for query in queries
    ]
    known = store.known(call.record_id for call in calls)
    missing = [call for call in calls if call.record_id not in known]
    # Neighbours of about equal length waste little on padding, and long ones first shows early whether memory
    # suffices.
    missing.sort(key=lambda call: (call.sample, -len(call.query.text)))
    return CandidatePlan(candidate=candidate, missing=tuple(missing), n_known=len(known))


def conversations(
    candidate: Candidate, queries: Sequence[Query], thoughts: ThoughtPrompter | None
) -> list[tuple[Message, ...]]:
    """Apply a candidate's prompt mode to every query; blocks if templates are searched."""
    if candidate.prompt_mode == "thought" and thoughts is not None:
        texts = [query.text for query in queries]
        edits = [guidance.prompt for guidance in thoughts.guide(texts, near_duplicates="exclude")]
    else:
        edits = [prompt_edit(candidate.prompt_mode)] * len(queries)
    return [apply_prompt_edit(query.messages, edit) for query, edit in zip(queries, edits, strict=True)]


def distinct_queries(queries: Sequence[Query]) -> list[Query]:
    """Drop repeated queries, and find those that could not be scored while it costs nothing.

    Args:
        queries: What to ask.

    Returns:
        The first of each.

    Raises:
        LogSchemaError: If two queries of the same messages differ in task, reference or metric, a metric is
            unknown or cannot read its reference, or a text is none that a log can hold.
    """
    by_id: dict[str, Query] = {}
    for query in queries:
        _check_text(query)
        known = by_id.setdefault(query.query_id, query)
        if known != query:
            message = (
                f"Two queries have the same messages, '{query.text[:80]}', but differ in task, reference or "
                "metric. Keep one of them."
            )
            raise LogSchemaError(message)
        if query.metric is not None and query.reference is not None:
            score("", metric=query.metric, reference=query.reference, query=query.text)
    return list(by_id.values())


def _check_text(query: Query) -> None:
    texts = [*(turn.content for turn in query.messages), query.task or "", query.reference or ""]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        message = (
            f"The query {query.text[:80]!r} has half of a surrogate pair, {error.object[error.start]!r}, "
            "which no log can hold. Correct its text."
        )
        raise LogSchemaError(message) from error
