"""Import runs of LangSmith: from its API as JSON or JSONL, or from its bulk export as Parquet.

A run of the type `llm` is a call; other runs only say how the calls belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._chat import Answer, answer_of, answer_of_response, conversation
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
from fusion_integrations.logs.importers._seen import SpanTree
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import (
    as_list,
    as_mapping,
    as_moment,
    as_number,
    decoded,
    first,
    name_of,
    seconds_between,
)

__all__ = ["FORMAT"]

_INSIDE = ("runs",)
_UNFINISHED = ("pending", "running")

# `dotted_order` strings the start and the id of every run from the root to this one together.
_RUN_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read runs; a run in which another model call lies only wraps that call and is dropped."""
    del options
    with SpanTree() as tree:
        for row in read_rows(path, inside=_INSIDE):
            with readable_or_later():
                _note(row.values, tree)
        yield from outcomes(read_rows(path, inside=_INSIDE), lambda row: [_outcome(row, tree)])


def _note(run: Mapping[str, Any], tree: SpanTree) -> None:
    run_id = run.get("id")
    if not isinstance(run_id, str):
        return
    is_call = run.get("run_type") == "llm"
    order = run.get("dotted_order")
    above = _RUN_ID.findall(order) if isinstance(order, str) else []
    parent = run.get("parent_run_id")
    tree.add(run_id, parent if isinstance(parent, str) else None, is_call=is_call)
    # The runs between may not have been exported.
    for upper, lower in pairwise(above):
        tree.add(lower, upper, is_call=is_call and lower == run_id)


def _outcome(row: SourceRow, tree: SpanTree) -> Outcome:
    run = row.values
    run_id = name_of(run.get("id"), what="id")
    if name_of(run.get("run_type"), what="run_type") != "llm":
        return Dropped(row=row, reason="not a model call")
    if tree.is_wrapper(run_id):
        return Dropped(row=row, reason="wraps another call")
    if run.get("status") in _UNFINISHED or first(run, "end_time") is None:
        return Dropped(row=row, reason="not finished yet")
    extra = as_mapping(run.get("extra"))
    metadata = {**as_mapping(run.get("metadata")), **as_mapping(extra.get("metadata"))}
    inputs, outputs = as_mapping(run.get("inputs")), as_mapping(run.get("outputs"))
    answer = _answer(outputs)
    started = as_moment(run.get("start_time"))
    error = first(run, "error")
    model = name_of(_model(metadata, extra, outputs), what="model")
    fields: dict[str, Any] = {
        "source_id": run_id,
        "messages": _messages(inputs),
        "candidate_id": model,
        "model": model,
        "response": answer.text if error is None else None,
        "error": error,
        "finish_reason": answer.finish_reason,
        **tokens(run, answer.usage, as_mapping(outputs.get("usage_metadata"))),
        "cost_usd": as_number(first(run, "total_cost"), what="total_cost"),
        "latency_s": seconds_between(started, as_moment(run.get("end_time"))),
        "session_id": _session(metadata, run),
    }
    if started is not None:
        fields["created_at"] = started
    return Call(row=row, fields=fields, scores=list(_scores(run)))


def _messages(inputs: Mapping[str, Any]) -> Any:
    if "messages" in inputs:
        return conversation(inputs["messages"], system=inputs.get("system"))
    # Text models are logged with a batch of prompts, here of one.
    prompts = as_list(inputs.get("prompts"))
    return conversation(prompts[0] if len(prompts) == 1 else first(inputs, "input", "prompt", "prompts"))


def _answer(outputs: Mapping[str, Any]) -> Answer:
    generations = decoded(outputs.get("generations"))
    while isinstance(generations, list) and generations:
        generations = generations[0]
    if isinstance(generations, Mapping):
        found = answer_of(generations.get("message", generations))
        reason = as_mapping(generations.get("generation_info")).get("finish_reason")
        usage = found.usage or as_mapping(as_mapping(outputs.get("llm_output")).get("token_usage"))
        return Answer(
            text=found.text,
            finish_reason=found.finish_reason or (reason if isinstance(reason, str) else None),
            usage=usage,
        )
    if "messages" in outputs:
        return answer_of(as_list(outputs["messages"])[-1:])
    if "output" in outputs and not isinstance(decoded(outputs["output"]), list):
        return answer_of(outputs["output"])
    return answer_of_response(outputs) if outputs else answer_of(None)


def _model(metadata: Mapping[str, Any], extra: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    parameters = as_mapping(extra.get("invocation_params"))
    return (
        first(metadata, "ls_model_name")
        or first(parameters, "model", "model_name", "model_id")
        or first(outputs, "model")
        or first(as_mapping(outputs.get("llm_output")), "model_name")
    )


def _session(metadata: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
    # `session_id` of the run itself is LangSmith's word for the project.
    found = first(metadata, "session_id", "thread_id", "conversation_id") or first(run, "trace_id")
    return None if found is None else str(found)


def _scores(run: Mapping[str, Any]) -> Iterator[GivenScore]:
    for key, stats in as_mapping(run.get("feedback_stats")).items():
        value = as_mapping(stats).get("avg")
        if value is not None:
            yield GivenScore(kind="feedback", scorer=f"langsmith:{key}", value=value)


FORMAT = LogFormat(read=_read, source="langsmith")
