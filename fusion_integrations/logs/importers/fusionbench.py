"""Import FusionBench, the log of the FusionFactory paper: CSV, JSON or Parquet, one row a query and LLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.logs.importers._benchmark_rows import content_id
from fusion_integrations.logs.importers._contract import (
    Call,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    SourceRow,
    outcomes,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import as_number, as_text, first, name_of

__all__ = ["FORMAT"]

_THINK = "_think"  # suffix of an LLM's name that was asked to reason


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read rows; the embeddings in them are left out."""
    del options
    yield from outcomes(read_rows(path), lambda row: [_outcome(row)])


def _outcome(row: SourceRow) -> Outcome:
    values = row.values
    query = name_of(values.get("query"), what="query")
    llm = name_of(values.get("llm"), what="llm")
    model = llm.removesuffix(_THINK)
    is_reasoning = model != llm
    task = first(values, "task_name", "task")
    reference = first(values, "ground_truth", "gt")
    response = first(values, "response")
    usage = {
        "input_tokens": first(values, "input_tokens_num", "input_tokens"),
        "output_tokens": first(values, "output_tokens_num", "output_tokens"),
    }
    fields: dict[str, Any] = {
        "source_id": content_id(task, first(values, "task_id"), query, llm, response),
        "messages": [{"role": "user", "content": query}],
        "candidate_id": f"{model}:reasoning" if is_reasoning else model,
        "model": model,
        "prompt_mode": "reasoning" if is_reasoning else "direct",
        "task": task,
        "reference": None if reference is None else as_text(reference),
        "metric": first(values, "metric"),
        "response": response,
        **tokens(usage),
        "cost_usd": as_number(first(values, "cost"), what="cost"),
    }
    return Call(row=row, fields=fields, scores=list(_scores(values)))


def _scores(values: Mapping[str, Any]) -> Iterator[GivenScore]:
    performance = first(values, "performance")
    if performance is not None:
        value = _pass_rate(performance)
        yield GivenScore(kind="performance", scorer="fusionbench", value=value, is_required=True)
    judged = first(values, "llm_judge")
    if judged is not None:
        yield GivenScore(kind="judge", scorer="fusionbench:llm_judge", value=judged, is_required=True)


def _pass_rate(performance: Any) -> Any:
    """Return the number in a score of a code task, which is written as `{'pass@1': 1.0}`."""
    if isinstance(performance, Mapping):
        return performance.get("pass@1")
    if isinstance(performance, str) and "pass@1" in performance:
        return performance.partition("pass@1")[2].strip("'\": }").partition(",")[0]
    return performance


FORMAT = LogFormat(read=_read, source="fusionbench", assignment="factorial")
