"""Open the database under a log store and run transactions on it.

The one place that knows both kinds of database; their errors leave it as `LogStoreError` saying what to do.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, Table, exc
from sqlalchemy.dialects import postgresql, sqlite

from fusion_integrations.errors import InvalidPolicyError, LogStoreError
from fusion_integrations.logs._postgres import compact_postgres, postgres_advice, postgres_engine
from fusion_integrations.logs._revisions import check_revision, create_tables, read_revision
from fusion_integrations.logs._sqlite import (
    MEMORY,
    compact_sqlite,
    insert_many_sqlite,
    prepare_file,
    sqlite_advice,
    sqlite_engine,
)
from fusion_integrations.logs.location import parse_location, store_label
from fusion_integrations.logs.tables import REVISION

__all__ = ["Database"]


class Database:
    """A SQLAlchemy engine that speaks in transactions and `LogStoreError`s.

    Args:
        engine: Where the tables are.
        label: How messages name the store; holds no password.
    """

    def __init__(self, engine: Engine, *, label: str) -> None:
        self.label = label
        self._engine = engine
        self._is_closed = False

    @classmethod
    def connect(cls, location: str | Path, *, create: bool, busy_timeout_s: float) -> Database:
        """Reach for a database, whatever it holds.

        Args:
            location: File path, SQLAlchemy URL, or `":memory:"`.
            create: Whether to make a missing SQLite file.
            busy_timeout_s: Seconds to wait for other processes' writes.

        Returns:
            The database; the caller closes it.

        Raises:
            LogStoreError: If the location is none, or the file is missing or cannot be opened.
            MissingDependencyError: If the driver of the database is not installed.
            InvalidPolicyError: If the timeout is negative or not finite.
        """
        if not (math.isfinite(busy_timeout_s) and busy_timeout_s >= 0):
            raise InvalidPolicyError(f"busy_timeout_s must be a finite number >= 0, got {busy_timeout_s}.")
        engine, label = _open_engine(location, create=create, busy_timeout_s=busy_timeout_s)
        return cls(engine, label=label)

    @classmethod
    def open(cls, location: str | Path, *, create: bool, busy_timeout_s: float) -> Database:
        """Open the database and check that it holds a log store of the revision that this release reads.

        Args:
            location: File path, SQLAlchemy URL, or `":memory:"`.
            create: Whether to make the store if there is none.
            busy_timeout_s: Seconds to wait for other processes' writes.

        Returns:
            The open database; the caller closes it.

        Raises:
            LogStoreError: If there is no store of this revision there, or it cannot be opened.
            MissingDependencyError: If the driver of the database is not installed.
            InvalidPolicyError: If the timeout is negative or not finite.
        """
        database = cls.connect(location, create=create, busy_timeout_s=busy_timeout_s)
        try:
            database._prepare(create=create)
        except BaseException:
            database.close()
            raise
        return database

    def read(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that sees one moment of the store and blocks nobody."""
        return self._transaction(writes=False)

    def write(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that may write; it is committed to disk when the block ends without error.

        One writer at a time: others wait up to the busy timeout.
        """
        return self._transaction(writes=True)

    def compact(self) -> None:
        """Give the space of removed rows back and leave nothing of their content; needs to be alone."""
        self._refuse_closed()
        compact = compact_sqlite if self._engine.dialect.name == "sqlite" else compact_postgres
        with _explained(self.label):
            obstacle = compact(self._engine)
        if obstacle:
            message = (
                f"What was removed from log store '{self.label}' may still be in its files: {obstacle}. "
                "Compact it again then."
            )
            raise LogStoreError(message)

    def insert_new(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Make an INSERT that skips rows whose key is there already."""
        if self._engine.dialect.name == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_many(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows, at least one, that all have the same columns.

        Args:
            connection: A transaction that may write.
            table: Where to.
            rows: Values by column.
        """
        if self._engine.dialect.name == "sqlite":
            insert_many_sqlite(connection, table, rows)
        else:
            connection.execute(table.insert(), rows)

    def close(self) -> None:
        """Close all connections; closing twice does no harm."""
        self._is_closed = True
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        self._refuse_closed()
        with _explained(self.label), self._engine.connect() as plain:
            connection = plain.execution_options(fusion_writes=writes)
            with connection.begin():
                yield connection

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise LogStoreError(f"Log store '{self.label}' is closed. Open it again with LogStore.open.")

    def _prepare(self, *, create: bool) -> None:
        with self.read() as connection:
            revision = read_revision(connection, label=self.label)
        if revision is None and create:
            with self.write() as connection:
                revision = read_revision(connection, label=self.label)  # another process may have been faster
                if revision is None:
                    create_tables(connection)
                    revision = REVISION
        if revision is None:
            message = f"'{self.label}' is an empty database, not a log store. "
            raise LogStoreError(message + "LogStore.open fills it with create=True.")
        check_revision(revision, label=self.label)


def _open_engine(location: str | Path, *, create: bool, busy_timeout_s: float) -> tuple[Engine, str]:
    """Make the engine and the store's name in messages; a missing file is made here, tables are not."""
    place = parse_location(location)
    if isinstance(place, URL):
        return postgres_engine(place, busy_timeout_s=busy_timeout_s), store_label(location)
    if place == MEMORY:
        return sqlite_engine(place, busy_timeout_s=busy_timeout_s, n_connections=1), place
    with _explained(place):
        prepare_file(Path(place), create=create, busy_timeout_s=busy_timeout_s)
    return sqlite_engine(place, busy_timeout_s=busy_timeout_s, n_connections=8), place


@contextmanager
def _explained(label: str) -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError as error:
        message = f"Log store '{label}' is busy: other threads hold all its connections. Try again."
        raise LogStoreError(message) from error
    except (sqlite3.Error, exc.DBAPIError) as error:
        cause = (error.orig if isinstance(error, exc.DBAPIError) else error) or error
        advice = sqlite_advice(cause) if isinstance(cause, sqlite3.Error) else postgres_advice(cause)
        # Servers answer in several lines.
        raise LogStoreError(
            f"Log store '{label}' failed: {' '.join(str(cause).split())}. {advice}".rstrip()
        ) from error
