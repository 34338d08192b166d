"""PostgreSQL under a log store: many machines, many readers, one writer at a time.

Everything that is PostgreSQL's own way of doing things ends here: locking, snapshots, and what to do about
its errors.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from fusion_integrations._optional import require
from fusion_integrations.errors import LogStoreError

__all__ = ["compact_postgres", "postgres_advice", "postgres_engine"]

_LOCK_CLASS = 0x46554C4F  # "FULO": keeps our advisory locks apart from other programs'

# By the start of SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html
_ADVICE = {
    "3F000": "Create the schema that its search_path names first.",
    "42501": "This user lacks the right: grant it, or connect as the tables' owner.",
    "53": "The transaction was undone, nothing is half written. Free the server's resources and try again.",
    "54": "PostgreSQL cannot index ids of some thousand characters: shorten them.",
    "55P03": "Another process kept it locked for longer than the busy timeout. "
    "Try again, or open the store with a larger busy_timeout_s.",
    "57": "The server ended the transaction; nothing is half written. Try again.",
    "08": "The connection was lost. Try again: records that were stored all the same are left out.",
}
# Errors of connecting have no SQLSTATE.
_NO_STATE = (
    "Check that the server runs at that address, and that it knows the user, the password and the database, "
    "which has to be created first. If the connection was lost, try again: what was stored is left out then."
)

_NOT_OWNED = (
    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
    " AND tablename IN ('records', 'scores', 'queries') AND NOT pg_has_role(tableowner, 'USAGE')"
)
_OLDER_SNAPSHOTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL"
    " AND datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
_LONGEST_LOCK_TIMEOUT_MS = 2**31 - 1


def postgres_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Make an engine for a server.

    Args:
        url: Where it is; without a driver, or with `psycopg`.
        busy_timeout_s: Seconds to wait for locks, and for the connection.

    Returns:
        The engine; nothing is connected yet.

    Raises:
        MissingDependencyError: If `psycopg` is not installed.
        LogStoreError: If the URL names another driver.
    """
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise LogStoreError(
            f"Log stores use the driver psycopg, not '{url.drivername}': write postgresql://…"
        )
    require("psycopg", extra="postgres")
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": min(max(2, round(busy_timeout_s)), 3600)
        },  # libpq waits 2 s at least
        pool_size=8,
        max_overflow=0,
        pool_timeout=busy_timeout_s,
        pool_pre_ping=True,  # a server that was restarted meanwhile is no error
    )
    # 0 would mean to wait for ever.
    lock_timeout_ms = min(max(1, round(1000 * busy_timeout_s)), _LONGEST_LOCK_TIMEOUT_MS)

    def configure(connection: object, _record: ConnectionPoolEntry) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]  # DBAPI connections have no type
            cursor.execute(f"SET lock_timeout = {lock_timeout_ms}")
            # "Committed" has to survive a power cut, whatever the server's default; stricter ones stay.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()  # type: ignore[attr-defined]  # as above

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("fusion_writes")
    if writes:
        # One writer at a time, as SQLite does it. Without, numbers would be given before they are committed:
        # a reader that goes on from the last number it saw would miss records, and two writers that add the
        # same records in another order would end in a deadlock.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_CLASS}, hashtext(current_schema()))")
    elif writes is not None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def postgres_advice(error: BaseException) -> str:
    """Say what to do about an error of PostgreSQL; empty if nothing is known."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return _NO_STATE
    return next((text for start, text in _ADVICE.items() if state.startswith(start)), "")


def compact_postgres(engine: Engine) -> str:
    """Write the tables anew without what was removed, so that neither its space nor its content is left.

    Args:
        engine: Of a log store.

    Returns:
        What stood in the way; empty if nothing.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # VACUUM would skip tables of others with no more than a warning.
        if connection.exec_driver_sql(_NOT_OWNED).scalar():
            return "only the owner of its tables can compact them, connect as that user"
        n_older = connection.exec_driver_sql(_OLDER_SNAPSHOTS).scalar()
        connection.exec_driver_sql("VACUUM (FULL, ANALYZE) records, scores, queries")
    return f"{n_older} transactions were open in the database and may see what it held" if n_older else ""
