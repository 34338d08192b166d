"""Bring a log store to another revision of its tables, up or down.

Alembic's work, in one transaction and one at a time; never done unasked, for the release that wrote the store
can no longer read it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from threading import Lock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs._database import Database
from fusion_integrations.logs._revisions import FIRST_REVISION, read_revision, write_revision
from fusion_integrations.logs.tables import REVISION, VERSION

__all__ = ["migrate_store"]

_ALEMBIC = Lock()  # it keeps what it works on in global variables


def migrate_store(
    location: str | Path, *, revision: str = REVISION, busy_timeout_s: float = 30.0
) -> tuple[str, str]:
    """Change the tables of a log store to those of another revision; its records and scores stay.

    One transaction: it happens as a whole or not at all, and other processes wait for it. Copy the store
    first if it matters.

    Args:
        location: Path of an SQLite file or an SQLAlchemy URL.
        revision: Where to go, newer or older; default: what this release reads.
        busy_timeout_s: Seconds to wait while another process writes.

    Returns:
        The revision before and after.

    Raises:
        LogStoreError: If there is no store, it is of a revision that this release does not know, the wanted
            one is unknown, or the database fails; nothing is changed then.
        InvalidPolicyError: If the timeout is negative or not finite.
    """
    database = Database.connect(location, create=False, busy_timeout_s=busy_timeout_s)
    try:
        with database.write() as connection:
            before = read_revision(connection, label=database.label)
            if before is None:
                raise LogStoreError(f"'{database.label}' is an empty database, not a log store.")
            with _ALEMBIC, as_file(files(__name__)) as folder:
                _run(connection, folder, before=before, revision=revision, label=database.label)
    finally:
        database.close()
    return before, revision


def _run(connection: Connection, folder: Path, *, before: str, revision: str, label: str) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    for name, wanted in ((f"'{label}'", before), ("the request", revision)):
        if wanted not in known:
            message = (
                f"Revision '{wanted}' of {name} is unknown to this release, which knows {', '.join(known)}. "
                "Upgrade the package if the store is newer: pip install -U fusion-integrations"
            )
            raise LogStoreError(message)
    if before == FIRST_REVISION and not connection.dialect.has_table(connection, VERSION.name):
        write_revision(connection, FIRST_REVISION)
    move: Callable[[Any, str], None] = (
        command.upgrade if known.index(revision) >= known.index(before) else command.downgrade
    )
    move(config, revision)
