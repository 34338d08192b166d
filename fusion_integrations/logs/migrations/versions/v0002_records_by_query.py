"""Find the records of a query by index, without which removing queries reads all records for each.

The number in `store_info` makes room for Alembic's own table.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the index, drop the old version number."""
    op.create_index("records_by_query", "records", ["query_id"])
    op.drop_table("store_info")


def downgrade() -> None:
    """Put the old version number back, drop the index."""
    store_info = op.create_table("store_info", sa.Column("schema_version", sa.Integer, nullable=False))
    op.bulk_insert(store_info, [{"schema_version": 1}])
    op.drop_index("records_by_query", "records")
