"""Turn a call, as a reader found it, into a record with an identity, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from fusion_integrations.logs.importers._contract import Call, Dropped, GivenScore
from fusion_integrations.logs.importers._redaction import Redactor
from fusion_integrations.logs.importers._seen import SeenIds
from fusion_integrations.logs.schema import Assignment, LogRecord, Score, import_record_id
from fusion_integrations.types import fingerprint

__all__ = ["DUPLICATE", "Made", "RecordMaker"]

DUPLICATE = "duplicate row"  # why a row is dropped

_PENDING = "pending"  # a record's id until its content is validated and can be hashed
_TRUTH = {"true": 1.0, "false": 0.0}

# What identifies a call that has no id of its own; the moment does too, if it has one.
_identity = attrgetter("query_id", "candidate_id", "response", "error", "session_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A record and what belongs to it.

    Attributes:
        call: What it was made of.
        record: The record, redacted.
        original: The record as it was. None if its id is a hash of it: equal ids then mean equal calls.
        scores: Its scores.
        n_left_out: Scores that lie outside 0 to 1.
        is_repeat: Whether this import has met the record's id before.
    """

    call: Call
    record: LogRecord
    original: LogRecord | None
    scores: list[Score]
    n_left_out: int
    is_repeat: bool


class RecordMaker:
    """Makes records of calls; remembers the calls it has seen, to number their repeats.

    Args:
        source: Name of the source.
        assignment: How candidates came to be chosen, where the call does not say.
        override: Says it for every call, whatever the source says.
        now: Moment of calls that have none, and of scores.
        redactor: Takes out what must not be stored.
        seen: Where ids are remembered.
    """

    def __init__(
        self,
        *,
        source: str,
        assignment: Assignment,
        override: Assignment | None,
        now: datetime,
        redactor: Redactor,
        seen: SeenIds,
    ) -> None:
        self._source = source
        self._defaults: dict[str, Any] = {
            "record_id": _PENDING,
            "created_at": now,
            "assignment": assignment,
        }
        self._override: Mapping[str, Any] = {} if override is None else {"assignment": override}
        self.now = now
        self._redactor = redactor
        self._seen = seen

    def make(self, call: Call) -> Made | Dropped:
        """Make the record of a call.

        Args:
            call: The call.

        Returns:
            The record, redacted, and its scores; or that this import has met the very same call, moment and
            scores included.

        Raises:
            ValueError: If it is no valid record, or a score that must be one is none.
        """
        fields = {"source": self._source, **self._defaults, **call.fields, **self._override}
        record = LogRecord(**fields)
        given = list(call.scores)
        is_hashed = "record_id" not in call.fields and record.source_id is None
        if is_hashed:
            record, is_repeat = self._numbered(record, call)
        else:
            if record.source_id is not None and "record_id" not in call.fields:
                record_id = import_record_id(source=self._source, source_id=record.source_id)
                record = record.model_copy(update={"record_id": record_id})
            is_repeat = self._seen.add(record.record_id) > 0
        # Identity comes from the text as it was: importing again with another redaction adds nothing.
        redacted = self._redactor.record(record)
        scores = [score for each in given if (score := self._score(redacted, each)) is not None]
        if is_hashed and is_repeat:  # only now: a bad row is set aside, however often it is there
            return Dropped(row=call.row, reason=DUPLICATE)
        return Made(
            call=call,
            record=redacted,
            original=None if is_hashed else record,
            scores=scores,
            n_left_out=len(given) - len(scores),
            is_repeat=is_repeat,
        )

    def _numbered(self, record: LogRecord, call: Call) -> tuple[LogRecord, bool]:
        # Equal calls without a moment are repeats of one call. The same call at the same moment is one row
        # written twice, unless something else tells the rows apart, as a second judge's score does.
        has_moment = "created_at" in call.fields
        digest = fingerprint([*_identity(record), record.created_at.isoformat() if has_moment else None])
        if has_moment:
            row = hash(tuple(map(str, call.row.values.values())))  # tells the few rows of a call apart
            if self._seen.add(f"{digest} {row}") > 0:
                return record, True
        sample = self._seen.add(digest)
        source_id = f"{digest}-{sample}"
        record_id = import_record_id(source=self._source, source_id=source_id)
        update = {"record_id": record_id, "source_id": source_id, "sample": sample}
        return record.model_copy(update=update), False

    def _score(self, record: LogRecord, given: GivenScore) -> Score | None:
        value = given.value
        if isinstance(value, str):
            value = _TRUTH.get(value.strip().lower(), value)
        try:
            score = Score(
                record_id=record.record_id,
                kind=given.kind,
                scorer=given.scorer or f"import:{self._source}",
                version=given.version,
                value=value,
                reason=given.reason,
                created_at=given.created_at or self.now,
            )
        except ValidationError as error:
            if not given.is_required:
                return None
            raise ValueError(f"{given.kind}: not a number between 0 and 1, got {value!r:.200}") from error
        return self._redactor.score(score)
