"""The tables of the first release; its stores carry their number in `store_info`."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Do nothing: stores of the first release were made by it."""


def downgrade() -> None:
    """Refuse: before the first tables there is no store."""
    raise NotImplementedError("There is no revision before 0001.")
