"""The tables of a log store, for SQLAlchemy Core.

Kept apart from the store so that the SQL schema, which outlives releases, can be read on one page.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.types import TypeDecorator

__all__ = ["METADATA", "QUERIES", "RECORDS", "REVISION", "SCORES", "VERSION"]

REVISION = "0002"
"""Revision of the tables below, the newest in `migrations/versions`; every change here needs a new one."""

METADATA = MetaData()


class _TextWithNul(TypeDecorator[str]):
    """Text for PostgreSQL, whose own cannot hold the character NUL, which LLMs do write."""

    impl = SqlText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write NUL as an escape, and the escape character as another."""
        del dialect
        if value is None or not ("\0" in value or _ESCAPE in value):
            return value
        return value.replace(_ESCAPE, f"{_ESCAPE}1").replace("\0", f"{_ESCAPE}0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Read what `process_bind_param` wrote."""
        del dialect
        if value is None or _ESCAPE not in value:
            return value
        return value.replace(f"{_ESCAPE}0", "\0").replace(f"{_ESCAPE}1", _ESCAPE)


_ESCAPE = "\x1a"  # the control character "substitute"
Text = SqlText().with_variant(_TextWithNul(), "postgresql")

# SQLite numbers rows by itself only in a column declared exactly INTEGER; elsewhere 64 bits are wanted.
_Number = BigInteger().with_variant(Integer(), "sqlite")

# Alembic's table under a name of ours, for the database may be home to other programs' migrations.
VERSION = Table("fusion_logs_version", METADATA, Column("version_num", String(32), primary_key=True))

# The messages of a query are stored once, however many candidates answered it.
QUERIES = Table(
    "queries",
    METADATA,
    Column("query_id", Text, primary_key=True),
    Column("messages", Text, nullable=False),  # JSON: [{"role": ..., "content": ...}, ...]
)

RECORDS = Table(
    "records",
    METADATA,
    Column("record_no", _Number, primary_key=True),  # order of arrival
    Column("record_id", Text, nullable=False, unique=True),
    Column("query_id", Text, ForeignKey("queries.query_id"), nullable=False),
    Column("task", Text),
    Column("reference", Text),
    Column("metric", Text),
    Column("candidate_id", Text, nullable=False),
    Column("candidate_revision", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt_mode", Text, nullable=False),
    Column("planned_candidate_id", Text),
    Column("response", Text),
    Column("error", Text),
    Column("finish_reason", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("latency_s", Double),
    Column("assignment", Text, nullable=False),
    Column("propensity", Double),
    Column("eligible", Text, nullable=False),  # JSON: ["candidate id", ...]
    Column("session_id", Text),
    Column("created_at_us", BigInteger, nullable=False),  # microseconds since 1970 UTC: exact everywhere
    Column("source", Text, nullable=False),
    Column("source_id", Text),
    Column("sample", BigInteger, nullable=False),
    Index("records_by_query", "query_id"),
)

SCORES = Table(
    "scores",
    METADATA,
    Column("score_no", _Number, primary_key=True),  # order of arrival
    Column("record_id", Text, ForeignKey("records.record_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("scorer", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Index("scores_by_record", "record_id"),
)
