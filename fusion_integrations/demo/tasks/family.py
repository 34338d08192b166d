"""What a task family is: named templates for each split, and the draws that fill them.

Templates belong to one split, so a router is never tested on a wording it was trained on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeVar

import numpy as np

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.types import Query

__all__ = ["Draw", "Family", "Filled", "Split", "Template", "load_data"]

Split = Literal["train", "test"]
Filled = tuple[Mapping[str, object], object]
"""The values of a template's slots, and the right answer."""

_T = TypeVar("_T")

# A template whose fillings are used up yields only duplicates; so many in a row retire it.
_MAX_DUPLICATES = 200


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random choices for one query.

    Attributes:
        rng: Where the randomness comes from.
        split: Which split the query is for; items are owned by one split.
    """

    rng: np.random.Generator
    split: Split

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, items: Sequence[_T]) -> _T:
        """Return one of the items."""
        return items[int(self.rng.integers(len(items)))]

    def sample(self, items: Sequence[_T], size: int) -> list[_T]:
        """Return that many different items, in random order."""
        return [items[int(i)] for i in self.rng.permutation(len(items))[:size]]

    def owns(self, *key: object) -> bool:
        """Tell whether this split owns an item, for items too many to list; about half go to each."""
        return (zlib.crc32(repr(key).encode()) % 2 == 0) == (self.split == "train")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A question pattern.

    Attributes:
        name: Unique within the demo, for example `"arithmetic/one_digit_sum"`.
        text: The question, with `{slots}`.
        metric: Name of the metric in `fusion_integrations.scoring` that scores an answer.
        fill: Draws the values of the slots and works out the right answer.
        topic: Templates filled from the same items share a topic; empty means the template's name. What one
            topic teaches must not be tested on the same topic.
    """

    name: str
    text: str
    metric: str
    fill: Callable[[Draw], Filled]
    topic: str = ""

    def query(self, draw: Draw, *, task: str) -> Query:
        """Fill the slots once."""
        slots, reference = self.fill(draw)
        return Query.from_text(
            self.text.format(**slots), task=task, reference=str(reference), metric=self.metric
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of task.

    Attributes:
        name: The `Query.task` of its queries.
        train_templates: Question patterns of the training queries.
        test_templates: Question patterns of the test queries; none is also a training pattern.
    """

    name: str
    train_templates: tuple[Template, ...]
    test_templates: tuple[Template, ...]

    def generate(self, rng: np.random.Generator, n: int, split: Split) -> list[tuple[Query, str]]:
        """Generate different queries, as evenly over the split's templates as their fillings allow.

        Args:
            rng: Where the randomness comes from.
            n: How many queries.
            split: For which split.

        Returns:
            n queries with different texts, each with the topic of its template.

        Raises:
            InvalidPolicyError: If the templates cannot make n different queries.
        """
        templates = self.train_templates if split == "train" else self.test_templates
        draw = Draw(rng=rng, split=split)
        queries: dict[str, tuple[Query, str]] = {}
        active = draw.sample(templates, len(templates))
        while len(queries) < n and active:
            for template in tuple(active):
                query = self._new_query(template, draw, known=queries)
                if query is None:
                    active.remove(template)
                elif len(queries) < n:
                    queries[query.text] = (query, template.topic or template.name)
        if len(queries) < n:
            message = (
                f"The {split} templates of '{self.name}' make {len(queries)} different queries, not {n}. "
                "Ask for fewer queries per family."
            )
            raise InvalidPolicyError(message)
        return list(queries.values())

    def _new_query(self, template: Template, draw: Draw, *, known: Collection[str]) -> Query | None:
        for _ in range(_MAX_DUPLICATES):
            query = template.query(draw, task=self.name)
            if query.text not in known:
                return query
        return None


@cache
def load_data(name: str) -> Any:
    """Read one of the word and passage lists that ship with the demo."""
    path = resources.files("fusion_integrations.demo.tasks") / "data" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))
