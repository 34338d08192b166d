"""Which revision of the tables a database holds, and how a new store gets the newest."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Integer, MetaData, Table, inspect, select

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs.tables import METADATA, RECORDS, REVISION, VERSION

__all__ = ["FIRST_REVISION", "check_revision", "create_tables", "read_revision", "write_revision"]

FIRST_REVISION = "0001"
"""Revision of the stores of the first release, which did not use Alembic."""

_STORE_INFO = Table("store_info", MetaData(), Column("schema_version", Integer, nullable=False))


def read_revision(connection: Connection, *, label: str) -> str | None:
    """Read the revision of the tables.

    Args:
        connection: An open transaction.
        label: How messages name the database.

    Returns:
        The revision; None for a database without any table.

    Raises:
        LogStoreError: If the tables are somebody else's, or the revision is unreadable.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    if VERSION.name in names:
        revisions: list[object] = [*connection.scalars(select(VERSION.c.version_num))]
        if len(revisions) == 1:
            return str(revisions[0])
        raise _damaged(label, revisions)
    if _STORE_INFO.name in names and RECORDS.name in names:
        versions: list[object] = [*connection.scalars(select(_STORE_INFO.c.schema_version))]
        if versions == [1]:
            return FIRST_REVISION
        raise _damaged(label, versions)
    listed = ", ".join(sorted(names)[:5])
    message = (
        f"'{label}' is a database but not a log store: it has the tables {listed}. Pass a log store, a file "
        "that does not exist, or an empty database or schema."
    )
    raise LogStoreError(message)


def write_revision(connection: Connection, revision: str) -> None:
    """Note the revision where Alembic looks for it, in a database that has no such note."""
    VERSION.create(connection, checkfirst=True)
    connection.execute(VERSION.insert(), {"version_num": revision})


def create_tables(connection: Connection) -> None:
    """Make the tables of the newest revision in an empty database."""
    METADATA.create_all(connection, checkfirst=False)
    write_revision(connection, REVISION)


def check_revision(revision: str, *, label: str) -> None:
    """Make sure that this release reads stores of a revision.

    Args:
        revision: Revision of the store.
        label: How the message names the store.

    Raises:
        LogStoreError: If it is older or newer; says what to do.
    """
    if revision == REVISION:
        return
    start = f"Log store '{label}' has revision {revision}, this release reads revision {REVISION}."
    if revision < REVISION:
        raise LogStoreError(f"{start} Copy it, then bring it up to date: fusion logs migrate '{label}'")
    raise LogStoreError(f"{start} Upgrade the package: pip install -U fusion-integrations")


def _damaged(label: str, found: list[object]) -> LogStoreError:
    return LogStoreError(f"Log store '{label}' is damaged: its revision reads {found}. Restore a backup.")
