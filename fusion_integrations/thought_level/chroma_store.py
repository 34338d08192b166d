"""Search templates in Chroma, in process or on a server; an index, rebuilt from the library at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fusion_integrations._optional import require
from fusion_integrations.embedders import check_identity
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, InvalidPolicyError
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.thought_level.chroma_index import (
    DEFAULT_NAME,
    MAX_BATCH,
    Generation,
    build_index,
    check_name,
    find_index,
    is_current,
    key_hash,
    read_template,
)
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_store import (
    FoundTemplate,
    NearDuplicates,
    check_search,
    rounded_similarities,
)

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

__all__ = ["ChromaThoughtTemplateStore"]

# Asked for beyond k, so that among equally similar templates the first of the library win, as in memory.
_N_SPARE = 16


class ChromaThoughtTemplateStore:
    """Searches the templates of one library in Chroma: for libraries that are large or shared by processes.

    Make one with `from_library` or `open`; both take exactly one of `client`, `path` and `host`.

    A store is a view on one library. After another was built under its name, its next search raises
    `ArtifactNotFoundError`: a router was trained with the answers that one library led to, so no store
    changes to another unasked. The search is approximate, as HNSW is. The index holds the text of logged
    queries. Errors of Chroma's own, such as a lost connection, pass through.

    Args:
        collection: The complete collection of a library.
        client: The client it is from.
        embedder: The embedder that the library was made with.

    Raises:
        ArtifactFormatError: If the collection is something else.
        EmbedderMismatchError: If it is another embedder.

    Example:
        ```python
        store = ChromaThoughtTemplateStore.from_library(library, embedder=embedder, path="chroma")
        store.search(["What is 17 * 24?"], k=3)
        ```
    """

    def __init__(self, collection: Collection, *, client: ClientAPI, embedder: Embedder) -> None:
        self._collection = collection
        self._client = client
        self._embedder = embedder
        self._generation = Generation.of(collection)
        check_identity(self._generation.embedder, embedder.identity)

    @classmethod
    def from_library(
        cls,
        library: ThoughtTemplateLibrary,
        *,
        embedder: Embedder,
        client: ClientAPI | None = None,
        path: str | Path | None = None,
        host: str | None = None,
        port: int = 8000,
        name: str = DEFAULT_NAME,
    ) -> Self:
        """Build the index of a library, replacing the one of that name in one step.

        Whenever the process stops, `open` finds the whole former or the whole new index; running this again
        completes it, and does nothing if it is complete. Only one process may build under a name at a time.

        Args:
            library: What to index.
            embedder: The embedder that the library was made with.
            client: A Chroma client: for credentials, TLS, or one that the application has already.
            path: Folder of a Chroma database for this process alone; made if it is missing.
            host: Host of a Chroma server.
            port: Its port.
            name: Name of the index: 3 to 495 letters, digits, `.`, `_` and `-`.

        Returns:
            The store.

        Raises:
            ArtifactFormatError: If a collection of that name is something else.
            ArtifactNotFoundError: If no server answers.
            EmbedderMismatchError: If it is another embedder.
            InvalidPolicyError: If the name or the choice of `client`, `path` and `host` is invalid.
            MissingDependencyError: If Chroma is not installed.
        """
        check_identity(library.embedder, embedder.identity)
        check_name(name)
        client = _connect(client, path=path, host=host, port=port)
        collection = build_index(library, client=client, name=name)
        return cls(collection, client=client, embedder=embedder)

    @classmethod
    def open(
        cls,
        *,
        embedder: Embedder,
        client: ClientAPI | None = None,
        path: str | Path | None = None,
        host: str | None = None,
        port: int = 8000,
        name: str = DEFAULT_NAME,
    ) -> Self:
        """Open the index that `from_library` built last, without its library.

        Args:
            embedder: The embedder that the library was made with.
            client: As in `from_library`, like the others.
            path: See there.
            host: See there.
            port: See there.
            name: See there.

        Returns:
            The store.

        Raises:
            ArtifactFormatError: If a collection of that name is something else.
            ArtifactNotFoundError: If no library was built there, or no server answers.
            EmbedderMismatchError: If it is another embedder.
            InvalidPolicyError: If the name or the choice of `client`, `path` and `host` is invalid.
            MissingDependencyError: If Chroma is not installed.
        """
        check_name(name)
        if path is not None and not Path(path).is_dir():
            message = (
                f"There is no Chroma database at {path}. Check the path, or build it: "
                "ChromaThoughtTemplateStore.from_library(library, ...)."
            )
            raise ArtifactNotFoundError(message)
        client = _connect(client, path=path, host=host, port=port)
        return cls(find_index(client, name), client=client, embedder=embedder)

    @property
    def embedder(self) -> Embedder:
        """Embeds queries as the library's were."""
        return self._embedder

    @property
    def library_fingerprint(self) -> str:
        """`ThoughtTemplateLibrary.fingerprint` of what is searched."""
        return self._generation.library_fingerprint

    def __len__(self) -> int:
        """Return the number of templates."""
        return self._generation.n_templates

    def search(
        self,
        queries: Sequence[str],
        *,
        k: int = 3,
        min_similarity: float = 0.3,
        near_duplicates: NearDuplicates = "keep",
    ) -> list[list[FoundTemplate]]:
        """Find the templates of the most similar queries; see `ThoughtTemplateStore.search`.

        Args:
            queries: As there, like the others.
            k: See there.
            min_similarity: See there.
            near_duplicates: See there.

        Returns:
            For each query its templates, most similar first.

        Raises:
            ArtifactFormatError: If something else wrote into the index.
            ArtifactNotFoundError: If the index was rebuilt from another library, or deleted.
            EmptyQueryError: If a query is blank.
            InvalidPolicyError: If an argument is out of range.
        """
        check_search(queries, k=k, min_similarity=min_similarity, near_duplicates=near_duplicates)
        if not queries:
            return []
        vectors = self._embedder.embed(queries)
        batches = (vectors[first : first + MAX_BATCH] for first in range(0, len(queries), MAX_BATCH))
        nearest = [row for batch in batches for row in self._nearest(batch, k=k)]
        if near_duplicates == "exclude":
            rows = zip(nearest, queries, vectors, strict=True)
            nearest = [self._without_key(row, key_hash(query), vector, k=k) for row, query, vector in rows]
        if not self._is_current():
            raise self._gone()
        results = [self._ranked(*row) for row in nearest]
        return [[each for each in found if each.similarity >= min_similarity][:k] for found in results]

    def _without_key(self, row: tuple[Any, ...], key: str, vector: FloatArray, *, k: int) -> tuple[Any, ...]:
        """Drop near-duplicates from an answer; Chroma filters, slowly, only where too few are left."""
        kept = [i for i, metadata in enumerate(row[-1]) if (metadata or {}).get("duplicate_key") != key]
        if len(kept) < k and len(row[-1]) < len(self):
            return self._nearest(vector[np.newaxis], k=k, excluded_key=key)[0]
        return tuple([column[i] for i in kept] for column in row)

    def _nearest(
        self, vectors: FloatArray, *, k: int, excluded_key: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Ask Chroma; for each vector the columns of its answer."""
        errors = require("chromadb.errors", extra="chroma")
        where: dict[str, Any] | None = (
            None if excluded_key is None else {"duplicate_key": {"$ne": excluded_key}}
        )
        try:
            answer: Mapping[str, Any] = self._collection.query(
                query_embeddings=vectors,
                n_results=min(k + _N_SPARE, len(self)),
                where=where,
                include=["documents", "metadatas", "distances"],
            )
        except errors.ChromaError as error:
            if self._is_current() and not isinstance(error, errors.NotFoundError):
                raise
            raise self._gone() from error
        columns = ("distances", "ids", "documents", "metadatas")
        return list(zip(*(answer[column] for column in columns), strict=True))

    def _ranked(
        self,
        distances: Sequence[float],
        ids: Sequence[str],
        documents: Sequence[str | None],
        metadatas: Sequence[Mapping[str, Any] | None],
    ) -> list[FoundTemplate]:
        similarities = rounded_similarities(1 - np.array(distances))
        entries = zip(similarities, ids, documents, metadatas, strict=True)
        found = []
        try:
            for similarity, template_id, document, metadata in entries:
                template = read_template(template_id, document, metadata or {})
                position = int((metadata or {})["position"])
                found.append((position, FoundTemplate(template=template, similarity=float(similarity))))
        except (ArtifactFormatError, KeyError, TypeError, ValueError) as error:
            message = (
                f"Something else wrote the entry '{template_id}' of the index '{self._collection.name}': "
                f"{error!r}. Delete the collection, then build it again."
            )
            raise ArtifactFormatError(message) from error
        found.sort(key=lambda entry: (-entry[1].similarity, entry[0]))
        return [each for _, each in found]

    def _is_current(self) -> bool:
        return is_current(self._collection, client=self._client, name=self._generation.index)

    def _gone(self) -> ArtifactNotFoundError:
        return ArtifactNotFoundError(
            f"The index '{self._collection.name}' is gone: it was rebuilt from another library, or deleted. "
            "Open it again: ChromaThoughtTemplateStore.open(...)."
        )


def _connect(client: ClientAPI | None, *, path: str | Path | None, host: str | None, port: int) -> ClientAPI:
    given = [
        name for name, value in {"client": client, "path": path, "host": host}.items() if value is not None
    ]
    if len(given) != 1:
        message = f"Pass exactly one of client, path and host, got {' and '.join(given) or 'none of them'}."
        raise InvalidPolicyError(message)
    chromadb = require("chromadb", extra="chroma")
    if client is not None:
        return client
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    opened: ClientAPI
    if path is not None:
        # Chroma keeps one database a path in a process, by its text: a relative one would outlive chdir().
        opened = chromadb.PersistentClient(str(Path(path).resolve()), settings=settings)
        return opened
    try:
        opened = chromadb.HttpClient(host=host, port=port, settings=settings)
    except ValueError as error:
        message = (
            f"No Chroma server answers at {host}:{port}: {error} Start one with "
            f"'chroma run --path chroma --host 127.0.0.1 --port {port}', or check host and port."
        )
        raise ArtifactNotFoundError(message) from error
    return opened
