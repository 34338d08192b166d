"""Remove records from the tables without losing what others need: scores move, shared queries stay."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, select, update

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.duplicates import Duplicate
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.tables import QUERIES, RECORDS, SCORES

__all__ = ["remove_duplicates", "remove_matching"]


def remove_matching(connection: Connection, where: LogFilter) -> int:
    """Remove records, their scores, and queries that no other record is about.

    Args:
        connection: A transaction that may write.
        where: Which records; at least one condition.

    Returns:
        How many records were removed.

    Raises:
        InvalidPolicyError: If the filter is empty.
    """
    if where.is_empty:
        message = "An empty filter would remove every record. Give a condition, or delete the store itself."
        raise InvalidPolicyError(message)
    doomed = select(RECORDS.c.record_id).where(where.condition())
    connection.execute(delete(SCORES).where(SCORES.c.record_id.in_(doomed)))
    n_removed = connection.execute(delete(RECORDS).where(where.condition())).rowcount
    is_used = select(RECORDS.c.record_no).where(RECORDS.c.query_id == QUERIES.c.query_id).exists()
    connection.execute(delete(QUERIES).where(~is_used))
    return n_removed


def remove_duplicates(connection: Connection, duplicates: Sequence[Duplicate]) -> None:
    """Remove superfluous records; their scores go to the record that is kept.

    Args:
        connection: A transaction that may write.
        duplicates: What to remove, and what is kept for it.
    """
    if not duplicates:
        return
    pairs = [{"superfluous": each.removed, "kept": each.kept} for each in duplicates]
    move = update(SCORES).where(SCORES.c.record_id == bindparam("superfluous"))
    connection.execute(move.values(record_id=bindparam("kept")), pairs)
    connection.execute(delete(RECORDS).where(RECORDS.c.record_id == bindparam("superfluous")), pairs)
