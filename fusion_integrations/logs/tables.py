"""The tables of a log store, for SQLAlchemy Core.

Kept apart from the store so that the SQL schema, which outlives releases, can be read on one page.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, Table, Text

__all__ = ["METADATA", "QUERIES", "RECORDS", "SCHEMA_VERSION", "SCORES", "STORE_INFO"]

# Raise with every change below; a store of another version is refused, not guessed at.
SCHEMA_VERSION = 1

METADATA = MetaData()

# SQLite numbers rows by itself only in a column declared exactly INTEGER; elsewhere 64 bits are wanted.
_Number = BigInteger().with_variant(Integer(), "sqlite")

STORE_INFO = Table("store_info", METADATA, Column("schema_version", Integer, nullable=False))

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
