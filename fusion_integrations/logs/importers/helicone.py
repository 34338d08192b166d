"""Import requests of Helicone: the export with bodies (`--include-body`), as JSON, JSONL or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import answer_of_response, conversation_of_request, text_of
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
    as_mapping,
    as_moment,
    as_number,
    as_text,
    first,
    name_of,
)

__all__ = ["FORMAT"]

_NO_CACHE = "00000000-0000-0000-0000-000000000000"  # what ClickHouse writes for "none"
_OK = range(200, 300)


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read requests with their responses."""
    del options
    yield from outcomes(read_rows(path, inside=("data",)), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    values = row.values
    request_id = name_of(first(values, "request_id", "id"), what="request_id")
    if first(values, "cache_reference_id") not in (None, _NO_CACHE):
        return Dropped(row=row, reason="answered from a cache")
    request, response = as_mapping(values.get("request_body")), as_mapping(values.get("response_body"))
    messages = conversation_of_request(request)
    if not messages:
        return Dropped(row=row, reason="prompt not stored")
    answer = answer_of_response(response)
    error = _error(values, response)
    model = name_of(first(values, "response_model", "model_override", "request_model", "model"), what="model")
    milliseconds = as_number(first(values, "delay_ms", "latency"), what="delay_ms")
    fields: dict[str, Any] = {
        "source_id": request_id,
        "messages": messages,
        "candidate_id": model,
        "model": model,
        "response": answer.text if error is None else None,
        "error": error,
        "finish_reason": answer.finish_reason if error is None else None,
        **tokens(values, answer.usage),
        "cost_usd": as_number(first(values, "costUSD", "cost"), what="cost"),
        "latency_s": None if milliseconds is None else milliseconds / 1000,
        "session_id": _session(values),
    }
    moment = as_moment(first(values, "request_created_at"))
    if moment is not None:
        fields["created_at"] = moment
    return Call(row=row, fields=fields, scores=list(_scores(values)))


def _error(values: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    status = as_number(first(values, "response_status", "status"), what="response_status")
    problem = response.get("error")
    if (status is None or status in _OK) and not problem:
        return None
    told = as_mapping(problem)
    text = first(told, "message", "heliconeMessage") or (as_text(problem) if problem else "")
    return f"HTTP {status:.0f}: {text_of(text)}" if status is not None else text_of(text) or "failed"


def _session(values: Mapping[str, Any]) -> str | None:
    properties = {**as_mapping(values.get("request_properties")), **as_mapping(values.get("properties"))}
    found = first(properties, "Helicone-Session-Id") or first(values, "request_user_id", "user_id")
    return None if found is None else str(found)


def _scores(values: Mapping[str, Any]) -> Iterator[GivenScore]:
    # Scores are set by evaluators, the rating by a user.
    for name, value in as_mapping(values.get("scores")).items():
        yield GivenScore(kind="judge", scorer=f"helicone:{name}", value=value)
    rating = first(values, "feedback_rating")
    if rating is not None:
        yield GivenScore(kind="feedback", scorer="helicone:rating", value=rating)


FORMAT = LogFormat(read=_read, source="helicone")
