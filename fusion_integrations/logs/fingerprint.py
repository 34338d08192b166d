"""One hash for the part of the logs that training reads.

A manifest carries it, so that anybody can tell whether two artifacts learned from the same logs.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from fusion_integrations.errors import LogSchemaError

__all__ = ["log_fingerprint"]

_TEXTS = ("query_id", "candidate_id", "candidate_revision")
_NUMBERS = ("performance", "judge_score", "cost_usd", "input_tokens", "output_tokens")


def log_fingerprint(frame: pl.DataFrame) -> str:
    """Hash who answered what, how well and at what price.

    Covers the columns query_id, candidate_id, candidate_revision, performance, judge_score, cost_usd,
    input_tokens and output_tokens; texts of queries and answers are not read (query_id hashes the messages).

    Args:
        frame: A table in `LOG_SCHEMA`, or any with those columns.

    Returns:
        64 hexadecimal digits of SHA-256. Equal for equal rows in any order, on any machine.

    Raises:
        LogSchemaError: If a column is missing.
    """
    missing = [name for name in (*_TEXTS, *_NUMBERS) if name not in frame.columns]
    if missing:
        message = f"The logs have no column {', '.join(missing)}; there are: {', '.join(frame.columns)}."
        raise LogSchemaError(message)
    # Missing values have one form (null) and zero one sign, or equal logs could hash differently.
    rows = frame.select(
        *(pl.col(name).cast(pl.String) for name in _TEXTS),
        *((pl.col(name).cast(pl.Float64).fill_nan(None) + 0.0) for name in _NUMBERS),
    )
    rows = rows.sort(rows.columns, nulls_last=True)
    digest = hashlib.sha256(f"{rows.height} rows".encode())
    for name in _TEXTS:
        encoded = [(text or "").encode() for text in rows[name]]
        digest.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
        digest.update(b"".join(encoded))
    for name in _NUMBERS:
        values = rows[name].to_numpy().astype("<f8")
        is_missing = np.isnan(values)
        digest.update(np.packbits(is_missing).tobytes())
        digest.update(np.where(is_missing, 0.0, values).tobytes())
    return digest.hexdigest()
