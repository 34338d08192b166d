"""Find templates for a query and lay them before it: the prompt of the mode `thought`."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.prompts import PromptEdit, read_versioned_text
from fusion_integrations.thought_level.template_store import FoundTemplate, ThoughtTemplateStore

__all__ = ["ThoughtGuidance", "ThoughtPrompter", "render_templates"]

# What could be taken for the delimiters below: in any case, with any attributes, escaped or in wide letters.
_DELIMITER = re.compile(r"[<\uff1c\ufe64\u2039\u27e8\u3008](?=[\W_]{0,8}notes?\b)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ThoughtGuidance:
    """What a query is given along.

    Attributes:
        found: The templates, most similar first; may be empty.
        prompt: The edit that puts them before the query; without templates it leaves the query as it is.
    """

    found: tuple[FoundTemplate, ...]
    prompt: PromptEdit


class ThoughtPrompter:
    """Gives every query the templates of similar solved queries.

    Args:
        store: Where templates are searched.
        k: Most templates for a query; the paper uses 3.
        min_similarity: Lowest cosine similarity between the query and a template's query, in [-1, 1]. Where
            nothing is that similar, the query is asked as it is.
        max_chars: Of a longer solved query or template the prompt shows this many characters, at least 1.

    Raises:
        InvalidPolicyError: If an argument is out of range.

    Source:
        FusionFactory (arXiv 2507.10540), thought-level fusion: the 3 most similar logged queries and their
        templates are put before the new query. Ours needs no task label for it.
    """

    def __init__(
        self, store: ThoughtTemplateStore, *, k: int = 3, min_similarity: float = 0.3, max_chars: int = 600
    ) -> None:
        for name, value in (("k", k), ("max_chars", max_chars)):
            if value < 1:
                raise InvalidPolicyError(f"{name} must be at least 1, got {value}.")
        if not -1 <= min_similarity <= 1:
            raise InvalidPolicyError(f"min_similarity must lie in [-1, 1], got {min_similarity}.")
        self.store = store
        self.k = k
        self.min_similarity = min_similarity
        self.max_chars = max_chars

    @property
    def revision(self) -> str:
        """What the prompts depend on: prompt version, library and search settings.

        It is the `Candidate.revision` of candidates of mode `thought`: answers given with another library
        say nothing about this one.
        """
        _, _, version = _frame()
        settings = f"k{self.k}+s{self.min_similarity:g}+c{self.max_chars}"
        return f"thought-{version}+{self.store.library_fingerprint}+{settings}"

    def guide(
        self, queries: Sequence[str], *, near_duplicates: Literal["keep", "exclude"] = "keep"
    ) -> list[ThoughtGuidance]:
        """Find the guidance for queries.

        Args:
            queries: n texts, as `types.query_text` gives them.
            near_duplicates: `"exclude"` leaves out templates made from the query itself or a near-duplicate:
                needed wherever the answers will train or evaluate something.

        Returns:
            One guidance a query, in their order.

        Raises:
            EmptyQueryError: If a query is blank.
        """
        results = self.store.search(
            queries, k=self.k, min_similarity=self.min_similarity, near_duplicates=near_duplicates
        )
        return [self._guidance(tuple(found)) for found in results]

    def _guidance(self, found: tuple[FoundTemplate, ...]) -> ThoughtGuidance:
        if not found:
            return ThoughtGuidance(found=(), prompt=PromptEdit(revision=self.revision))
        before, after, _ = _frame()
        opening, _, closing = before.partition("{notes}")
        edit = PromptEdit(
            user_prefix=f"{opening}{render_templates(found, max_chars=self.max_chars)}{closing}",
            user_suffix=after,
            revision=self.revision,
        )
        return ThoughtGuidance(found=found, prompt=edit)


def render_templates(found: Sequence[FoundTemplate], *, max_chars: int = 600) -> str:
    """Lay templates out as data between delimiters, which nothing in the templates can close.

    Args:
        found: The templates, in the wanted order.
        max_chars: Of a longer query or template this many characters are shown.

    Returns:
        Text, empty if there are none.
    """
    if not found:
        return ""
    notes = "\n".join(
        f"<note>\nQuestion: {_contained(each.template.query, max_chars)}\n"
        f"How to solve it: {_contained(each.template.text, max_chars)}\n</note>"
        for each in found
    )
    return f"<notes>\n{notes}\n</notes>"


def _contained(text: str, max_chars: int) -> str:
    cut = text if len(text) <= max_chars else f"{text[:max_chars]} ..."
    return _DELIMITER.sub("(", cut)


@functools.cache
def _frame() -> tuple[str, str, int]:
    """Return what stands before and after the query, and the prompt's version."""
    text, version = read_versioned_text("fusion_integrations.prompts", "thought.txt")
    before, _, after = text.partition("{query}")
    return before, after, version
