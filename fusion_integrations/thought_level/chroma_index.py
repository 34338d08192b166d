"""How a library lies in Chroma, and how it is replaced so that a reader never sees a part of one.

    thought-templates                      the switch: its metadata names the collection in use
    thought-templates-3f2a9c0d11e84b7a     the templates of one library, named by its fingerprint

A library goes into a collection of its own, which is marked complete at the end; then the switch is turned
and older collections are deleted: there is no moment without a complete index.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Json, ValidationError

from fusion_integrations._optional import require
from fusion_integrations.artifacts.manifest import describe
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, InvalidPolicyError
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.protocols import EmbedderIdentity
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.types import canonical_json, fingerprint

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection

__all__ = [
    "DEFAULT_NAME",
    "MAX_BATCH",
    "Generation",
    "build_index",
    "check_name",
    "find_index",
    "is_current",
    "key_hash",
    "read_template",
]

logger = logging.getLogger(__name__)

DEFAULT_NAME: Final = "thought-templates"

# Rows in one request; a server refuses bodies of more than some 40 MB.
MAX_BATCH: Final = 500

# What Chroma accepts as a name, less the room for "-" and a fingerprint.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,493}[a-zA-Z0-9]")

# Twice Chroma's defaults.
_INDEX: CreateCollectionConfiguration = {
    "hnsw": {"space": "cosine", "ef_construction": 200, "ef_search": 200, "max_neighbors": 32}
}

# A reader starts over when the switch was turned under it; this often only if it turns without pause.
_MAX_READS = 20


class _Metadata(BaseModel):
    """What a collection of ours says about itself; anybody may have written it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """Read the metadata of a collection.

        Args:
            collection: Any collection.

        Returns:
            Its metadata.

        Raises:
            ArtifactFormatError: If it is none of ours.
        """
        try:
            return cls.model_validate(collection.metadata or {})
        except ValidationError as error:
            message = (
                f"The collection '{collection.name}' is no index of thought templates that this release "
                f"reads: {describe(error)}. Choose another name, or delete it if nothing needs it."
            )
            raise ArtifactFormatError(message) from error

    def to_json(self) -> dict[str, Any]:
        """Return the values as Chroma stores them: not nested."""
        return self.model_dump(round_trip=True)


class _Switch(_Metadata):
    """Metadata of the collection that tells which library is in use.

    Attributes:
        current: Name of its collection; empty before the first is complete.
        current_id: Chroma's id of it: a like-named one that was made later is another.
    """

    kind: Literal["fusion-thought-switch"]
    format_version: Literal[1]
    current: str
    current_id: str


class Generation(_Metadata):
    """Metadata of the collection that holds the templates of one library."""

    kind: Literal["fusion-thought-templates"]
    format_version: Literal[1]
    index: str
    library_fingerprint: str
    embedder: Json[EmbedderIdentity]
    n_templates: int
    is_complete: bool


def check_name(name: str) -> None:
    """Check the name of an index.

    Args:
        name: The name.

    Raises:
        InvalidPolicyError: If Chroma would not accept it.
    """
    if not _NAME.fullmatch(name):
        message = (
            f"An index cannot be named '{name}': use 3 to 495 letters, digits, '.', '_' or '-', with a "
            "letter or digit at both ends."
        )
        raise InvalidPolicyError(message)


def key_hash(query: str) -> str:
    """Hash what a query shares with its near-duplicates, to filter by."""
    return fingerprint(duplicate_key(query))


def build_index(library: ThoughtTemplateLibrary, *, client: ClientAPI, name: str) -> Collection:
    """Build the index of a library, turn the switch to it and delete those before.

    Args:
        library: What to index.
        client: Where to.
        name: Name of the index.

    Returns:
        The complete collection of the library.

    Raises:
        ArtifactFormatError: If a collection of one of the names is something else.
    """
    values = {"kind": "fusion-thought-switch", "format_version": 1, "current": "", "current_id": ""}
    switch = client.get_or_create_collection(name, metadata=values, embedding_function=None)
    _Switch.of(switch)
    collection = _fill(library, client=client, name=name)
    switch.modify(metadata=values | {"current": collection.name, "current_id": str(collection.id)})
    _delete_others(client, name=name, current=collection.name)
    return collection


def find_index(client: ClientAPI, name: str) -> Collection:
    """Find the collection that an index uses now.

    Args:
        client: Where to look.
        name: Name of the index.

    Returns:
        A complete collection.

    Raises:
        ArtifactFormatError: If the collection of that name is something else.
        ArtifactNotFoundError: If there is no complete index.
    """
    errors = require("chromadb.errors", extra="chroma")
    for _ in range(_MAX_READS):
        switch = _read_switch(client, name)
        try:
            collection = client.get_collection(switch.current, embedding_function=None)
        except errors.ChromaError as error:
            problem: Exception | None = error
        else:
            if str(collection.id) == switch.current_id:
                return collection
            problem = None
        # Another library was built meanwhile, most likely: read the switch again.
    message = (
        f"The collection '{switch.current}' of the index '{name}' cannot be opened: "
        f"{problem or 'it is not the one that was completed'}. {_repair(name)}"
    )
    raise ArtifactNotFoundError(message) from problem


def is_current(collection: Collection, *, client: ClientAPI, name: str) -> bool:
    """Tell whether an index uses a collection still.

    Chroma reads without a snapshot: a search while the collection is deleted may find a part of it. The
    switch is turned before, so what was read was whole if this is true after reading.

    Args:
        collection: What was read.
        client: Where it is.
        name: Name of the index.

    Returns:
        False if another library was built, or the index deleted.

    Raises:
        ArtifactFormatError: If the collection of that name is something else by now.
    """
    try:
        return _read_switch(client, name).current_id == str(collection.id)
    except ArtifactNotFoundError:
        return False


def read_template(template_id: str, document: str | None, metadata: Mapping[str, Any]) -> ThoughtTemplate:
    """Rebuild a template from its entry in a collection, which anybody may have written.

    Args:
        template_id: Id of the entry.
        document: Its document: the query.
        metadata: Its metadata.

    Returns:
        The template.

    Raises:
        ArtifactFormatError: If the entry holds no template.
    """
    fields = {key: value for key, value in metadata.items() if key not in ("position", "duplicate_key")}
    try:
        fields["sources"] = json.loads(metadata["sources"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactFormatError(f"Its sources are no JSON: {error!r}.") from error
    return ThoughtTemplate.from_json(json.dumps(fields | {"id": template_id, "query": document}))


def _read_switch(client: ClientAPI, name: str) -> _Switch:
    errors = require("chromadb.errors", extra="chroma")
    try:
        switch = _Switch.of(client.get_collection(name, embedding_function=None))
    except errors.NotFoundError as error:
        raise ArtifactNotFoundError(f"There is no index '{name}'. {_repair(name)}") from error
    if not switch.current:
        raise ArtifactNotFoundError(f"The index '{name}' was never completed. {_repair(name)}")
    return switch


def _repair(name: str) -> str:
    return f"Build it: ChromaThoughtTemplateStore.from_library(library, ..., name='{name}')."


def _fill(library: ThoughtTemplateLibrary, *, client: ClientAPI, name: str) -> Collection:
    """Put a library into its own collection and mark that complete.

    What a killed build left is thrown away: HNSW finds entries that are written twice less reliably.
    """
    values: dict[str, Any] = {
        "kind": "fusion-thought-templates",
        "format_version": 1,
        "index": name,
        "library_fingerprint": library.fingerprint,
        "embedder": canonical_json(library.embedder.to_json()),
        "n_templates": len(library),
        "is_complete": False,
    }
    complete = values | {"is_complete": True}
    own_name = f"{name}-{library.fingerprint}"
    make = functools.partial(
        client.get_or_create_collection,
        own_name,
        metadata=values,
        configuration=_INDEX,
        embedding_function=None,
    )
    collection = make()
    if not Generation.of(collection).is_complete and collection.count():
        client.delete_collection(own_name)
        collection = make()
    if collection.metadata == complete and collection.count() == len(library):
        return collection
    logger.info("Indexing %d templates in '%s'", len(library), collection.name)
    size = min(client.get_max_batch_size(), MAX_BATCH)
    for first in range(0, len(library), size):
        batch = library.templates[first : first + size]
        collection.upsert(
            ids=[template.id for template in batch],
            embeddings=library.vectors[first : first + size],
            documents=[template.query for template in batch],
            metadatas=[_entry(template, position) for position, template in enumerate(batch, start=first)],
        )
    if (count := collection.count()) != len(library):
        message = (
            f"The collection '{collection.name}' holds {count} entries, but the library has {len(library)} "
            "templates: something else wrote into it. Delete the collection, then build it again."
        )
        raise ArtifactFormatError(message)
    collection.modify(metadata=complete)
    return collection


def _entry(template: ThoughtTemplate, position: int) -> dict[str, str | int]:
    """Return what of a template is not its id or document; metadata values are not nested, and not None."""
    entry: dict[str, str | int] = {
        "query_id": template.query_id,
        "text": template.text,
        "sources": canonical_json(template.to_json()["sources"]),
        "duplicate_key": key_hash(template.query),
        "position": position,
    }
    return entry if template.task is None else entry | {"task": template.task}


def _delete_others(client: ClientAPI, *, name: str, current: str) -> None:
    errors = require("chromadb.errors", extra="chroma")
    for collection in client.list_collections():
        metadata = collection.metadata or {}
        is_ours = metadata.get("kind") == "fusion-thought-templates" and metadata.get("index") == name
        if is_ours and collection.name != current:
            try:
                client.delete_collection(collection.name)
            except errors.NotFoundError:
                continue  # somebody else deleted it: what was wanted
