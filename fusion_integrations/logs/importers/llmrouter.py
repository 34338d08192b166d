"""Import routing data of LLMRouter: JSON lines, with the prices of its `default_llm.json` as second file.

The field `api_key_used` is never read, and embeddings in other files are made anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusion_integrations.errors import LogSchemaError
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
from fusion_integrations.logs.importers._values import as_mapping, as_number, as_text, first, name_of
from fusion_integrations.types import Price

__all__ = ["FORMAT"]

_SECRET = "api_key_used"  # noqa: S105 - the name of a field


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read rows, one a query and LLM."""
    prices = {} if options.join is None else _prices(options.join)
    yield from outcomes(read_rows(path), lambda row: [_outcome(row, prices)])


def _prices(path: Path) -> dict[str, Price]:
    """Read what each LLM charges; the file is small, and nothing is stored if it is malformed."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Price(
                input_usd_per_mtok=as_number(llm["input_price"], what="input_price") or 0.0,
                output_usd_per_mtok=as_number(llm["output_price"], what="output_price") or 0.0,
            )
            for name, llm in as_mapping(listed).items()
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = (
            f"'{path}' cannot be read as LLMRouter's list of LLMs: {error!r}. "
            "Each LLM needs input_price and output_price, in USD per million tokens."
        )
        raise LogSchemaError(message) from error


def _outcome(row: SourceRow, prices: Mapping[str, Price]) -> Outcome:
    values = {name: value for name, value in row.values.items() if name != _SECRET}
    query = name_of(values.get("query"), what="query")
    model = name_of(values.get("model_name"), what="model_name")
    task, reference = first(values, "task_name"), first(values, "ground_truth")
    response = first(values, "response")
    counts = tokens(values)
    fields: dict[str, Any] = {
        "source_id": content_id(task, first(values, "task_id"), query, model, response),
        "messages": [{"role": "user", "content": query}],
        "candidate_id": model,
        "model": model,
        "task": task,
        "reference": None if reference is None else as_text(reference),
        "metric": first(values, "metric"),
        "response": response,
        **counts,
        "cost_usd": _cost(prices.get(model), counts),
        "latency_s": as_number(first(values, "response_time"), what="response_time"),
    }
    performance = first(values, "performance")
    score = GivenScore(kind="performance", scorer="llmrouter", value=performance, is_required=True)
    return Call(row=row, fields=fields, scores=[] if performance is None else [score])


def _cost(price: Price | None, counts: Mapping[str, int | None]) -> float | None:
    given, made = counts["input_tokens"], counts["output_tokens"]
    if price is None or given is None or made is None:
        return None
    return (given * price.input_usd_per_mtok + made * price.output_usd_per_mtok) / 1e6


FORMAT = LogFormat(
    read=_read, source="llmrouter", assignment="factorial", join="the default_llm.json with the prices"
)
