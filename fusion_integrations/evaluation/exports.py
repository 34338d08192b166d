"""Write what routers chose in the formats of RouterArena and LLMRouterBench, to compare them there.

What is unknown is left out or null, as each format allows; it is never 0.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import polars as pl

from fusion_integrations.errors import ArtifactWriteError, InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.evaluation.query_outcomes import QueryOutcome
from fusion_integrations.query_level.labels import label_from_name, label_values

__all__ = ["RoutedReport", "export_llmrouterbench", "export_routerarena"]

_SPLIT = "test"  # every exported query was kept from the router that routed it
_Answers = Mapping[tuple[str, str], "_Answer"]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The scored answers of one candidate to one query: means, and the text of the first; None: unknown."""

    performance: float
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    response: str | None
    reference: str | None


class RoutedReport(Protocol):
    """What exports read of a benchmark or an evaluation: a name, who chose among whom, and every choice."""

    @property
    def name(self) -> str:
        """Of the log."""
        ...

    @property
    def candidates(self) -> Collection[str]:
        """Ids of the candidates."""
        ...

    @property
    def routers(self) -> Sequence[str]:
        """Names of those who chose."""
        ...

    @property
    def label(self) -> str:
        """The score that counts as performance."""
        ...

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        ...

    @property
    def queries(self) -> Sequence[QueryOutcome]:
        """All of them, or some."""
        ...


def export_routerarena(report: RoutedReport, frame: pl.DataFrame, folder: str | Path) -> list[Path]:
    """Write RouterArena's configuration and prediction file of each router.

    A submission needs logs of RouterArena's own queries, their global index as query id, and its model names.
    Answers that the logs do not hold are null; RouterArena's inference fills them in.

    Args:
        report: A benchmark or an evaluation that holds all its queries (`n_shown=None`).
        frame: The log it measured on, in `LOG_SCHEMA`.
        folder: Where to write `config/<router>.json` and `predictions/<router>.json`, as in RouterArena's
            folder `router_inference`; a router is `<log>-<name>`.

    Returns:
        The files.

    Raises:
        NotEnoughLogsError: If the report holds only some of its queries.
        ArtifactWriteError: If a file cannot be written.

    Source:
        RouterArena (arXiv 2510.00202), github.com/RouteWorks/RouterArena,
        `router_inference/generate_prediction_file.py` and `check_config_prediction_files.py`.
    """
    queries, answers, texts = _queries(report), _answers(frame, label=report.label), _texts(frame)
    written = []
    for router in report.routers:
        name = f"{report.name}-{router}"
        config = {"pipeline_params": {"router_name": name, "models": list(report.candidates)}}
        predictions = [
            _prediction(query, chosen=query.chosen[router], text=texts[query.query_id], answers=answers)
            for query in queries
        ]
        for kind, document in (("config", config), ("predictions", predictions)):
            written.append(_write(Path(folder) / kind / f"{_file_name(name)}.json", document))
    return written


def export_llmrouterbench(
    report: RoutedReport, frame: pl.DataFrame, folder: str | Path, *, now: datetime
) -> list[Path]:
    """Write LLMRouterBench result files: one a task and candidate, and one a task and router.

    Args:
        report: A benchmark or an evaluation that holds all its queries (`n_shown=None`).
        frame: The log it measured on, in `LOG_SCHEMA`.
        folder: Where to write `<log>/<task>/test/<model>/<task>-test-<model>-<time>.json`; a `<log>`
            folder is a results folder of LLMRouterBench. A router is the model `fusion-<name>`; queries
            without a task form one of the log's name.
        now: The time in the file names, by which LLMRouterBench finds the newest.

    Returns:
        The files.

    Raises:
        NotEnoughLogsError: If the report holds only some of its queries, or a router chose answers that
            were never scored.
        InvalidPolicyError: If a candidate has the name of a router there.
        ArtifactWriteError: If a file cannot be written.

    Source:
        LLMRouterBench (arXiv 2601.07206), github.com/ynulihao/LLMRouterBench, section "Data Format" of its
        README and `data_collector/storage.py`.
    """
    queries, answers, texts = _queries(report), _answers(frame, label=report.label), _texts(frame)
    ids = [query.query_id for query in queries]
    models = {candidate: dict.fromkeys(ids, candidate) for candidate in report.candidates}
    for router in report.routers:
        if (name := f"fusion-{router}") in models:
            raise InvalidPolicyError(f"'{name}' is a candidate and would be the name of a router. Rename it.")
        models[name] = {query.query_id: query.chosen[router] for query in queries}
        _check_scored(router, models[name], answers)
    written = []
    for task in sorted({query.task or report.name for query in queries}):
        of_task = [query.query_id for query in queries if (query.task or report.name) == task]
        for model, chosen in models.items():
            records = [
                _record(number, query_id, chosen=chosen[query_id], text=texts[query_id], answers=answers)
                for number, query_id in enumerate(of_task, start=1)
                if (query_id, chosen[query_id]) in answers
            ]
            if records:
                parts = [_file_name(part) for part in (task, _SPLIT, model)]
                name = f"{'-'.join(parts)}-{now:%Y%m%d_%H%M%S}.json"
                path = Path(folder, _file_name(report.name), *parts, name)
                written.append(_write(path, _result(records, task=task, model=model)))
    return written


def _queries(report: RoutedReport) -> Sequence[QueryOutcome]:
    if len(report.queries) < report.n_queries:
        message = (
            f"The report of '{report.name}' holds {len(report.queries)} of its {report.n_queries} queries. "
            "Make it with n_shown=None to export it."
        )
        raise NotEnoughLogsError(message)
    return sorted(report.queries, key=lambda query: query.query_id)


def _texts(frame: pl.DataFrame) -> dict[str, str]:
    return dict(frame.group_by("query_id").agg(pl.col("query_text").min()).iter_rows())


def _answers(frame: pl.DataFrame, *, label: str) -> _Answers:
    means = [pl.col(name).mean() for name in ("performance", "cost_usd")]
    tokens = [pl.col(name).mean().round().cast(pl.Int64) for name in ("input_tokens", "output_tokens")]
    firsts = [pl.col(name).drop_nulls().first() for name in ("response", "reference")]
    cells = (
        frame.with_columns(performance=label_values(label_from_name(label)))
        .filter(pl.col("performance").is_not_null())
        .group_by("query_id", "candidate_id")
        .agg(*means, *tokens, *firsts)
    )
    return {
        (row.pop("query_id"), row.pop("candidate_id")): _Answer(**row) for row in cells.iter_rows(named=True)
    }


def _prediction(query: QueryOutcome, *, chosen: str, text: str, answers: _Answers) -> dict[str, Any]:
    answer = answers.get((query.query_id, chosen))
    return {
        "global index": query.query_id,
        "prompt": text,
        "prediction": chosen,
        "generated_result": None if answer is None else _generated(answer),
        "cost": None if answer is None else answer.cost_usd,
        "accuracy": None if answer is None else answer.performance,
        "for_optimality": False,
    }


def _generated(answer: _Answer) -> dict[str, Any] | None:
    if answer.response is None or answer.input_tokens is None or answer.output_tokens is None:
        return None
    return {
        "generated_answer": answer.response,
        "success": bool(answer.response.strip()),  # an empty answer counts as failed there
        "token_usage": {
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
        "provider": None,
        "error": None,
    }


def _check_scored(router: str, chosen: Mapping[str, str], answers: _Answers) -> None:
    missing = sum(cell not in answers for cell in chosen.items())
    if missing:
        message = (
            f"'{router}' chose {missing} of {len(chosen)} unscored answers; LLMRouterBench has "
            "a score for each. Export from logs in which every LLM answered every query."
        )
        raise NotEnoughLogsError(message)


def _record(number: int, query_id: str, *, chosen: str, text: str, answers: _Answers) -> dict[str, Any]:
    answer = answers[query_id, chosen]
    known = {
        "prediction": answer.response,
        "ground_truth": answer.reference,
        "score": answer.performance,
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "cost": answer.cost_usd,
        "raw_output": answer.response,
    }
    return {
        "index": number,
        "origin_query": text,
        "prompt": text,
        **{name: value for name, value in known.items() if value is not None},
        "extra_fields": {"query_id": query_id, "routed_to": chosen},
    }


def _result(records: Sequence[Mapping[str, Any]], *, task: str, model: str) -> dict[str, Any]:
    sums = {
        name: sum(record[name] for record in records)
        for name in ("prompt_tokens", "completion_tokens", "cost")
        if all(name in record for record in records)
    }
    return {
        "performance": sum(record["score"] for record in records) / len(records),
        **sums,
        "counts": len(records),
        "model_name": model,
        "dataset_name": task,
        "split": _SPLIT,
        "demo": False,
        "records": list(records),
    }


def _file_name(name: str) -> str:
    """Make a name one safe part of a path: no separator, no leading dot, different names stay different."""
    quoted = quote(name, safe=" ")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _write(path: Path, document: object) -> Path:
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactWriteError(f"'{path}' could not be written: {error}.") from error
    return path
