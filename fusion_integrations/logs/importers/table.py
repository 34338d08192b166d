"""Import logs from any CSV, JSONL or Parquet table whose columns can be named.

The general importer: formats that need more than a mapping of columns get a file of their own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._intake import ImportReport, quarantine_path, store_rows
from fusion_integrations.logs.importers._readers import check_columns, read_rows
from fusion_integrations.logs.schema import Assignment, LogRecord, Score, ScoreKind, import_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import fingerprint

__all__ = ["ColumnMapping", "ImportReport", "import_table"]

_PENDING = "pending"  # a record's id until its content is validated and can be hashed
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
_MOMENT: TypeAdapter[datetime] = TypeAdapter(datetime)


class ColumnMapping(BaseModel):
    """Which column of a table holds what; columns that are not named are ignored.

    Give `query` or `messages`, and `candidate` or `model` (or both of these).

    Attributes:
        query: The question as plain text.
        messages: The conversation: a list of objects with `role` and `content`, or that as JSON text.
        candidate: Id of the candidate.
        model: Name of the LLM. Without `candidate` it is the id, with `:` and the prompt mode unless direct.
        prompt_mode: `direct`, `reasoning` or `thought`; empty means direct.
        response: The answer.
        error: What went wrong, for failed calls.
        performance: Task metric, 0 to 1 or true/false; empty means not scored.
        judge_score: An LLM judge's score, 0 to 1; empty means not judged.
        task: Name of the task family.
        reference: The right answer; kept as JSON text unless it is text.
        metric: Name of the metric.
        input_tokens: Prompt tokens.
        output_tokens: Answer tokens.
        cost_usd: Cost of the call in USD.
        latency_s: Duration of the call in seconds.
        propensity: Probability with which the candidate was chosen.
        session_id: What groups the calls of one user or conversation.
        created_at: Moment of the call: ISO 8601 or seconds since 1970; read as UTC if it has no zone.
        source_id: Identity of the row, unique in the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    query: str | None = None
    messages: str | None = None
    candidate: str | None = None
    model: str | None = None
    prompt_mode: str | None = None
    response: str | None = None
    error: str | None = None
    performance: str | None = None
    judge_score: str | None = None
    task: str | None = None
    reference: str | None = None
    metric: str | None = None
    input_tokens: str | None = None
    output_tokens: str | None = None
    cost_usd: str | None = None
    latency_s: str | None = None
    propensity: str | None = None
    session_id: str | None = None
    created_at: str | None = None
    source_id: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.query is None) == (self.messages is None):
            raise ValueError("Map exactly one of query and messages.")
        if self.candidate is None and self.model is None:
            raise ValueError("Map candidate or model: a log must say who answered.")
        return self


def import_table(
    path: str | Path,
    store: LogStore,
    *,
    columns: ColumnMapping,
    source: str | None = None,
    assignment: Assignment = "unknown",
    quarantine: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
    now: datetime | None = None,
) -> ImportReport:
    """Import a CSV, TSV, JSONL or Parquet file (by its suffix) into a log store.

    Importing a file again adds nothing. Rows that cannot be used go to the quarantine file with the reason
    and the import goes on. Without `source_id`, a row is identified by its call (query, candidate, answer,
    error, session, moment) and by which repeat of that call it is; scores are no part of it.

    Memory holds a batch of rows and, unless `source_id` is mapped, about 100 bytes a row to count repeats.

    Args:
        path: The file.
        store: Where the records go.
        columns: Which column holds what.
        source: Name of the source; part of every record's identity. Default: the file's name.
        assignment: How candidates came to be chosen in this log.
        quarantine: File for unusable rows. Default: beside the source, `.quarantine.jsonl` appended.
        on_progress: Called with the number of rows done after every batch.
        now: Moment for rows without `created_at`, and of their scores. Default: the start of the import.

    Returns:
        How many rows were added, known and quarantined.

    Raises:
        LogSchemaError: If the file cannot be read, is of another kind, or lacks a mapped column (lists those
            there are); if source or assignment is none.
        LogStoreError: If the store or the quarantine file cannot be written.
    """
    path = Path(path)
    source = path.name if source is None else source
    if not source.strip():
        raise LogSchemaError("The source of an import needs a non-blank name.")
    if assignment not in get_args(Assignment):
        raise LogSchemaError(
            f"assignment must be one of {', '.join(get_args(Assignment))}, got '{assignment}'."
        )
    by_field: dict[str, str] = columns.model_dump(exclude_none=True)
    used = sorted(set(by_field.values()))
    check_columns(path, used)
    return store_rows(
        read_rows(path, used),
        store,
        convert=_RowConverter(by_field, source=source, assignment=assignment, now=now or datetime.now(UTC)),
        source=source,
        quarantine=quarantine_path(path) if quarantine is None else Path(quarantine),
        on_progress=on_progress,
    )


class _RowConverter:
    """Makes records of rows; remembers the calls it has seen, to number their repeats."""

    def __init__(
        self, by_field: Mapping[str, str], *, source: str, assignment: Assignment, now: datetime
    ) -> None:
        self._by_field = by_field
        self._source = source
        self._assignment = assignment
        self._now = now
        self._n_seen: Counter[str] = Counter()

    def __call__(self, row: Mapping[str, object]) -> tuple[LogRecord, list[Score]]:
        """Turn the values of a row into a record and its scores; a ValueError says why it cannot be done."""
        values = {name: row.get(column) for name, column in self._by_field.items()}
        values = {name: value for name, value in values.items() if not _is_missing(value)}
        scores = {kind: values.pop(name) for name, kind in _SCORES.items() if name in values}
        record = self._with_identity(self._record(values), has_moment="created_at" in values)
        return record, [self._score(record, kind, value) for kind, value in scores.items()]

    def _record(self, values: dict[str, object]) -> LogRecord:
        fields = {name: values[name] for name in _RECORD_FIELDS if name in values}
        fields |= {name: _as_text(values[name]) for name in _TEXT_FIELDS if name in values}
        return LogRecord(
            record_id=_PENDING,
            messages=_messages(values),
            candidate_id=_candidate_id(values),
            created_at=_moment(values["created_at"]) if "created_at" in values else self._now,
            source=self._source,
            assignment=self._assignment,
            **fields,
        )

    def _with_identity(self, record: LogRecord, *, has_moment: bool) -> LogRecord:
        if record.source_id is not None:
            record_id = import_record_id(source=self._source, source_id=record.source_id)
            return record.model_copy(update={"record_id": record_id})
        moment = record.created_at.isoformat() if has_moment else None
        call = [
            record.query_id,
            record.candidate_id,
            record.response,
            record.error,
            record.session_id,
            moment,
        ]
        digest = fingerprint(call)
        sample = self._n_seen[digest]
        self._n_seen[digest] += 1
        source_id = f"{digest}-{sample}"
        record_id = import_record_id(source=self._source, source_id=source_id)
        return record.model_copy(update={"record_id": record_id, "source_id": source_id, "sample": sample})

    def _score(self, record: LogRecord, kind: ScoreKind, value: object) -> Score:
        if isinstance(value, str):
            value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
        try:
            return Score(
                record_id=record.record_id,
                kind=kind,
                scorer=f"import:{self._source}",
                version="",
                value=value,
                created_at=self._now,
            )
        except ValidationError as error:
            raise ValueError(f"{kind}: not a number between 0 and 1, got {value!r:.200}") from error


def _is_missing(value: object) -> bool:
    # Tables write "unknown" as NaN where a column of numbers has no null.
    return value is None or (isinstance(value, float) and math.isnan(value))


def _messages(values: Mapping[str, object]) -> object:
    if "query" in values:
        return [{"role": "user", "content": values["query"]}]
    messages = values.get("messages")
    return json.loads(messages) if isinstance(messages, str) else messages


def _candidate_id(values: Mapping[str, object]) -> object:
    if "candidate" in values or "model" not in values:
        return values.get("candidate")
    mode = values.get("prompt_mode", "direct")
    return values["model"] if mode == "direct" else f"{values['model']}:{mode}"


def _as_text(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    )


def _moment(value: object) -> datetime:
    moment = _MOMENT.validate_python(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
