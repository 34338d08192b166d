"""Alembic's entry: run migrations on the connection, and in the transaction, of `migrate_store`."""

from __future__ import annotations

from alembic import context

from fusion_integrations.logs.tables import METADATA, VERSION

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION.name,
)
context.run_migrations()
