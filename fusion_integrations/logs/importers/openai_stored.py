"""Import chat completions that OpenAI stored (`store=true`), with the messages of each.

The API lists completions and, apart from them, the messages of each: put those under `messages` (or
`input`, as the Responses API calls them) of the completion before importing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import answer_of_response, conversation
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
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import as_mapping, as_moment, as_text, first, name_of

__all__ = ["FORMAT"]


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read completions: JSON lines, an array, or pages of the API."""
    del options
    yield from outcomes(read_rows(path, inside=("data",)), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    completion = row.values
    completion_id = name_of(completion.get("id"), what="id")
    prompt = completion.get("messages", completion.get("input"))
    if isinstance(prompt, dict):
        prompt = prompt.get("data")  # a page of messages, as the API gives it
    if not prompt:
        return Dropped(row=row, reason="prompt not stored")
    answer = answer_of_response(completion)
    problem = first(completion, "error")
    model = name_of(completion.get("model"), what="model")
    metadata = as_mapping(completion.get("metadata"))
    session = first(metadata, "session_id", "conversation_id", "thread_id")
    fields: dict[str, Any] = {
        "source_id": completion_id,
        "messages": conversation(prompt, system=completion.get("instructions")),
        "candidate_id": model,
        "model": model,
        "response": answer.text if problem is None else None,
        "error": None if problem is None else str(first(as_mapping(problem), "message") or as_text(problem)),
        "finish_reason": answer.finish_reason,
        **tokens(answer.usage),
        "session_id": None if session is None else str(session),
    }
    created = as_moment(first(completion, "created", "created_at"))
    if created is not None:
        fields["created_at"] = created
    return Call(row=row, fields=fields)


FORMAT = LogFormat(read=_read, source="openai-stored")
