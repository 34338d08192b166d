"""Import the router replay of vLLM's semantic router, which holds what it chose and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import answer_of_response, conversation_of_request
from fusion_integrations.logs.importers._contract import (
    Call,
    Dropped,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import (
    as_list,
    as_mapping,
    as_moment,
    as_number,
    as_text,
    first,
    name_of,
)
from fusion_integrations.logs.schema import ScoreKind

__all__ = ["FORMAT"]

_INSIDE = ("records", "data")
_OK = range(200, 300)
_UNFINISHED = ("in_progress", "unknown")
_REASONING = ("on", "true", "enabled", "reasoning")


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read replay records: JSON lines, an array, or pages of the API."""
    del options
    yield from outcomes(read_rows(path, inside=_INSIDE), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    values = row.values
    record_id = name_of(values.get("id"), what="id")
    if values.get("from_cache"):
        return Dropped(row=row, reason="answered from a cache")
    if values.get("lifecycle_state") in _UNFINISHED:
        return Dropped(row=row, reason="not finished yet")
    if values.get("request_body_truncated") or values.get("response_body_truncated"):
        return Dropped(row=row, reason="prompt or answer cut off")
    request, response = as_mapping(values.get("request_body")), as_mapping(values.get("response_body"))
    messages = conversation_of_request(request) or conversation_of_request(values)
    if not messages:
        return Dropped(row=row, reason="prompt not stored")
    answer = answer_of_response(response) if response else answer_of_response(values.get("response_body"))
    error = _error(values, response)
    model = name_of(first(values, "selected_model", "original_model"), what="selected_model")
    is_reasoning = str(values.get("reasoning_mode", "")).lower() in _REASONING
    milliseconds = as_number(first(values, "duration_ms"), what="duration_ms")
    fields: dict[str, Any] = {
        "source_id": record_id,
        "messages": messages,
        "candidate_id": f"{model}:reasoning" if is_reasoning else model,
        "model": model,
        "prompt_mode": "reasoning" if is_reasoning else "direct",
        "task": first(values, "category"),
        "response": answer.text if error is None else None,
        "error": error,
        "finish_reason": answer.finish_reason if error is None else None,
        **tokens(values, answer.usage),
        "cost_usd": _cost(values),
        "latency_s": None if milliseconds is None else milliseconds / 1000,
        "session_id": first(values, "session_id", "conversation_id"),
    }
    moment = as_moment(values.get("timestamp"))
    if moment is not None:
        fields["created_at"] = moment
    return Call(row=row, fields=fields, scores=list(_scores(values)))


def _error(values: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    status = as_number(first(values, "response_status"), what="response_status")
    state = values.get("lifecycle_state")
    problem = response.get("error")
    if (status is None or status in _OK) and not problem and state not in ("failed", "aborted"):
        return None
    told = str(first(as_mapping(problem), "message") or (as_text(problem) if problem else ""))
    why = told or first(values, "terminal_reason") or state or "failed"
    return str(why) if status is None or status in _OK else f"HTTP {status:.0f}: {why}"


def _cost(values: Mapping[str, Any]) -> float | None:
    currency = first(values, "currency")
    if currency not in (None, "USD"):
        return None  # no rate of exchange is known here
    return as_number(first(values, "actual_cost"), what="actual_cost")


def _scores(values: Mapping[str, Any]) -> Iterator[GivenScore]:
    for outcome in as_list(values.get("outcomes")):
        told = as_mapping(outcome)
        source = str(first(told, "source") or "outcome")
        # An absent score is written as none, not as 0: the verdict alone is no number.
        if "score" in told:
            kind: ScoreKind = "judge" if "judge" in source.lower() else "feedback"
            reason = told.get("reason")
            yield GivenScore(
                kind=kind,
                scorer=f"vllm-replay:{source}",
                value=told["score"],
                reason=reason if isinstance(reason, str) else "",
            )


FORMAT = LogFormat(read=_read, source="vllm-replay", assignment="policy")
