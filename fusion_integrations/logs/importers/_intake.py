"""Move what a reader finds into a log store: in batches, repeatable, with bad rows set aside.

Every format needs exactly this; an importer itself only says how its rows become calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers._contract import Call, Dropped, Outcome, Rejected, explained
from fusion_integrations.logs.importers._quarantine import Quarantine
from fusion_integrations.logs.importers._records import DUPLICATE, Made, RecordMaker
from fusion_integrations.logs.importers._redaction import may_be_redacted_from
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore

__all__ = ["BadRows", "ImportReport", "Intake"]

BadRows = Literal["set_aside", "stop"]

# Records of a transaction: many, for their ids are hashes that go all over an index, whose pages are written
# once a transaction; but no more text than fits into memory with ease.
_MAX_RECORDS = 20_000
_MAX_CHARACTERS = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of the rows of an import; every row is added, known, dropped or quarantined.

    Attributes:
        source: The source the records carry.
        n_rows: Rows read; of nested or wide sources the spans or cells.
        n_added: Rows that became new records.
        n_known: Rows whose record the store had before.
        n_dropped: Rows that are no call to learn from, by reason.
        n_quarantined: Rows that could not be used.
        n_scores_left_out: Scores on another scale than 0 to 1, of rows that were added.
        n_scores_added: Scores that known records got, because their source has learned more since, or says
            more of a call in another row.
        quarantine: File with the rows that could not be used and the reason of each; None if there were none.
    """

    source: str
    n_rows: int
    n_added: int
    n_known: int
    n_dropped: Mapping[str, int]
    n_quarantined: int
    n_scores_left_out: int
    n_scores_added: int
    quarantine: Path | None


class Intake:
    """One import into one store.

    Args:
        store: Where the records go.
        maker: Makes records of calls.
        aside: Where rows go that cannot be used.
        bad_rows: Whether such rows go there or the first of them ends the import.
    """

    def __init__(self, store: LogStore, *, maker: RecordMaker, aside: Quarantine, bad_rows: BadRows) -> None:
        self._store = store
        self._maker = maker
        self._aside = aside
        self._bad_rows = bad_rows
        self._n_rows = self._n_added = self._n_known = self._n_left_out = self._n_scores_added = 0
        self._n_dropped: Counter[str] = Counter()

    def run(self, found: Iterable[Outcome], *, on_progress: Callable[[int], None] | None) -> None:
        """Store what a reader finds, a transaction for every 20,000 records.

        Args:
            found: What the reader yields; memory holds the records of one transaction.
            on_progress: Called with the number of rows done after every transaction.

        Raises:
            LogSchemaError: With `bad_rows="stop"`, at the first row that cannot be used; those before it are
                stored.
            LogStoreError: If the store or the quarantine file cannot be written. Transactions before are
                stored; importing again goes on from there.
        """
        stop: Rejected | None = None
        made: list[Made] = []
        n_characters = 0
        for outcome in found:
            stop = self._take(outcome, made)
            if stop is not None:
                break
            if made and made[-1].call is outcome:
                n_characters += _length(made[-1].record)
            if len(made) >= _MAX_RECORDS or n_characters >= _MAX_CHARACTERS:
                stop = self._add(made)
                if stop is not None:
                    raise _stopped(stop)
                made, n_characters = [], 0
                if on_progress is not None:
                    on_progress(self._n_rows)
        stop = self._add(made) or stop
        if stop is not None:
            raise _stopped(stop)
        if on_progress is not None:
            on_progress(self._n_rows)

    def report(self, *, source: str, quarantine: Path) -> ImportReport:
        """Count what was done."""
        return ImportReport(
            source=source,
            n_rows=self._n_rows,
            n_added=self._n_added,
            n_known=self._n_known,
            n_dropped=dict(self._n_dropped),
            n_quarantined=self._aside.n_rows,
            n_scores_left_out=self._n_left_out,
            n_scores_added=self._n_scores_added,
            quarantine=quarantine if self._aside.n_rows else None,
        )

    def _take(self, outcome: Outcome, made: list[Made]) -> Rejected | None:
        """Sort one outcome; give back what ends the import."""
        self._n_rows += 1
        found: Outcome | Made = outcome
        if isinstance(outcome, Call):
            try:
                found = self._maker.make(outcome)
            except (ValueError, RecursionError) as error:
                found = Rejected(row=outcome.row, reason=explained(error))
        if isinstance(found, Made):
            made.append(found)
        elif isinstance(found, Dropped):
            self._n_dropped[found.reason] += 1
        elif isinstance(found, Rejected):
            return self._reject(found)
        return None

    def _add(self, made: list[Made]) -> Rejected | None:
        known = self._store.get(each.record.record_id for each in made)
        new: list[Made] = []
        old: list[tuple[Made, LogRecord]] = []
        stop = None
        for each in made:
            twin = known.setdefault(each.record.record_id, each.record)
            if twin is each.record:
                new.append(each)
            elif each.original is not None and not _is_same_call(twin, each.original):
                stop = self._reject(Rejected(row=each.call.row, reason=_clash(each.record, twin)))
                if stop is not None:
                    break
            else:
                if each.is_repeat:
                    self._n_dropped[DUPLICATE] += 1
                else:
                    self._n_known += 1
                old.append((each, twin))  # of a repeat too: exports may give each score of a call its own row
        scores = [score for each in new for score in each.scores]
        result = self._store.add([each.record for each in new], scores)
        self._n_added += result.n_added
        self._n_known += result.n_known
        self._n_left_out += sum(each.n_left_out for each in new)
        self._score_again(old)
        return stop

    def _score_again(self, old: list[tuple[Made, LogRecord]]) -> None:
        """Store what known records are worth by now: what users think of an answer comes long after it."""
        later: dict[str, list[Score]] = {}
        for made, twin in old:
            # Rows without an id of their own are numbered repeats: whose score it is, their order decides.
            scores = [score for score in made.scores if made.is_repeat or score.created_at > twin.created_at]
            if scores and made.original is not None:
                later.setdefault(twin.record_id, []).extend(scores)
        stored = self._store.scores_of(later)
        news = [
            score
            for record_id, scores in later.items()
            for score in _news(scores, stored.get(record_id, []), now=self._maker.now)
        ]
        self._n_scores_added += self._store.add_scores(news)

    def _reject(self, rejected: Rejected) -> Rejected | None:
        if self._bad_rows == "stop":
            return rejected
        self._aside.add(rejected.row, rejected.reason)
        return None


def _length(record: LogRecord) -> int:
    return len(record.response or "") + sum(len(turn.content) for turn in record.messages)


def _is_same_call(first: LogRecord, second: LogRecord) -> bool:
    # Either may have been redacted, in whatever way: the log by who wrote it, the store by an earlier import.
    return _may_be_redacted_from(first, second) or _may_be_redacted_from(second, first)


def _may_be_redacted_from(redacted: LogRecord, original: LogRecord) -> bool:
    if [turn.role for turn in redacted.messages] != [turn.role for turn in original.messages]:
        return False
    turns = zip(redacted.messages, original.messages, strict=True)
    return (
        may_be_redacted_from(redacted.candidate_id, original.candidate_id)
        and may_be_redacted_from(redacted.response, original.response)
        and may_be_redacted_from(redacted.error, original.error)
        and all(may_be_redacted_from(turn.content, other.content) for turn, other in turns)
    )


def _news(given: list[Score], stored: list[Score], *, now: datetime) -> Iterator[Score]:
    """Give the scores of a record that tell more than those in the store.

    Args:
        given: What its source says today.
        stored: What the store has.
        now: Moment of the scores of which the source does not say when they were given: they are news if the
            scorer's latest ones are others, all of them then, for they stand together.

    Yields:
        Scores to add.
    """
    for scorer, scores in _by_scorer(given).items():
        before = _by_scorer(stored).get(scorer, [])
        latest = max((score.created_at for score in before), default=None)
        standing = {score.value for score in before if score.created_at == latest}
        is_changed = {score.value for score in scores if score.created_at == now} != standing
        moments = {score.created_at for score in before}
        for score in scores:
            if is_changed if score.created_at == now else score.created_at not in moments:
                yield score


def _by_scorer(scores: Iterable[Score]) -> dict[tuple[str, str, str], list[Score]]:
    found: dict[tuple[str, str, str], list[Score]] = {}
    for score in scores:
        found.setdefault((score.kind, score.scorer, score.version), []).append(score)
    return found


def _clash(record: LogRecord, twin: LogRecord) -> str:
    # Leaving it out silently would lose an answer; storing it would need a second identity.
    return (
        f"source id '{record.source_id}' of source '{record.source}' already belongs to another call "
        f"(query {twin.query_id}, candidate '{twin.candidate_id}'). Map a column that is unique to each row, "
        "map none, or pass another source."
    )


def _stopped(rejected: Rejected) -> LogSchemaError:
    place = (
        f"Row {rejected.row.number} of '{rejected.row.file}'"
        if rejected.row.file
        else f"Row {rejected.row.number}"
    )
    return LogSchemaError(
        f"{place} cannot be used: {rejected.reason} "
        "Correct it, or let such rows be set aside; the rows before it are stored."
    )
