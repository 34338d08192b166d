"""Logs as pairs to learn from: a query as it was asked, and an answer worth imitating.

The prompt is the query without any prompt mode, whatever mode its teacher was given: the student is to answer
like the best of them when it is simply asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np
import polars as pl

from fusion_integrations.errors import LogSchemaError, NotEnoughLogsError, UnknownCandidateError
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.rows import messages_from_json
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
from fusion_integrations.scoring.top_answers import top_answers
from fusion_integrations.types import Message

__all__ = ["REFERENCE", "DistillationDataset", "SftPair"]

REFERENCE = "reference"
"""The teacher of a pair whose answer is the logged reference."""

# These metrics read "a|b" as two accepted forms; elsewhere the bar is part of the answer, as in code.
_METRICS_WITH_FORMS = ("cover_match", "exact_match")


@dataclass(frozen=True, kw_only=True)
class SftPair:
    """One query with one answer to imitate.

    Attributes:
        query_id: The query.
        messages: Its conversation as logged, before any prompt mode, oldest first.
        answer: What to answer, without outer white space.
        task: Name of the task family, if known.
        teacher: Id of the candidate that answered, or `"reference"`.
        record_id: The log record of the answer; None for a reference.
        score: The criterion's score of the answer, in [0, 1]; None for a reference.
    """

    query_id: str
    messages: tuple[Message, ...]
    answer: str
    task: str | None
    teacher: str
    record_id: str | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class DistillationDataset:
    """Pairs to learn from, and what became of the rest.

    Attributes:
        pairs: Sorted by query id; within a query the best answer first, its reference last.
        n_queries: Queries in the logs.
        n_solved: Queries with an answer that reaches `min_score`; 0 for the baseline, which looks at none.
        n_dropped: Answers and references left out, by reason: `"duplicate"` (equal to another one of the
            query), `"beyond_top_k"` and `"over_balance"`. Answers that failed, have no score or do not reach
            `min_score` are not counted.
    """

    pairs: tuple[SftPair, ...]
    n_queries: int
    n_solved: int
    n_dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.pairs)

    @classmethod
    def from_logs(cls, frame: pl.DataFrame, arguments: DistillationTrainingArguments) -> Self:
        """Choose the pairs.

        Equal logs give equal pairs, whatever the order of their rows. A query that nobody solved contributes
        no answer of an LLM; its reference teaches only if the ground truth is added. Of accepted forms `a|b`
        the first is taught.

        Args:
            frame: Logs with the columns of `LOG_SCHEMA`.
            arguments: Which answers to take.

        Returns:
            The data set.

        Raises:
            LogSchemaError: If the frame lacks columns, or a conversation in it is no JSON of messages.
            UnknownCandidateError: If a wanted teacher answered no query.
            NotEnoughLogsError: If no answer is good enough, or no pair remains.

        Source:
            FusionFactory (arXiv 2507.10540), model-level fusion. Departures: equal answers teach once, and a
            query nobody solved lends no wrong answer; see docs/paper_map.md.
        """
        missing = [name for name in LOG_SCHEMA if name not in frame.columns]
        if missing:
            raise LogSchemaError(f"The logs lack the columns {missing}. Load them with `load_logs`.")
        answers = _answers(frame, arguments)
        references = _references(frame) if arguments.ground_truth == "add" else {}
        conversations = _conversations(frame, wanted=answers.keys() | references.keys())
        dropped = {"duplicate": 0, "beyond_top_k": 0, "over_balance": 0}
        groups = []
        for query_id in sorted(conversations):
            found = answers.get(query_id, [])
            group = _different(found, known=set())
            dropped["duplicate"] += len(found) - len(group)
            dropped["beyond_top_k"] += max(0, len(group) - arguments.top_k)
            group = group[: arguments.top_k]
            if query_id in references:
                new = _different([references[query_id]], known={pair.answer for pair in group})
                dropped["duplicate"] += 1 - len(new)
                group += new
            messages, task = conversations[query_id]
            groups.append([replace(pair, messages=messages, task=task) for pair in group])
        pairs = _balanced(groups, limit=arguments.max_pairs_per_task, seed=arguments.seed)
        dropped["over_balance"] = sum(map(len, groups)) - len(pairs)
        n_queries = frame["query_id"].n_unique()
        if not pairs:
            message = (
                f"The logs hold {n_queries} queries, none with a reference to teach. Add references to the "
                "logs, or use another criterion than 'baseline'."
            )
            raise NotEnoughLogsError(message)
        return cls(
            pairs=pairs,
            n_queries=n_queries,
            n_solved=len(answers),
            n_dropped=MappingProxyType(dropped),
        )


def _answers(frame: pl.DataFrame, arguments: DistillationTrainingArguments) -> dict[str, list[SftPair]]:
    """Return what teaches of each solved query, best first, still without conversation and task."""
    if arguments.criterion == "baseline":
        return {}
    if arguments.teachers is not None:
        unknown = sorted(set(arguments.teachers) - set(frame["candidate_id"]))
        if unknown:
            known = ", ".join(sorted(set(frame["candidate_id"])))
            raise UnknownCandidateError(f"The teachers {unknown} answered no query. The logs hold: {known}.")
        frame = frame.filter(pl.col("candidate_id").is_in(arguments.teachers))
    label = "judge_score" if arguments.criterion == "judge" else "performance"
    # All of them: which are equal shows only when they are compared, and top_k counts different answers.
    best = top_answers(
        frame, criterion=arguments.criterion, k=max(1, frame.height), min_score=arguments.min_score
    )
    if best.is_empty():
        message = (
            f"None of {frame.height} logged answers reaches min_score={arguments.min_score} by criterion "
            f"'{arguments.criterion}' ({frame[label].count()} have a {label}). Score the logs, lower "
            "min_score, or use criterion='baseline' to teach the references alone."
        )
        raise NotEnoughLogsError(message)
    answers: dict[str, list[SftPair]] = defaultdict(list)
    for row in best.iter_rows(named=True):
        answers[row["query_id"]].append(
            SftPair(
                query_id=row["query_id"],
                messages=(),
                answer=row["response"].strip(),
                task=None,
                teacher=row["candidate_id"],
                record_id=row["record_id"],
                score=row[label],
            )
        )
    return dict(answers)


def _references(frame: pl.DataFrame) -> dict[str, SftPair]:
    """Return the reference of each query that has one; of several the first in order of text."""
    first_form = (
        pl.when(pl.col("metric").is_in(_METRICS_WITH_FORMS))
        .then(pl.col("reference").str.split("|").list.first())
        .otherwise(pl.col("reference"))
        .str.strip_chars()
    )
    # min() passes over nulls, and what it finds does not depend on the order of the rows.
    rows = (
        frame.with_columns(first_form.alias("reference"))
        .filter(pl.col("reference").fill_null("") != "")
        .group_by("query_id")
        .agg(pl.col("reference").min())
    )
    return {
        query_id: SftPair(query_id=query_id, messages=(), answer=answer, task=None, teacher=REFERENCE)
        for query_id, answer in rows.iter_rows()
    }


def _conversations(
    frame: pl.DataFrame, *, wanted: Iterable[str]
) -> dict[str, tuple[tuple[Message, ...], str | None]]:
    """Return the messages and the task of each wanted query."""
    rows = (
        frame.filter(pl.col("query_id").is_in(list(wanted)))
        .group_by("query_id")
        .agg(pl.col("messages", "task").min())
    )
    conversations = {}
    for query_id, text, task in rows.iter_rows():
        try:
            conversations[query_id] = messages_from_json(text), task
        except (ValueError, TypeError) as error:
            message = f"The messages of query '{query_id}' are no JSON list of role and content: {error}."
            raise LogSchemaError(message) from error
    return conversations


def _different(pairs: Sequence[SftPair], *, known: set[str]) -> list[SftPair]:
    """Return the pairs whose answer comes up for the first time."""
    kept = []
    for pair in pairs:
        if pair.answer not in known:
            known.add(pair.answer)
            kept.append(pair)
    return kept


def _balanced(groups: Sequence[Sequence[SftPair]], *, limit: int | None, seed: int) -> tuple[SftPair, ...]:
    """Keep at most `limit` pairs of each task: every query's best answer first, queries in random order."""
    if limit is None:
        return tuple(pair for group in groups for pair in group)
    by_task: dict[str | None, list[tuple[int, int, int]]] = defaultdict(list)
    for place, number in enumerate(np.random.default_rng(seed).permutation(len(groups))):
        for rank, pair in enumerate(groups[number]):
            by_task[pair.task].append((rank, place, int(number)))
    kept = sorted((number, rank) for order in by_task.values() for rank, _, number in sorted(order)[:limit])
    return tuple(groups[number][rank] for number, rank in kept)
