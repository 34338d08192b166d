"""Import batches of OpenAI's Batch API: the output file, joined with the input file of prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._chat import answer_of_response, conversation_of_request
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
from fusion_integrations.logs.importers._seen import Shelf
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import as_mapping, as_moment, as_text, first, name_of

__all__ = ["FORMAT"]

_OK = 200


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read the lines of an output (or error) file; the prompt stands under the same `custom_id`."""
    if options.join is None:
        raise LogSchemaError("The output of a batch holds no prompts: pass its input file as join.")
    with Shelf() as shelf:
        yield from outcomes(read_rows(options.join), lambda row: _shelve(row, shelf))
        yield from outcomes(read_rows(path), lambda row: [_outcome(row, shelf)])


def _shelve(row: SourceRow, shelf: Shelf) -> list[Outcome]:
    """Put a request where its answer finds it; it is no row of its own unless it is malformed."""
    custom_id = name_of(row.values.get("custom_id"), what="custom_id")
    shelf.put(custom_id, json.dumps(row.values.get("body"), default=str))
    return []


def _outcome(row: SourceRow, shelf: Shelf) -> Outcome:
    custom_id = name_of(row.values.get("custom_id"), what="custom_id")
    asked = shelf.take(custom_id)
    if not asked:
        raise ValueError(f"custom_id: the input file has no request '{custom_id:.200}'")
    if len(asked) > 1:
        raise ValueError(f"custom_id: the input file has {len(asked)} requests '{custom_id:.200}'")
    request = as_mapping(asked[0])
    response = as_mapping(row.values.get("response"))
    body = as_mapping(response.get("body"))
    is_embedding = body.get("object") == "list"
    messages = () if is_embedding else conversation_of_request(request)
    if not messages:
        return Dropped(row=row, reason="not a model call")
    answer = answer_of_response(body)
    error = _error(row.values, response, body)
    model = name_of(first(body, "model") or first(request, "model"), what="model")
    fields: dict[str, Any] = {
        # The id of the line in the batch; `custom_id` is unique in its batch alone.
        "source_id": name_of(first(row.values, "id") or custom_id, what="id"),
        "messages": messages,
        "candidate_id": model,
        "model": model,
        "response": answer.text if error is None else None,
        "error": error,
        "finish_reason": answer.finish_reason if error is None else None,
        **tokens(answer.usage),
    }
    created = as_moment(first(body, "created", "created_at"))
    if created is not None:
        fields["created_at"] = created
    return Call(row=row, fields=fields)


def _error(line: Mapping[str, Any], response: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    status = response.get("status_code")
    problem = first(line, "error") or first(body, "error")
    if problem is None and (not response or status in (None, _OK)):
        return None if response else "failed"
    told = as_mapping(problem)
    text = str(first(told, "message", "code") or (as_text(problem) if problem else "failed"))
    return text if status in (None, _OK) else f"HTTP {status}: {text}"


FORMAT = LogFormat(read=_read, source="openai-batch", join="the input file of the batch", needs_join=True)
