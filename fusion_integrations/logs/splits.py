"""Split logs into parts that share no question and no conversation.

Near-duplicates on both sides of a split make every router, template and student look better than it is; so do
turns of one conversation, which repeat what was said before.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError

__all__ = [
    "duplicate_key",
    "grouped_folds",
    "holdout_mask",
    "query_groups",
    "sessions_of_queries",
    "split_by_query",
]

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SEPARATORS = re.compile(r"[\W_]+")
_LARGEST_SESSION = 0.1  # of the queries; more are a job or a person, which hold unlike conversations


def duplicate_key(text: str) -> str:
    """Reduce a text to what near-duplicates share: its words, without case, numbers and punctuation.

    Args:
        text: A query.

    Returns:
        A key, equal for texts that differ only in letter case, Unicode form, numbers, punctuation or white
        space. A text of symbols alone keeps them.

    Example:
        >>> duplicate_key("What is 17 * 24?") == duplicate_key("what is  3.5 * 2")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    key = _SEPARATORS.sub(" ", _NUMBER.sub("0", folded)).strip()
    return key or " ".join(folded.split())


def sessions_of_queries(frame: pl.DataFrame) -> dict[str, str]:
    """Say which session a query is of, where it is of one.

    Args:
        frame: A table in `LOG_SCHEMA`.

    Returns:
        Sessions by query id; queries of no session, or of several, are missing.
    """
    known = frame.filter(pl.col("session_id").is_not_null())
    found = known.group_by("query_id").agg(pl.col("session_id").unique())
    single = found.filter(pl.col("session_id").list.len() == 1)
    return dict(single.select("query_id", pl.col("session_id").list.first()).iter_rows())


def query_groups(
    duplicate_keys: Sequence[str], sessions: Sequence[str | None], *, max_share: float = _LARGEST_SESSION
) -> list[str]:
    """Say which queries belong together: those of a session, else near-duplicates.

    What many sessions begin with, such as a greeting, is a group of its own.

    Args:
        duplicate_keys: `duplicate_key` of n queries.
        sessions: n sessions, or None where unknown.
        max_share: A session that holds more than this share of the queries does not count as one.

    Returns:
        n keys, as `grouped_folds` wants them.
    """
    sizes, largest = Counter(sessions), max_share * len(duplicate_keys)
    kept = [session if sizes[session] <= largest else None for session in sessions]
    sessions_of: dict[str, set[str | None]] = {}
    for key, session in zip(duplicate_keys, kept, strict=True):
        sessions_of.setdefault(key, set()).add(session)
    return [
        key if session is None or len(sessions_of[key]) > 1 else f"session: {session}"
        for key, session in zip(duplicate_keys, kept, strict=True)
    ]


def grouped_folds(group_keys: Sequence[str], *, n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Assign rows to cross-validation folds so that rows of one group stay together.

    Largest groups first, each into the fold with the fewest rows so far; which of equal groups comes first is
    random. The order of the rows does not matter.

    Args:
        group_keys: n keys; rows with equal keys form a group; see `query_groups`.
        n_folds: Number of folds, at least 2.
        seed: Seed of the random choice.

    Returns:
        Array (n,) of fold numbers from 0 to n_folds - 1; every fold has a row.

    Raises:
        InvalidPolicyError: If n_folds is below 2.
        NotEnoughLogsError: If there are fewer groups than folds.
    """
    if n_folds < 2:
        raise InvalidPolicyError(f"n_folds must be at least 2, got {n_folds}.")
    sizes = Counter(group_keys)
    if len(sizes) < n_folds:
        message = f"{len(sizes)} groups cannot fill {n_folds} folds. Collect more logs or use fewer folds."
        raise NotEnoughLogsError(message)
    fold_sizes = [0] * n_folds
    fold_of: dict[str, int] = {}
    for key in sorted(_shuffled(sizes, seed=seed), key=lambda key: -sizes[key]):
        fold = fold_sizes.index(min(fold_sizes))
        fold_of[key] = fold
        fold_sizes[fold] += sizes[key]
    return np.array([fold_of[key] for key in group_keys], dtype=np.int64)


def holdout_mask(group_keys: Sequence[str], *, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose rows to hold out so that rows of one group stay together.

    Groups are taken in random order while they fit into the wanted number of rows. The order of the rows does
    not matter.

    Args:
        group_keys: n keys; rows with equal keys form a group; see `query_groups`.
        fraction: Share of the rows to hold out, between 0 and 1.
        seed: Seed of the random choice.

    Returns:
        Array (n,), True where held out: at most the wanted share, at least the smallest group.

    Raises:
        InvalidPolicyError: If the fraction is not strictly between 0 and 1.
        NotEnoughLogsError: If there are fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise InvalidPolicyError(f"fraction must lie strictly between 0 and 1, got {fraction}.")
    sizes = Counter(group_keys)
    if len(sizes) < 2:
        message = f"{len(sizes)} groups cannot be split. Collect logs of at least 2 different queries."
        raise NotEnoughLogsError(message)
    order = _shuffled(sizes, seed=seed)
    wanted = round(fraction * len(group_keys))
    held_out: set[str] = set()
    for key in order:
        if sizes[key] <= wanted and len(held_out) < len(sizes) - 1:
            held_out.add(key)
            wanted -= sizes[key]
    held_out = held_out or {min(order, key=lambda key: sizes[key])}
    return np.array([key in held_out for key in group_keys], dtype=np.bool_)


def split_by_query(frame: pl.DataFrame, *, fraction: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split logs so that near-duplicate queries, and those of a session, stay together.

    Args:
        frame: A table in `LOG_SCHEMA`.
        fraction: Share of the queries to hold out, between 0 and 1.
        seed: Seed of the random choice.

    Returns:
        The records to train on, and those held out, each in the order of the table.

    Raises:
        InvalidPolicyError: If the fraction is not strictly between 0 and 1.
        NotEnoughLogsError: If there are fewer than two groups of queries.
    """
    queries = frame.select("query_id", "query_text").unique("query_id", keep="first", maintain_order=True)
    session_of = sessions_of_queries(frame)
    sessions = [session_of.get(query_id) for query_id in queries["query_id"]]
    keys = query_groups([duplicate_key(text) for text in queries["query_text"]], sessions)
    is_held_out = holdout_mask(keys, fraction=fraction, seed=seed)
    in_test = pl.col("query_id").is_in(queries["query_id"].filter(pl.Series(is_held_out)).implode())
    return frame.filter(~in_test), frame.filter(in_test)


def _shuffled(keys: Counter[str], *, seed: int) -> list[str]:
    ordered = sorted(keys)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
