"""Import GenAI spans of OpenTelemetry: OTLP as JSON, as the collector's file exporter writes it.

Evaluation events become scores, whether they stand on the span or are log records of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._contract import (
    Call,
    Dropped,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
    readable_or_later,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._genai_attributes import (
    EVENT_NAMES,
    Event,
    answer_in,
    is_call,
    messages_in,
    model_in,
    scores_in,
    tokens_in,
)
from fusion_integrations.logs.importers._seen import Shelf, SpanTree
from fusion_integrations.logs.importers._values import as_list, as_mapping, as_number, first, name_of

__all__ = ["FORMAT"]

_ERRORS = (2, "2", "STATUS_CODE_ERROR")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read requests of OTLP, one a line or one a file; a span around another model call is dropped."""
    with SpanTree() as tree, Shelf() as shelf:
        for place in (path, options.join):
            for row in read_rows(place) if place is not None else ():
                with readable_or_later():
                    _note(row.values, tree, shelf)
        for row in read_rows(path):
            if row.problem or not _is_request(row.values):
                yield from outcomes([row], _refuse)
            else:
                spans = (
                    SourceRow(number=row.number, values=span, file=row.file)
                    for span in _nested(row.values, "resourceSpans", "scopeSpans", "spans")
                )
                yield from outcomes(spans, lambda span: [_outcome(span, tree, shelf)])


def _is_request(values: Mapping[str, Any]) -> bool:
    return any(key in values for key in ("resourceSpans", "resourceLogs", "resourceMetrics"))


def _refuse(row: SourceRow) -> list[Outcome]:
    raise ValueError(f"no OTLP request: it has none of resourceSpans, resourceLogs; row {row.number}")


def _note(request: Mapping[str, Any], tree: SpanTree, shelf: Shelf) -> None:
    for span in _nested(request, "resourceSpans", "scopeSpans", "spans"):
        own, above = _key(span, "spanId"), _key(span, "parentSpanId")
        if own is not None:
            tree.add(own, above, is_call=is_call(_attributes(span)))
    for entry in _nested(request, "resourceLogs", "scopeLogs", "logRecords"):
        attributes = _attributes(entry)
        name = first(entry, "eventName") or attributes.get("event.name")
        if name in EVENT_NAMES:
            body = {**as_mapping(_value(entry.get("body"))), **attributes}
            told = json.dumps([name, body], default=str)
            of_span, of_response = _key(entry, "spanId"), attributes.get("gen_ai.response.id")
            if of_span is not None:
                shelf.put(f"span {of_span}", told)
            elif of_response is not None:
                shelf.put(f"response {of_response}", told)


def _outcome(row: SourceRow, tree: SpanTree, shelf: Shelf) -> Outcome:
    span = row.values
    attributes = _attributes(span)
    if not is_call(attributes):
        return Dropped(row=row, reason="not a model call")
    own = name_of(_key(span, "spanId"), what="spanId")
    if tree.is_wrapper(own):
        return Dropped(row=row, reason="wraps another call")
    events = _events(span, own, attributes, shelf)
    messages = messages_in(attributes, events)
    if not messages:
        return Dropped(row=row, reason="prompt not stored")
    model = name_of(model_in(attributes), what="gen_ai.request.model")
    error = _error(span, attributes)
    answer = answer_in(attributes, events)
    started = as_number(span.get("startTimeUnixNano"), what="startTimeUnixNano")
    ended = as_number(span.get("endTimeUnixNano"), what="endTimeUnixNano")
    session = first(attributes, "gen_ai.conversation.id", "session.id") or span.get("traceId")
    fields: dict[str, Any] = {
        "source_id": own,
        "messages": messages,
        "candidate_id": model,
        "model": model,
        "response": answer.text if error is None else None,
        "error": error,
        "finish_reason": answer.finish_reason if error is None else None,
        **tokens_in(attributes),
        "cost_usd": as_number(first(attributes, "llm.cost.total", "gen_ai.usage.cost"), what="cost"),
        "latency_s": _seconds(started, ended),
        "session_id": None if session is None else str(session),
    }
    if started:
        fields["created_at"] = _moment(started)
    return Call(row=row, fields=fields, scores=list(scores_in(events)))


def _nested(request: Mapping[str, Any], *path: str) -> Iterator[Mapping[str, Any]]:
    """Yield what lies at the end of a path of lists."""
    level: list[Any] = [request]
    for key in path:
        level = [part for each in level if isinstance(each, Mapping) for part in as_list(each.get(key))]
    yield from (each for each in level if isinstance(each, Mapping))


def _key(entry: Mapping[str, Any], name: str) -> str | None:
    """Name a span across traces; None for the empty id that stands for none."""
    span_id, trace_id = entry.get(name), entry.get("traceId")
    if not isinstance(span_id, str) or not span_id.strip("0"):
        return None
    return f"{trace_id}:{span_id}"


def _events(span: Mapping[str, Any], own: str, attributes: Mapping[str, Any], shelf: Shelf) -> list[Event]:
    on_span = [
        (str(event.get("name")), _attributes(event))
        for event in as_list(span.get("events"))
        if isinstance(event, Mapping)
    ]
    response = attributes.get("gen_ai.response.id")
    apart = [*shelf.take(f"span {own}"), *(shelf.take(f"response {response}") if response else ())]
    return [*on_span, *((name, body) for name, body in map(json.loads, apart))]


def _attributes(entry: Mapping[str, Any]) -> dict[str, Any]:
    return _pairs(entry.get("attributes"))


def _pairs(pairs: Any) -> dict[str, Any]:
    return {
        pair["key"]: _value(pair.get("value"))
        for pair in as_list(pairs)
        if isinstance(pair, Mapping) and isinstance(pair.get("key"), str)
    }


def _value(value: Any) -> Any:
    """Return what an OTLP `AnyValue` holds; 64-bit integers stand in JSON as text."""
    if not isinstance(value, Mapping):
        return None
    if "arrayValue" in value:
        return [_value(each) for each in as_list(as_mapping(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        return _pairs(as_mapping(value["kvlistValue"]).get("values"))
    if "intValue" in value:
        return value["intValue"]
    return next((value[key] for key in ("stringValue", "doubleValue", "boolValue") if key in value), None)


def _error(span: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    status = as_mapping(span.get("status"))
    kind = first(attributes, "error.type")
    if status.get("code") not in _ERRORS and kind is None:
        return None
    texts = [str(text) for text in (kind, first(status, "message")) if text]
    return ": ".join(texts) or "failed"


def _seconds(started: float | None, ended: float | None) -> float | None:
    return None if not started or not ended or ended < started else (ended - started) / 1e9


def _moment(nanoseconds: float) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError as error:
        raise ValueError(f"startTimeUnixNano: no moment, got {nanoseconds!r}") from error


FORMAT = LogFormat(read=_read, source="otel", join="the log records with evaluation events")
