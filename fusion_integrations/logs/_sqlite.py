"""SQLite under a log store: one file, many readers, one writer at a time.

Everything that is SQLite's own way of doing things ends here: locking, journal, pragmas, and what to do about
its errors.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, QueuePool, Table, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from fusion_integrations.errors import LogStoreError

__all__ = ["MEMORY", "compact_sqlite", "insert_many_sqlite", "prepare_file", "sqlite_advice", "sqlite_engine"]

MEMORY = ":memory:"
"""Location of a store that is no file and ends with its connection."""

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


def sqlite_advice(error: BaseException) -> str:
    """Say what to do about an error of SQLite; empty if nothing is known."""
    name = getattr(error, "sqlite_errorname", "")
    return next((text for start, text in _ADVICE.items() if name.startswith(start)), "")


def prepare_file(path: Path, *, create: bool, busy_timeout_s: float) -> None:
    """Check the path, and give a new file the write-ahead log, so that reading never waits for writing."""
    try:
        is_empty = path.stat().st_size == 0
    except FileNotFoundError:
        is_empty = True
        if not create:
            message = f"There is no log store at '{path}'. Check the path. "
            raise LogStoreError(message + "LogStore.open makes one with create=True.") from None
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


def sqlite_engine(path: str, *, busy_timeout_s: float, n_connections: int) -> Engine:
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
    # Ids are hashes and go all over their indexes: with the default of 2 MiB a long log is read and written
    # again for every transaction.
    connection.execute("PRAGMA cache_size=-65536")  # KiB


def _begin(connection: Connection) -> None:
    # The driver would begin late and shared, so that two writers could both read, then neither write.
    # IMMEDIATE takes the write lock first and waits for it up to the busy timeout.
    writes = connection.get_execution_options().get("fusion_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def compact_sqlite(engine: Engine) -> str:
    """Write the file anew without what was removed, so that neither its space nor its content is left.

    Args:
        engine: Of a log store.

    Returns:
        What stood in the way; empty if nothing.
    """
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((is_busy, _, _),) = cursor.fetchall()
    return "others are reading it, and need what it held when they began" if is_busy else ""


def insert_many_sqlite(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows that all have the same columns.

    SQLAlchemy would look every value of every row up for conversion; ours need none, and imports of a million
    rows take a tenth less time.
    """
    names = list(rows[0])
    sql = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
    connection.exec_driver_sql(sql, [tuple(map(row.__getitem__, names)) for row in rows])
