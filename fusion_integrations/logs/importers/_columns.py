"""Which column of a table holds what.

Apart from the importer that uses it, because every importer's options may carry one.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["ColumnMapping"]


class ColumnMapping(BaseModel):
    """Which column of a table holds what; columns that are not named are ignored.

    Give `query` or `messages`, and `candidate` or `model` (or both of these).

    Attributes:
        query: The question as plain text.
        messages: The conversation: a list of objects with `role` and `content`, or that as JSON text.
        candidate: Id of the candidate.
        model: Name of the LLM. Without `candidate` it is the id, with `:` and the prompt mode unless direct.
        prompt_mode: `direct`, `reasoning` or `thought`; empty means direct.
        response: The answer.
        error: What went wrong, for failed calls.
        performance: Task metric, 0 to 1 or true/false; empty means not scored.
        judge_score: An LLM judge's score, 0 to 1; empty means not judged.
        task: Name of the task family.
        reference: The right answer; kept as JSON text unless it is text.
        metric: Name of the metric.
        input_tokens: Prompt tokens.
        output_tokens: Answer tokens.
        cost_usd: Cost of the call in USD.
        latency_s: Duration of the call in seconds.
        propensity: Probability with which the candidate was chosen.
        session_id: What groups the calls of one user or conversation.
        created_at: Moment of the call: ISO 8601 or seconds since 1970; read as UTC if it has no zone.
        source_id: Identity of the row, unique in the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    query: str | None = None
    messages: str | None = None
    candidate: str | None = None
    model: str | None = None
    prompt_mode: str | None = None
    response: str | None = None
    error: str | None = None
    performance: str | None = None
    judge_score: str | None = None
    task: str | None = None
    reference: str | None = None
    metric: str | None = None
    input_tokens: str | None = None
    output_tokens: str | None = None
    cost_usd: str | None = None
    latency_s: str | None = None
    propensity: str | None = None
    session_id: str | None = None
    created_at: str | None = None
    source_id: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.query is None) == (self.messages is None):
            raise ValueError("Map exactly one of query and messages.")
        if self.candidate is None and self.model is None:
            raise ValueError("Map candidate or model: a log must say who answered.")
        return self
