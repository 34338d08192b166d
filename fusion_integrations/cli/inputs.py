"""Read queries, candidates and logs: from files, or the demo's own under the words that stand for them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fusion_integrations.collection.candidates_file import CandidateSet, load_candidates
from fusion_integrations.demo.candidates import (
    BASE_CANDIDATES,
    DEMO_OPTIONS,
    DEMO_PRICES,
    LEVEL_CANDIDATES,
)
from fusion_integrations.demo.models import demo_client
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.errors import EmptyQueryError, LogSchemaError
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, Message, Query

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "DEMO",
    "DEMO_LEVELS",
    "DemoLogPart",
    "log_name",
    "read_candidates",
    "read_logs",
    "read_queries",
]

DEMO = "demo"
"""As queries: all of the demo's; as candidates: its LLMs as they come; as logs: the shipped ones."""

DEMO_LEVELS = "demo-levels"
"""As candidates: the demo's thought level and student; as queries: those that these were not made from."""

DemoLogPart = Literal["all", "train", "teaching", "routing", "test"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_YAML = (".yaml", ".yml")


def read_queries(source: str) -> list[Query]:
    """Read queries from a file.

    Args:
        source: A JSONL, YAML (a list), CSV or TSV file whose entries have `text` or, but for CSV and TSV,
            `messages`, and may have `task`, `reference` and `metric`; or `demo` for all demo queries, or
            `demo-levels` for those that the demo's templates and student were not made from.

    Returns:
        The queries, in the file's order; at least one.

    Raises:
        LogSchemaError: If the file cannot be read, is of another kind, is empty, or an entry is malformed;
            says which.

    An entry without text raises `EmptyQueryError`, which says the same.
    """
    if source in (DEMO, DEMO_LEVELS):
        tasks = generate_tasks()
        return [*(tasks.train if source == DEMO else tasks.routing), *tasks.test]
    path = Path(source)
    queries: list[Query] = []
    try:
        for place, entry in _entries(path):
            queries.append(_query(entry, path=path, place=place))
    except (OSError, UnicodeDecodeError, csv.Error, yaml.YAMLError) as error:
        raise LogSchemaError(f"Queries file '{path}' cannot be read: {error}") from error
    if not queries:
        raise LogSchemaError(f"Queries file '{path}' holds no query.")
    return queries


def read_candidates(source: str) -> CandidateSet:
    """Read who answers.

    Args:
        source: A candidates file, in which the demo's models have the client kind `demo`; or `demo` for the
            demo's LLMs as they come, or `demo-levels` for what its thought level and model level add.

    Returns:
        The candidates; their models are loaded when first asked.

    Errors of `load_candidates` pass through.
    """
    if source == DEMO:
        return _demo_candidates(BASE_CANDIDATES, thoughts=None)
    if source == DEMO_LEVELS:
        from fusion_integrations.demo.thoughts import demo_prompter

        return _demo_candidates(LEVEL_CANDIDATES, thoughts=demo_prompter())
    return load_candidates(source, kinds={DEMO: demo_client})


def read_logs(source: str, *, demo_part: DemoLogPart) -> pl.DataFrame:
    """Read logs.

    Args:
        source: A log store, an exported Parquet file, or `demo` for the demo's log.
        demo_part: What `demo` stands for: `"all"` of its log; of its training queries `"train"` all,
            `"teaching"` the answers that templates and student are made from, `"routing"` what the same
            candidates answered to the others; or `"test"`, the held-out queries.

    Returns:
        A frame in `LOG_SCHEMA`.

    Errors of `load_logs` pass through.
    """
    import polars as pl

    from fusion_integrations.demo.demo_log import load_demo_logs, split_demo_logs, teaching_logs
    from fusion_integrations.logs.frame import load_logs

    if source != DEMO:
        return load_logs(source)
    frame = load_demo_logs()
    if demo_part == "all":
        return frame
    if demo_part == "teaching":
        return teaching_logs(frame)
    train, test = split_demo_logs(frame)
    if demo_part == "routing":
        asked = [query.query_id for query in generate_tasks().routing]
        bases = [candidate.id for candidate in BASE_CANDIDATES]
        return train.filter(pl.col("query_id").is_in(asked) & pl.col("candidate_id").is_in(bases))
    return train if demo_part == "train" else test


def log_name(location: str) -> str:
    """Name logs after their file or database; the rest of a URL may hold a password."""
    from fusion_integrations.logs.location import parse_location

    place = parse_location(location)
    return Path(place).resolve().stem if isinstance(place, str) else place.database or "logs"


def _demo_candidates(candidates: tuple[Candidate, ...], *, thoughts: ThoughtPrompter | None) -> CandidateSet:
    return CandidateSet(
        candidates=candidates,
        prices=DEMO_PRICES,
        options={candidate.id: DEMO_OPTIONS[candidate.id] for candidate in candidates},
        clients=_DemoClients(candidate.model for candidate in candidates),
        thoughts=thoughts,
    )


class _QueryEntry(BaseModel):
    # Numbers become text: a YAML file says `reference: 7`.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    text: str | None = None
    messages: tuple[Message, ...] | None = None
    task: str | None = None
    reference: str | None = None
    metric: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
        return self


class _DemoClients(Mapping[str, ChatClient]):
    """The demo's clients by model, each loaded once, when it is first asked for."""

    def __init__(self, models: Iterable[str]) -> None:
        self._models = tuple(dict.fromkeys(models))
        self._made: dict[str, ChatClient] = {}

    def __getitem__(self, model: str) -> ChatClient:
        if model not in self._models:
            raise KeyError(model)
        if model not in self._made:
            self._made[model] = demo_client(model, {}, Path())
        return self._made[model]

    def __contains__(self, model: object) -> bool:
        return model in self._models  # Mapping would load the model to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


def _entries(path: Path) -> Iterator[tuple[str, object]]:
    """Yield every entry of a queries file with the words for where it stands."""
    suffix = path.suffix.lower()
    if suffix in _JSON_LINES:
        yield from _json_lines(path)
    elif suffix in _YAML:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise LogSchemaError(f"Queries file '{path}' must be a YAML list of queries.")
        for number, entry in enumerate(entries, start=1):
            yield f"entry {number}", entry
    elif suffix in _DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=_DELIMITERS[suffix]), start=1):
                yield f"row {number}", {name: value or None for name, value in row.items()}
    else:
        known = ", ".join((*_JSON_LINES, *_YAML, *_DELIMITERS))
        message = (
            f"Queries file '{path}' is of no known kind. Use one of {known}, or the word {DEMO} or "
            f"{DEMO_LEVELS}."
        )
        raise LogSchemaError(message)


def _json_lines(path: Path) -> Iterator[tuple[str, object]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LogSchemaError(f"Queries file '{path}', line {number}: not JSON: {error}.") from error


def _query(entry: object, *, path: Path, place: str) -> Query:
    try:
        read = _QueryEntry.model_validate(entry)
        messages = read.messages or (Message(role="user", content=read.text or ""),)
        return Query(messages=messages, task=read.task, reference=read.reference, metric=read.metric)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
            for problem in error.errors(include_url=False)
        )
        raise LogSchemaError(f"Queries file '{path}', {place}: {problems}.") from error
    except EmptyQueryError as error:
        raise EmptyQueryError(f"Queries file '{path}', {place}: {error}") from error
