"""Search templates by the similarity of their queries; what every store promises, and one in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from fusion_integrations.embedders import check_identity
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.protocols import Embedder
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary

__all__ = [
    "FoundTemplate",
    "InMemoryThoughtTemplateStore",
    "NearDuplicates",
    "ThoughtTemplateStore",
    "check_search",
    "rounded_similarities",
]

NearDuplicates = Literal["keep", "exclude"]


@dataclass(frozen=True, kw_only=True)
class FoundTemplate:
    """A template found for a query.

    Attributes:
        template: The template.
        similarity: Cosine similarity of the two queries, in [-1, 1].
    """

    template: ThoughtTemplate
    similarity: float


class ThoughtTemplateStore(Protocol):
    """A searchable view on one template library."""

    @property
    def embedder(self) -> Embedder:
        """Embeds queries as the library's were."""
        ...

    @property
    def library_fingerprint(self) -> str:
        """`ThoughtTemplateLibrary.fingerprint` of what is searched."""
        ...

    def __len__(self) -> int:
        """Return the number of templates."""
        ...

    def search(
        self,
        queries: Sequence[str],
        *,
        k: int = 3,
        min_similarity: float = 0.3,
        near_duplicates: NearDuplicates = "keep",
    ) -> list[list[FoundTemplate]]:
        """Find the templates of the most similar queries; needs no task label.

        Args:
            queries: n texts, as `types.query_text` gives them.
            k: Most templates for a query, at least 1.
            min_similarity: Lowest cosine similarity, in [-1, 1].
            near_duplicates: `"exclude"` leaves out templates whose query is the same up to case, numbers and
                punctuation. Answers that will train or evaluate something need that.

        Returns:
            For each query its templates, most similar first; empty where nothing is similar enough.

        Raises:
            EmptyQueryError: If a query is blank.
            InvalidPolicyError: If an argument is out of range.
        """
        ...


class InMemoryThoughtTemplateStore:
    """Searches a library exactly, with one matrix product; for up to some 100,000 templates.

    Args:
        library: What to search.
        embedder: The embedder that the library was made with.

    Raises:
        EmbedderMismatchError: If it is another embedder.
    """

    def __init__(self, library: ThoughtTemplateLibrary, *, embedder: Embedder) -> None:
        check_identity(library.embedder, embedder.identity)
        self._library = library
        self._embedder = embedder
        # In double precision, so that what a query finds does not depend on the others of its batch.
        self._vectors = library.vectors.astype(np.float64)
        self._keys = np.array([template.duplicate_key for template in library.templates], dtype=np.object_)

    @property
    def embedder(self) -> Embedder:
        """Embeds queries as the library's were."""
        return self._embedder

    @property
    def library_fingerprint(self) -> str:
        """`ThoughtTemplateLibrary.fingerprint` of what is searched."""
        return self._library.fingerprint

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self._library)

    def search(
        self,
        queries: Sequence[str],
        *,
        k: int = 3,
        min_similarity: float = 0.3,
        near_duplicates: NearDuplicates = "keep",
    ) -> list[list[FoundTemplate]]:
        """Find the templates of the most similar queries; see `ThoughtTemplateStore.search`."""
        check_search(queries, k=k, min_similarity=min_similarity, near_duplicates=near_duplicates)
        if not queries:
            return []
        similarities = rounded_similarities(self._embedder.embed(queries) @ self._vectors.T)  # (n, templates)
        results = []
        for query, row in zip(queries, similarities, strict=True):
            is_wanted = row >= min_similarity
            if near_duplicates == "exclude":
                is_wanted &= self._keys != duplicate_key(query)
            wanted = np.flatnonzero(is_wanted)
            best = wanted[np.argsort(-row[wanted], kind="stable")[:k]]
            results.append(
                [FoundTemplate(template=self._library.templates[i], similarity=float(row[i])) for i in best]
            )
        return results


def check_search(
    queries: Sequence[str], *, k: int, min_similarity: float, near_duplicates: NearDuplicates
) -> None:
    """Check the arguments of a search.

    Args:
        queries: As in `ThoughtTemplateStore.search`, like the others.
        k: See there.
        min_similarity: See there.
        near_duplicates: See there.

    Raises:
        EmptyQueryError: If a query is blank.
        InvalidPolicyError: If `queries` is one text, or another argument is out of range.
    """
    if isinstance(queries, str):
        raise InvalidPolicyError("search() takes a sequence of texts but got one text. Pass [text].")
    if k < 1:
        raise InvalidPolicyError(f"k must be at least 1, got {k}.")
    if not -1 <= min_similarity <= 1:
        raise InvalidPolicyError(f"min_similarity must lie in [-1, 1], got {min_similarity}.")
    if near_duplicates not in get_args(NearDuplicates):
        known = ", ".join(get_args(NearDuplicates))
        raise InvalidPolicyError(f"near_duplicates must be one of {known}, got '{near_duplicates}'.")
    for position, query in enumerate(queries):
        if not query.strip():
            raise EmptyQueryError(f"Query {position} of {len(queries)} is blank. Pass at least one word.")


def rounded_similarities(cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round cosines to what vectors of float32 can tell: a query finds itself with 1, and equals tie.

    Args:
        cosines: Any array of them.

    Returns:
        The same, to 6 digits, in [-1, 1].
    """
    return np.round(cosines, 6).clip(-1, 1)
