"""Open the database under a log store and run transactions on it.

Everything that is SQLite's or SQLAlchemy's own way of doing things ends here: locking, journal, pragmas, and
the errors, which leave as `LogStoreError` saying what to do.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    Table,
    create_engine,
    event,
    exc,
    inspect,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import ConnectionPoolEntry

from fusion_integrations.errors import InvalidPolicyError, LogStoreError
from fusion_integrations.logs.tables import METADATA, SCHEMA_VERSION, STORE_INFO

__all__ = ["Database"]

_MEMORY = ":memory:"

# By the start of SQLite's error name; https://www.sqlite.org/rescode.html
_ADVICE = {
    "SQLITE_BUSY": "Another process kept it locked for longer than the busy timeout. "
    "Try again, or open the store with a larger busy_timeout_s.",
    "SQLITE_LOCKED": "Another connection kept it locked. Try again.",
    "SQLITE_FULL": "The transaction was undone, nothing is half written. Free disk space and try again.",
    "SQLITE_IOERR": "The transaction was undone, nothing is half written. "
    "Check free space, quota and health of the disk and try again.",
    "SQLITE_NOTADB": "Pass the path of a log store, or of a file that does not exist.",
    "SQLITE_CORRUPT": "Restore a backup, or salvage what is left with the command 'sqlite3 FILE .recover'.",
    "SQLITE_READONLY": "This user may not write there. Change the permissions, or copy the store.",
    "SQLITE_CANTOPEN": "Check that its folder exists and that this user may write there: "
    "SQLite keeps two more files beside the store.",
}


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
    def open(cls, location: str | Path, *, create: bool, busy_timeout_s: float) -> Database:
        """Open the database and check that it holds a log store of this release's version.

        Args:
            location: File path, SQLAlchemy URL, or `":memory:"`.
            create: Whether to make the store if there is none.
            busy_timeout_s: Seconds to wait for other processes' writes.

        Returns:
            The open database; the caller closes it.

        Raises:
            LogStoreError: If there is no store of this version there, or it cannot be opened.
            InvalidPolicyError: If the timeout is negative or not finite.
        """
        if not (math.isfinite(busy_timeout_s) and busy_timeout_s >= 0):
            raise InvalidPolicyError(f"busy_timeout_s must be a finite number >= 0, got {busy_timeout_s}.")
        engine, label = _open_engine(location, create=create, busy_timeout_s=busy_timeout_s)
        database = cls(engine, label=label)
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
        """Begin a transaction that may write; it is committed to disk when the block ends without error."""
        return self._transaction(writes=True)

    def insert_new(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Make an INSERT that skips rows whose key is there already."""
        if self._engine.dialect.name == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def close(self) -> None:
        """Close all connections; closing twice does no harm."""
        self._is_closed = True
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        if self._is_closed:
            raise LogStoreError(f"Log store '{self.label}' is closed. Open it again with LogStore.open.")
        with _explained(self.label), self._engine.connect() as plain:
            connection = plain.execution_options(fusion_writes=writes)
            with connection.begin():
                yield connection

    def _prepare(self, *, create: bool) -> None:
        with self.read() as connection:
            version = self._version(connection)
        if version is None and create:
            with self.write() as connection:
                version = self._version(connection)  # another process may have been faster
                if version is None:
                    METADATA.create_all(connection, checkfirst=False)
                    connection.execute(STORE_INFO.insert(), {"schema_version": SCHEMA_VERSION})
                    version = SCHEMA_VERSION
        if version is None:
            raise LogStoreError(
                f"'{self.label}' is an empty database, not a log store. Pass create=True to fill it."
            )
        if version > SCHEMA_VERSION:
            message = (
                f"Log store '{self.label}' has schema version {version}, this release reads version "
                f"{SCHEMA_VERSION}. Upgrade the package: pip install -U fusion-integrations"
            )
            raise LogStoreError(message)
        if version < SCHEMA_VERSION:
            message = (
                f"Log store '{self.label}' has schema version {version}, this release reads version "
                f"{SCHEMA_VERSION} and has no migration. Export it to Parquet with the release that wrote it "
                "and import that into a new store."
            )
            raise LogStoreError(message)

    def _version(self, connection: Connection) -> int | None:
        """Read the schema version; None for a database without any table."""
        names = inspect(connection).get_table_names()
        if not names:
            return None
        if STORE_INFO.name not in names:
            listed = ", ".join(sorted(names)[:5])
            message = (
                f"'{self.label}' is a database but not a log store: it has the tables {listed}. "
                "Pass the path of a log store, or of a file that does not exist."
            )
            raise LogStoreError(message)
        versions = connection.scalars(select(STORE_INFO.c.schema_version)).all()
        if len(versions) != 1 or not isinstance(versions[0], int):
            message = (
                f"Log store '{self.label}' is damaged: its schema version reads {list(versions)}. "
                "Restore a backup."
            )
            raise LogStoreError(message)
        return versions[0]


_BACKENDS = ("sqlite", "postgresql")


def _open_engine(location: str | Path, *, create: bool, busy_timeout_s: float) -> tuple[Engine, str]:
    """Make the engine and the store's name in messages; a missing file is made here, tables are not."""
    text = str(location)
    if "://" in text and not isinstance(location, Path):
        url = _parse_url(text)
        if url.get_backend_name() != "sqlite":
            return _server_engine(url), str(url)  # str() hides the password
        text = url.database or _MEMORY
    if text == _MEMORY:
        return _sqlite_engine(text, busy_timeout_s=busy_timeout_s, n_connections=1), text
    with _explained(text):
        _prepare_file(Path(text), create=create, busy_timeout_s=busy_timeout_s)
    return _sqlite_engine(text, busy_timeout_s=busy_timeout_s, n_connections=8), text


def _parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except exc.ArgumentError as error:
        raise LogStoreError("The log store URL cannot be parsed. Write it as sqlite:///PATH.") from error
    backend = url.get_backend_name()
    if backend not in _BACKENDS:
        message = f"A log store cannot live in '{backend}'. Known: {', '.join(_BACKENDS)}."
        raise LogStoreError(message)
    if backend == "sqlite" and url.query:
        raise LogStoreError(
            f"Log store URL '{text}' has options, SQLite stores take none. Pass the path alone."
        )
    return url


def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(url)
    except ModuleNotFoundError as error:
        raise LogStoreError(
            f"The driver for log store '{url}' is missing: pip install {error.name}"
        ) from error


def _prepare_file(path: Path, *, create: bool, busy_timeout_s: float) -> None:
    """Check the path, and give a new file the write-ahead log, so that reading never waits for writing."""
    try:
        is_empty = path.stat().st_size == 0
    except FileNotFoundError:
        is_empty = True
        if not create:
            message = f"There is no log store at '{path}'. Check the path, or pass create=True to make one."
            raise LogStoreError(message) from None
        if not path.parent.is_dir():
            message = f"Log store '{path}' cannot be made: the folder '{path.parent}' does not exist."
            raise LogStoreError(message) from None
    except OSError as error:
        raise LogStoreError(f"Log store '{path}' cannot be reached: {error.strerror}.") from error
    if path.is_dir():
        raise LogStoreError(
            f"'{path}' is a folder. Pass the path of a file, for example '{path / 'logs.sqlite'}'."
        )
    if is_empty and create:
        _switch_to_wal(path, busy_timeout_s=busy_timeout_s)


def _switch_to_wal(path: Path, *, busy_timeout_s: float) -> None:
    """Set the journal mode, which the file remembers; no transaction can, so the tables come later.

    SQLite does not wait for locks here, whatever its timeout, so several processes that make one store at the
    same moment have to be made to wait.
    """
    deadline = time.monotonic() + busy_timeout_s
    with closing(sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _sqlite_engine(path: str, *, busy_timeout_s: float, n_connections: int) -> Engine:
    """Make an engine whose transactions are SQLite's own, not the driver's idea of them.

    One connection for a store in memory: it is the store, and threads take turns on it.
    """
    engine = create_engine(
        URL.create("sqlite", database=path),
        connect_args={"timeout": busy_timeout_s, "isolation_level": None, "check_same_thread": False},
        poolclass=QueuePool,
        pool_size=n_connections,
        max_overflow=0,
        pool_timeout=busy_timeout_s,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA foreign_keys=ON")
    # With a write-ahead log, FULL is what makes "committed" survive a power cut.
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    # The driver would begin late and shared, so that two writers could both read, then neither write.
    # IMMEDIATE takes the write lock first and waits for it up to the busy timeout.
    writes = connection.get_execution_options().get("fusion_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _explained(label: str) -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError as error:
        message = f"Log store '{label}' is busy: other threads hold all its connections. Try again."
        raise LogStoreError(message) from error
    except (sqlite3.Error, exc.DBAPIError) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        name = getattr(cause, "sqlite_errorname", "")
        advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), "")
        raise LogStoreError(f"Log store '{label}' failed: {cause}. {advice}".rstrip()) from error
