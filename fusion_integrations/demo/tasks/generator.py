"""Assembles the demo's queries from its task families, the same ones for the same seed on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion_integrations.demo.tasks.arithmetic import ARITHMETIC
from fusion_integrations.demo.tasks.commonsense import COMMONSENSE
from fusion_integrations.demo.tasks.facts import FACTS
from fusion_integrations.demo.tasks.family import Family
from fusion_integrations.demo.tasks.reading import READING
from fusion_integrations.demo.tasks.sentiment import SENTIMENT
from fusion_integrations.demo.tasks.strings import STRINGS
from fusion_integrations.demo.tasks.units_and_dates import UNITS_AND_DATES
from fusion_integrations.demo.tasks.word_problems import WORD_PROBLEMS
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.splits import grouped_folds
from fusion_integrations.types import Query

__all__ = ["FAMILIES", "TaskSet", "generate_tasks"]

FAMILIES: tuple[Family, ...] = (
    ARITHMETIC,
    WORD_PROBLEMS,
    FACTS,
    COMMONSENSE,
    READING,
    STRINGS,
    SENTIMENT,
    UNITS_AND_DATES,
)

# 500 of the default 1,280 queries: enough to tell routers a few points apart.
_TEST_FRACTION = 500 / 1280


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """The demo's queries, family by family in each part.

    Attributes:
        teaching: Training queries that thought templates and the student are made from.
        routing: Training queries that show a router what those are worth. They share no template, passage or
            list of facts with `teaching`; words, names and reviews occur in both, in other questions.
        test: Queries to evaluate on; they share no template, passage or other item with the training queries.
    """

    teaching: tuple[Query, ...]
    routing: tuple[Query, ...]
    test: tuple[Query, ...]

    @property
    def train(self) -> tuple[Query, ...]:
        """All training queries."""
        return self.teaching + self.routing


def generate_tasks(*, seed: int = 7, queries_per_family: int = 160) -> TaskSet:
    """Generate the demo's queries.

    Args:
        seed: Same seed, same queries.
        queries_per_family: Training and test queries of a family together, at least 16; the default gives 780
            training and 500 test queries.

    Returns:
        Queries with task, reference and metric; all texts differ.

    Raises:
        InvalidPolicyError: If `queries_per_family` is below 16, or more than a family's templates can make.

    Source:
        Task mix after LLMFusionBench (FusionFactory, arXiv 2507.10540); the queries are this project's own.
    """
    if queries_per_family < 16:
        message = f"queries_per_family must be at least 16 to fill all parts, got {queries_per_family}."
        raise InvalidPolicyError(message)
    teaching: list[Query] = []
    routing: list[Query] = []
    test: list[Query] = []
    for i, family in enumerate(FAMILIES):
        # Rounding the running total, not each family, makes the splits add up.
        n_test = _n_test(i + 1, queries_per_family) - _n_test(i, queries_per_family)
        rng = np.random.default_rng([seed, i])
        train = family.generate(rng, queries_per_family - n_test, "train")
        halves = grouped_folds([topic for _, topic in train], n_folds=2, seed=seed)
        for (query, _), half in zip(train, halves, strict=True):
            (teaching if half == 0 else routing).append(query)
        test.extend(query for query, _ in family.generate(rng, n_test, "test"))
    return TaskSet(teaching=tuple(teaching), routing=tuple(routing), test=tuple(test))


def _n_test(n_families: int, queries_per_family: int) -> int:
    return round(n_families * queries_per_family * _TEST_FRACTION)
