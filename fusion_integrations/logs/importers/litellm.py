"""Import LiteLLM's standard logging payload: JSON lines, as its S3, GCS and file loggers write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import conversation
from fusion_integrations.logs.importers._contract import (
    Call,
    Dropped,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._litellm_rows import call_fields, is_cached, is_chat, routing_fields
from fusion_integrations.logs.importers._values import as_mapping, as_moment, as_number, first, name_of

__all__ = ["FORMAT"]

_REDACTED = "redacted-by-litellm"  # written in place of prompts where `turn_off_message_logging` is set


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read payloads, one a line."""
    del options
    yield from outcomes(read_rows(path, inside=("data",)), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    payload = row.values
    call_id = name_of(payload.get("id"), what="id")
    if not is_chat(payload):
        return Dropped(row=row, reason="not a model call")
    if is_cached(payload):
        return Dropped(row=row, reason="answered from a cache")
    messages = conversation(payload["messages"]) if payload.get("messages") else ()
    if not messages or messages[-1].content == _REDACTED:
        return Dropped(row=row, reason="prompt not stored")
    metadata = as_mapping(payload.get("metadata"))
    fields: dict[str, Any] = {
        "source_id": call_id,
        "messages": messages,
        **call_fields(payload, metadata=metadata),
        **routing_fields(payload, metadata=metadata),
        "latency_s": _seconds(payload.get("startTime"), payload.get("endTime")),
        "session_id": first(payload, "session_id", "trace_id"),
    }
    cost = as_number(payload.get("response_cost"), what="response_cost")
    if fields["error"] is None and not payload.get("response_cost_failure_debug_info"):
        fields["cost_usd"] = cost  # else LiteLLM knew no price and wrote 0
    started = as_moment(payload.get("startTime"))
    if started is not None:
        fields["created_at"] = started
    return Call(row=row, fields=fields)


def _seconds(start: object, end: object) -> float | None:
    # `response_time` would not do: of streams it is the time to the first token.
    started, ended = as_number(start, what="startTime"), as_number(end, what="endTime")
    if started is None or ended is None or ended < started:
        return None
    return ended - started


FORMAT = LogFormat(read=_read, source="litellm")
