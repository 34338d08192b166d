"""Import LiteLLM's spend logs: the table LiteLLM_SpendLogs, exported as CSV, JSON or Parquet.

The proxy keeps prompts and answers there only with `store_prompts_in_spend_logs`; rows without a prompt are
dropped and counted, for nothing can be learnt from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import conversation, conversation_of_request
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
from fusion_integrations.logs.importers._values import (
    as_mapping,
    as_moment,
    as_number,
    decoded,
    first,
    name_of,
    seconds_between,
)

__all__ = ["FORMAT"]


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read rows of the table."""
    del options
    yield from outcomes(read_rows(path, inside=("data",)), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    values = row.values
    request_id = name_of(values.get("request_id"), what="request_id")
    if not is_chat(values):
        return Dropped(row=row, reason="not a model call")
    if is_cached(values):
        return Dropped(row=row, reason="answered from a cache")
    # Newer proxies keep the prompt in the request alone; "{}" is written for none.
    own = decoded(values.get("messages"))
    request = as_mapping(values.get("proxy_server_request"))
    messages = conversation(own) if own else conversation_of_request(request)
    if not messages:
        return Dropped(row=row, reason="prompt not stored")
    metadata = as_mapping(values.get("metadata"))
    started, ended = as_moment(values.get("startTime")), as_moment(values.get("endTime"))
    milliseconds = as_number(values.get("request_duration_ms"), what="request_duration_ms")
    fields: dict[str, Any] = {
        "source_id": request_id,
        "messages": messages,
        **call_fields(values, metadata=metadata),
        **routing_fields(values, metadata=metadata),
        "latency_s": seconds_between(started, ended) if milliseconds is None else milliseconds / 1000,
        "session_id": first(values, "session_id"),
    }
    if fields["response"] is None and fields["error"] is None:
        return Dropped(row=row, reason="answer not stored")
    if fields["error"] is None:
        fields["cost_usd"] = as_number(values.get("spend"), what="spend")
    if started is not None:
        fields["created_at"] = started
    return Call(row=row, fields=fields)


FORMAT = LogFormat(read=_read, source="litellm")
