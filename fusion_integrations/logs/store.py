"""The log store: every call of every candidate and what it was worth, kept across runs and processes.

One concrete class on SQLAlchemy Core, because logs outlive the code that wrote them and several processes
(applications, collectors, importers) write to one store at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import polars as pl
from sqlalchemy import Column, Connection, RowMapping, Select, func, select

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs._database import Database
from fusion_integrations.logs.duplicates import Duplicate, find_duplicates
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.removal import remove_duplicates, remove_matching
from fusion_integrations.logs.rows import (
    frame_from_rows,
    messages_to_json,
    record_from_row,
    record_to_row,
    score_from_row,
    score_to_row,
)
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store_counts import AddResult, LogStats
from fusion_integrations.logs.tables import QUERIES, RECORDS, SCORES

__all__ = ["LogStore"]

_PAGE = 5_000  # rows held as Python objects at a time
_IDS_PER_STATEMENT = 900  # below the fewest variables an SQLite build allows, 999

_T = TypeVar("_T")

_RECORD_COLUMNS = [column for column in RECORDS.columns if column is not RECORDS.c.record_no]
_RECORDS_WITH_MESSAGES = select(RECORDS, QUERIES.c.messages).join_from(RECORDS, QUERIES)
_ALL = LogFilter()


class LogStore:
    """A database of log records and their scores; make one with `LogStore.open`.

    Writing methods return when the data is committed to disk; before that nothing of the call is visible to
    anybody. Threads and processes may share a store. Every method raises `LogStoreError` if the database
    fails, with the reason and what to do. Calls block: keep them off an event loop.

    Args:
        database: The open database; the store closes it.

    Example:
        >>> from datetime import UTC, datetime
        >>> from fusion_integrations.types import Message
        >>> record = LogRecord(
        ...     record_id="run-1",
        ...     messages=(Message(role="user", content="What is 2 + 2?"),),
        ...     candidate_id="small",
        ...     response="4",
        ...     created_at=datetime.now(UTC),
        ...     source="docs",
        ... )
        >>> with LogStore.open(":memory:") as store:
        ...     store.add([record])
        ...     store.add([record])
        AddResult(n_added=1, n_known=0)
        AddResult(n_added=0, n_known=1)
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, location: str | Path, *, create: bool = True, busy_timeout_s: float = 30.0) -> Self:
        """Open a log store, and make it if there is none.

        Args:
            location: Path of an SQLite file on a local disk, `postgresql://USER@HOST/DATABASE` (extra
                `postgres`), or `":memory:"` for a store that ends with this object.
            create: Whether to make a missing store; False raises instead.
            busy_timeout_s: Seconds to wait while another process writes.

        Returns:
            The open store; close it, or use it in a `with` statement.

        Raises:
            LogStoreError: If there is no store of this release's revision and none may be made, if something
                else lies there, or if it is damaged, locked or out of reach.
            MissingDependencyError: If the driver for PostgreSQL is not installed.
            InvalidPolicyError: If the timeout is negative or not finite.
        """
        return cls(Database.open(location, create=create, busy_timeout_s=busy_timeout_s))

    def add(self, records: Iterable[LogRecord], scores: Iterable[Score] = ()) -> AddResult:
        """Store records and their scores, all or nothing.

        A record whose id the store knows is left as it is, and its scores here are left out too: adding the
        same data again changes nothing. Use `add_scores` to score a stored record.

        Args:
            records: Calls to store; of several with one id the first counts.
            scores: What those calls were worth.

        Returns:
            How many records were new and how many known.

        Raises:
            LogSchemaError: If a score belongs to none of the records.
            LogStoreError: If the database fails; nothing was stored.
        """
        given = list(records)
        by_id: dict[str, LogRecord] = {}
        for record in given:
            by_id.setdefault(record.record_id, record)
        scores = list(scores)
        _refuse_unknown(
            {score.record_id for score in scores} - by_id.keys(), place="this call; use add_scores"
        )
        if not by_id:
            return AddResult(n_added=0, n_known=0)
        # Rows are made before the transaction, for others wait for it; known ones are looked up within, where
        # nobody else writes.
        record_rows = {record_id: record_to_row(record) for record_id, record in by_id.items()}
        queries = {record.query_id: record.messages for record in by_id.values()}
        query_rows = [
            {"query_id": key, "messages": messages_to_json(value)} for key, value in queries.items()
        ]
        with self._database.write() as connection:
            for record_id in _known(connection, by_id):
                del record_rows[record_id]
            if record_rows:
                connection.execute(self._database.insert_new(QUERIES), query_rows)
                self._database.insert_many(connection, RECORDS, list(record_rows.values()))
                self._insert_scores(connection, [each for each in scores if each.record_id in record_rows])
        return AddResult(n_added=len(record_rows), n_known=len(given) - len(record_rows))

    def add_scores(self, scores: Iterable[Score]) -> int:
        """Score stored records; earlier scores stay, the latest of a kind counts.

        Args:
            scores: Scores of records in the store; all are stored or none.

        Returns:
            How many scores were stored.

        Raises:
            LogSchemaError: If a score belongs to no record in the store.
            LogStoreError: If the database fails; nothing was stored.
        """
        scores = list(scores)
        ids = {score.record_id for score in scores}
        if ids:
            with self._database.write() as connection:
                _refuse_unknown(ids - _known(connection, ids), place=f"log store '{self._database.label}'")
                self._insert_scores(connection, scores)
        return len(scores)

    def known(self, record_ids: Iterable[str]) -> set[str]:
        """Return those of the ids that the store has a record of."""
        with self._database.read() as connection:
            return _known(connection, set(record_ids))

    def get(self, record_ids: Iterable[str]) -> dict[str, LogRecord]:
        """Return the records of those ids, by id; unknown ids are left out."""
        found: dict[str, LogRecord] = {}
        with self._database.read() as connection:
            for ids in _id_chunks(set(record_ids)):
                rows = connection.execute(
                    _RECORDS_WITH_MESSAGES.where(RECORDS.c.record_id.in_(ids))
                ).mappings()
                found |= {row["record_id"]: self._decode(record_from_row, row) for row in rows}
        return found

    def records(self, where: LogFilter = _ALL) -> Iterator[LogRecord]:
        """Iterate over records in order of arrival; the store may be written to meanwhile.

        Args:
            where: Which; default: all.

        Returns:
            An iterator that holds some thousand records in memory at a time.
        """
        statement = _RECORDS_WITH_MESSAGES.where(where.condition())
        return self._pages(statement, RECORDS.c.record_no, record_from_row)

    def scores(self) -> Iterator[Score]:
        """Yield all scores, outdated ones too, in order of arrival; the store may be written to meanwhile."""
        return self._pages(select(SCORES), SCORES.c.score_no, score_from_row)

    def scores_of(self, record_ids: Iterable[str]) -> dict[str, list[Score]]:
        """Return the scores of those records, by record id, in order of arrival; without scores left out."""
        found: dict[str, list[Score]] = {}
        with self._database.read() as connection:
            for ids in _id_chunks(set(record_ids)):
                chosen = select(SCORES).where(SCORES.c.record_id.in_(ids)).order_by(SCORES.c.score_no)
                for row in connection.execute(chosen).mappings():
                    found.setdefault(row["record_id"], []).append(self._decode(score_from_row, row))
        return found

    def to_frame(self, where: LogFilter = _ALL) -> pl.DataFrame:
        """Return the store as of this moment as one table.

        Args:
            where: Which records; default: all.

        Returns:
            A frame in `LOG_SCHEMA`, one row a record in order of arrival. `performance`, `judge_score` and
            `feedback` hold the latest score of that kind (of equal moments the last stored), null if none.
        """
        records = select(*_RECORD_COLUMNS).where(where.condition()).order_by(RECORDS.c.record_no)
        queries = select(QUERIES.c.query_id, QUERIES.c.messages)
        scores = select(SCORES.c.record_id, SCORES.c.kind, SCORES.c.value)
        scores = scores.order_by(SCORES.c.created_at_us, SCORES.c.score_no)
        if not where.is_empty:
            queries = queries.where(
                QUERIES.c.query_id.in_(select(RECORDS.c.query_id).where(where.condition()))
            )
            scores = scores.where(
                SCORES.c.record_id.in_(select(RECORDS.c.record_id).where(where.condition()))
            )
        with self._database.read() as connection:
            return frame_from_rows(
                records=connection.execute(records.execution_options(yield_per=_PAGE)).partitions(),
                queries=connection.execute(queries.execution_options(yield_per=_PAGE)).partitions(),
                scores=connection.execute(scores.execution_options(yield_per=_PAGE)).partitions(),
            )

    def stats(self) -> LogStats:
        """Count what the store holds."""
        by_candidate = (
            select(RECORDS.c.candidate_id, func.count().label("n"))
            .group_by(RECORDS.c.candidate_id)
            .order_by(func.count().desc(), RECORDS.c.candidate_id)
        )
        with self._database.read() as connection:
            counts = {row.candidate_id: row.n for row in connection.execute(by_candidate)}
            return LogStats(
                n_records=sum(counts.values()),
                n_failed=connection.scalar(select(func.count(RECORDS.c.error))) or 0,
                n_queries=connection.scalar(select(func.count(RECORDS.c.query_id.distinct()))) or 0,
                n_scores=connection.scalar(select(func.count(SCORES.c.score_no))) or 0,
                n_records_by_candidate=counts,
            )

    def count(self, where: LogFilter = _ALL) -> int:
        """Count records.

        Args:
            where: Which; default: all.

        Returns:
            Their number.
        """
        with self._database.read() as connection:
            return connection.scalar(select(func.count(RECORDS.c.record_no)).where(where.condition())) or 0

    def remove(self, where: LogFilter) -> int:
        """Remove records, their scores, and queries that no other record is about; all or nothing.

        What was removed may stay readable in the database's files until `compact`.

        Args:
            where: Which; at least one condition.

        Returns:
            How many records were removed.

        Raises:
            InvalidPolicyError: If the filter is empty: to remove everything, remove the database.
            LogStoreError: If the database fails; nothing was removed.
        """
        with self._database.write() as connection:
            return remove_matching(connection, where)

    def compact(self) -> None:
        """Give the space of removed records back, and leave nothing of their content in the store's files.

        A server's write-ahead log, replicas and backups are beyond its reach.

        Raises:
            LogStoreError: If others use the store at this moment, the disk has no room for a copy of it, or
                on PostgreSQL the user does not own the tables; removed content may then still be there.
        """
        self._database.compact()

    def duplicates(self, *, within_s: float = 5.0) -> list[Duplicate]:
        """Find calls that several sources reported: same query, candidate, sample, answer, and near in time.

        Args:
            within_s: Seconds that the sources' clocks may differ by, at most.

        Returns:
            Each superfluous record with the one to keep, which says more about the call.

        Raises:
            InvalidPolicyError: If `within_s` is negative or not finite.
            LogStoreError: If the database fails.
        """
        with self._database.read() as connection:
            return find_duplicates(connection, within_s=within_s)

    def dedupe(self, *, within_s: float = 5.0) -> list[Duplicate]:
        """Remove what `duplicates` finds; scores of a removed record go to the one that is kept.

        Args:
            within_s: Seconds that the sources' clocks may differ by, at most.

        Returns:
            What was removed, and what was kept for it.

        Raises:
            InvalidPolicyError: If `within_s` is negative or not finite.
            LogStoreError: If the database fails; nothing was removed.
        """
        with self._database.write() as connection:
            found = find_duplicates(connection, within_s=within_s)
            remove_duplicates(connection, found)
        return found

    @property
    def label(self) -> str:
        """How messages name the store: its path, or its URL without the password."""
        return self._database.label

    def close(self) -> None:
        """Close the store; closing twice does no harm."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def _insert_scores(self, connection: Connection, scores: list[Score]) -> None:
        if scores:
            self._database.insert_many(connection, SCORES, [score_to_row(score) for score in scores])

    def _pages(
        self, statement: Select[Any], number: Column[int], decode: Callable[[RowMapping], _T]
    ) -> Iterator[_T]:
        # A transaction a page: a slow reader would otherwise keep SQLite's write-ahead log from shrinking.
        last = 0
        while True:
            page = statement.where(number > last).order_by(number).limit(_PAGE)
            with self._database.read() as connection:
                rows = connection.execute(page).mappings().all()
            for row in rows:
                yield self._decode(decode, row)
            if len(rows) < _PAGE:
                return
            last = rows[-1][number.name]

    def _decode(self, decode: Callable[[RowMapping], _T], row: RowMapping) -> _T:
        try:
            return decode(row)
        except (ValueError, TypeError) as error:
            message = (
                f"Log store '{self._database.label}' is damaged at record '{row['record_id']}': {error}. "
                "Restore a backup."
            )
            raise LogStoreError(message) from error


def _known(connection: Connection, ids: Collection[str]) -> set[str]:
    found: set[str] = set()
    for chunk in _id_chunks(ids):
        found.update(connection.scalars(select(RECORDS.c.record_id).where(RECORDS.c.record_id.in_(chunk))))
    return found


def _id_chunks(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _IDS_PER_STATEMENT):
        yield ordered[start : start + _IDS_PER_STATEMENT]


def _refuse_unknown(record_ids: set[str], *, place: str) -> None:
    if record_ids:
        listed = ", ".join(f"'{record_id}'" for record_id in sorted(record_ids)[:3])
        more = f" and {len(record_ids) - 3} more" if len(record_ids) > 3 else ""
        raise LogSchemaError(f"There are scores of records that are not in {place}: {listed}{more}.")
