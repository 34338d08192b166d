"""Import generations of Langfuse, with their scores: from the blob storage export or from its API.

A folder of the export holds `observations_v2/` (or `observations/`) and `scores/`; of a single file of
observations the scores are the second file. Current names are snake_case, those of the API camelCase.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._chat import answer_of_response, conversation
from fusion_integrations.logs.importers._contract import (
    Call,
    Dropped,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
    readable_or_later,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._seen import Shelf, SpanTree
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import (
    as_mapping,
    as_moment,
    as_number,
    decoded,
    first,
    name_of,
    seconds_between,
)
from fusion_integrations.logs.schema import ScoreKind

__all__ = ["FORMAT"]

_INSIDE = ("data", "observations", "scores")
_FOLDERS = ("observations_v2", "observations")  # enriched rows first: both may have been exported

# ANNOTATION is a person in Langfuse's UI, EVAL its LLM judge; scores by API are mostly user feedback.
_KINDS: Mapping[str, ScoreKind] = {"ANNOTATION": "feedback", "EVAL": "judge", "API": "feedback"}


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read observations and the scores that belong to them."""
    observations, scores = _places(path, options)
    with SpanTree() as tree, Shelf() as shelf:
        if scores is not None:
            yield from outcomes(read_rows(scores, inside=_INSIDE), lambda row: _shelve(row, shelf))
        for row in read_rows(observations, inside=_INSIDE):
            with readable_or_later():
                _note(row.values, tree)
        yield from outcomes(read_rows(observations, inside=_INSIDE), lambda row: [_outcome(row, tree, shelf)])


def _places(path: Path, options: ReadOptions) -> tuple[Path, Path | None]:
    if not path.is_dir():
        return path, options.join
    found = next((path / name for name in _FOLDERS if (path / name).is_dir()), path)
    if found == path and (path / "scores").is_dir():
        raise LogSchemaError(f"Folder '{path}' has scores but none of {', '.join(_FOLDERS)}.")
    scores = path / "scores"
    return found, options.join or (scores if scores.is_dir() else None)


def _shelve(row: SourceRow, shelf: Shelf) -> list[Outcome]:
    """Put a score where its observation finds it; it is no row of its own unless it is malformed."""
    score = row.values
    name = name_of(score.get("name"), what="name of a score")
    observation, trace = first(score, "observation_id", "observationId"), first(score, "trace_id", "traceId")
    comment = score.get("comment")
    given = {
        "kind": _KINDS.get(str(score.get("source")).upper(), "feedback"),
        "scorer": f"langfuse:{name}",
        "value": score.get("value"),
        "reason": comment if isinstance(comment, str) else "",
    }
    if observation or trace:  # else it is of a session or a dataset run
        key = f"observation {observation}" if observation else f"trace {trace}"
        shelf.put(key, json.dumps(given, default=str))
    return []


def _note(observation: Mapping[str, Any], tree: SpanTree) -> None:
    own = observation.get("id")
    parent = first(observation, "parent_observation_id", "parentObservationId")
    if isinstance(own, str):
        is_call = observation.get("type") == "GENERATION"
        tree.add(own, parent if isinstance(parent, str) else None, is_call=is_call)


def _outcome(row: SourceRow, tree: SpanTree, shelf: Shelf) -> Outcome:
    seen = row.values
    own = name_of(seen.get("id"), what="id")
    if name_of(seen.get("type"), what="type") != "GENERATION":
        return Dropped(row=row, reason="not a model call")
    if tree.is_wrapper(own):
        return Dropped(row=row, reason="wraps another call")
    model = name_of(first(seen, "provided_model_name", "providedModelName", "model"), what="model")
    started = as_moment(first(seen, "start_time", "startTime"))
    ended = as_moment(first(seen, "end_time", "endTime"))
    is_error = seen.get("level") == "ERROR"
    answer = answer_of_response(seen.get("output"))
    trace = first(seen, "trace_id", "traceId")
    latency = as_number(first(seen, "latency"), what="latency")
    fields: dict[str, Any] = {
        "source_id": own,
        "messages": conversation(seen.get("input")),
        "candidate_id": model,
        "model": model,
        "response": None if is_error else answer.text,
        "error": (first(seen, "status_message", "statusMessage") or "failed") if is_error else None,
        "finish_reason": answer.finish_reason,
        **tokens(as_mapping(first(seen, "usage_details", "usageDetails", "usage")), answer.usage),
        "cost_usd": _cost(seen),
        "latency_s": seconds_between(started, ended) if latency is None else latency,
        "session_id": first(seen, "session_id", "sessionId") or trace,
    }
    if started is not None:
        fields["created_at"] = started
    given = [*shelf.take(f"trace {trace}"), *shelf.take(f"observation {own}")]
    return Call(row=row, fields=fields, scores=[GivenScore(**json.loads(text)) for text in given])


def _cost(seen: Mapping[str, Any]) -> float | None:
    total = first(seen, "total_cost", "totalCost", "calculated_total_cost", "calculatedTotalCost")
    if total is None:
        total = as_mapping(first(seen, "cost_details", "costDetails")).get("total")
    return as_number(decoded(total), what="total_cost")


FORMAT = LogFormat(read=_read, source="langfuse", join="the scores")
