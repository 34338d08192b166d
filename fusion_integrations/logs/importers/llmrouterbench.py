"""Import results of LLMRouterBench: a folder `<dataset>/<split>/<model>/<timestamp>.json`, or files of it.

A model may have been run again: of several files of one folder the newest counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
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
from fusion_integrations.logs.importers._files import read_rows, source_files
from fusion_integrations.logs.importers._usage import tokens
from fusion_integrations.logs.importers._values import as_number, as_text, first, name_of

__all__ = ["FORMAT"]


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read result files, each of one model on one dataset."""
    del options
    newest = {file.parent: file for file in source_files(path)}  # in order of their names, which are moments
    for folder, file in newest.items():
        resolved = folder.resolve()
        if len(resolved.parts) < 4:
            raise LogSchemaError(
                f"'{file}' does not lie in <dataset>/<split>/<model>/, which names its model."
            )
        dataset, split, model = resolved.parts[-3:]
        label = "" if file == path else str(file.relative_to(path))
        rows = (replace(row, file=label) for row in read_rows(file, inside=("records",)))
        yield from outcomes(rows, partial(_outcome, dataset=dataset, split=split, model=model))


def _outcome(row: SourceRow, *, dataset: str, split: str, model: str) -> list[Outcome]:
    values = row.values
    query = name_of(first(values, "prompt", "origin_query"), what="prompt")
    index = as_number(values.get("index"), what="index")
    if index is None:
        raise ValueError("index: there is none")
    reference = first(values, "ground_truth")
    answer = first(values, "raw_output", "prediction")
    fields: dict[str, Any] = {
        "source_id": f"{dataset}/{split}/{model}/{index:.0f}",
        "messages": [{"role": "user", "content": query}],
        "candidate_id": model,
        "model": model,
        "task": dataset,
        "reference": None if reference is None else as_text(reference),
        "response": None if answer is None else as_text(answer),
        **tokens(values),
        "cost_usd": as_number(first(values, "cost"), what="cost"),
    }
    score = first(values, "score")
    scores = [] if score is None else [GivenScore(kind="performance", scorer="llmrouterbench", value=score)]
    return [Call(row=row, fields=fields, scores=scores)]


FORMAT = LogFormat(read=_read, source="llmrouterbench", assignment="factorial")
