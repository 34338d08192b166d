"""Import RouterBench: a wide table, CSV or Parquet, with columns for every model; never its pickle files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._benchmark_rows import from_python_list
from fusion_integrations.logs.importers._contract import (
    Call,
    GivenScore,
    LogFormat,
    Outcome,
    ReadOptions,
    Rejected,
    SourceRow,
    explained,
    outcomes,
)
from fusion_integrations.logs.importers._files import read_rows
from fusion_integrations.logs.importers._values import as_number, first, name_of

__all__ = ["FORMAT"]

_PICKLES = (".pkl", ".pickle")
_COST, _RESPONSE = "|total_cost", "|model_response"


def _read(path: Path, options: ReadOptions) -> Iterator[Outcome]:
    """Read rows, each of one query and the answers of all models to it."""
    del options
    if path.suffix.lower() in _PICKLES:
        message = (
            f"'{path}' is a pickle file, which runs code when it is read: it is not opened. If you trust it, "
            "convert it first: pandas.read_pickle(path).to_parquet('routerbench.parquet')"
        )
        raise LogSchemaError(message)
    yield from outcomes(read_rows(path), lambda row: list(_cells(row)))


def _cells(row: SourceRow) -> Iterator[Outcome]:
    """Make a call of every model's cells; one that is malformed concerns that model alone."""
    models = sorted({_model(column) for column in row.values} - {""})
    if not models:
        raise ValueError(f"no column of a model: none ends in {_COST} or {_RESPONSE}")
    sample_id = str(name_of(_text(row.values.get("sample_id")), what="sample_id"))
    query = name_of(from_python_list(row.values.get("prompt")), what="prompt")
    for model in models:
        values = {name: first(row.values, model + name) for name in ("", _COST, _RESPONSE)}
        if all(value is None for value in values.values()):
            continue  # this model was not asked
        try:
            yield _call(row, values, model=model, query=query, sample_id=sample_id)
        except ValueError as error:
            yield Rejected(row=row, reason=f"{model}: {explained(error)}")


def _call(row: SourceRow, values: dict[str, Any], *, model: str, query: str, sample_id: str) -> Call:
    response = from_python_list(values[_RESPONSE])
    fields: dict[str, Any] = {
        "source_id": f"{sample_id}|{model}",
        "messages": [{"role": "user", "content": query}],
        "candidate_id": model,
        "model": model,
        "task": first(row.values, "eval_name"),
        "response": response,
        "cost_usd": as_number(values[_COST], what="total_cost"),
    }
    score = values[""]
    scores = [] if score is None else [GivenScore(kind="performance", scorer="routerbench", value=score)]
    return Call(row=row, fields=fields, scores=scores)


def _model(column: str) -> str:
    for suffix in (_COST, _RESPONSE):
        if column.endswith(suffix):
            return column.removesuffix(suffix)
    return ""


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


FORMAT = LogFormat(read=_read, source="routerbench", assignment="factorial")
