"""Import logs from any CSV, JSON or Parquet table whose columns can be named.

The general importer: formats that need more than a mapping of columns get a file of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._contract import (
    Call,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
)
from fusion_integrations.logs.importers._files import check_columns, read_rows, source_files
from fusion_integrations.logs.importers._values import as_moment, as_text
from fusion_integrations.logs.schema import ScoreKind

__all__ = ["FORMAT"]

_SCORES: Mapping[str, ScoreKind] = {"performance": "performance", "judge_score": "judge"}
_TEXT_FIELDS = ("reference", "session_id", "source_id")  # whatever they hold is kept as text
_RECORD_FIELDS = (
    "model",
    "prompt_mode",
    "response",
    "error",
    "task",
    "metric",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "latency_s",
    "propensity",
)


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read a table, or every one in a folder, by its mapping of columns.

    Without `source_id`, a row is identified by its call (query, candidate, answer, error, session, moment)
    and by which repeat of that call it is; scores are no part of it. Of rows that have a moment and are equal
    in all that is mapped, scores too, the first counts.
    """
    if options.columns is None:
        raise LogSchemaError("A table needs a mapping of columns: at least query and model.")
    by_field: dict[str, str] = options.columns.model_dump(exclude_none=True)
    used = sorted(set(by_field.values()))
    for file in source_files(path):
        check_columns(file, used)
    yield from outcomes(read_rows(path, columns=used), lambda row: [_call(row, by_field)])


def _call(row: SourceRow, by_field: Mapping[str, str]) -> Call:
    get = row.values.get
    values = {name: value for name, column in by_field.items() if not _is_missing(name, value := get(column))}
    if "error" in values and values.get("response") == "":
        del values["response"]  # here too it says that there is none: the call failed
    scores = [
        GivenScore(kind=kind, value=values[name], is_required=True)
        for name, kind in _SCORES.items()
        if name in values
    ]
    fields = {name: values[name] for name in _RECORD_FIELDS if name in values}
    fields |= {name: as_text(values[name]) for name in _TEXT_FIELDS if name in values}
    fields["messages"] = _messages(values)
    fields["candidate_id"] = _candidate_id(values)
    if "created_at" in values:
        fields["created_at"] = as_moment(values["created_at"])
    return Call(row=row, fields=fields, scores=scores)


def _is_missing(name: str, value: object) -> bool:
    # Tables write "unknown" as NaN where a column of numbers has no null, and as "" in a column of texts.
    # Only an answer may be empty.
    if value == "":
        return name != "response"
    return value is None or (isinstance(value, float) and math.isnan(value))


def _messages(values: Mapping[str, Any]) -> Any:
    if "query" in values:
        return [{"role": "user", "content": values["query"]}]
    if "messages" not in values:
        raise ValueError("the column of the query is empty")
    messages = values["messages"]
    return json.loads(messages) if isinstance(messages, str) else messages


def _candidate_id(values: Mapping[str, Any]) -> Any:
    if "candidate" in values or "model" not in values:
        return values.get("candidate")
    mode = values.get("prompt_mode", "direct")
    return values["model"] if mode == "direct" else f"{values['model']}:{mode}"


FORMAT = LogFormat(read=_read, takes_columns=True)
