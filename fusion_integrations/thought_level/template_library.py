"""The artifact of the thought level: templates, where they come from, and the vectors they are found by."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fusion_integrations.artifacts import LoadedArtifact, load_artifact, save_artifact
from fusion_integrations.artifacts.manifest import describe
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.protocols import EmbedderIdentity, FloatArray
from fusion_integrations.types import QUERY_TEXT_VERSION, canonical_json, fingerprint

__all__ = ["TemplateSource", "ThoughtTemplate", "ThoughtTemplateLibrary"]

_TEMPLATES_FILE, _VECTORS_FILE = "templates.jsonl", "vectors.safetensors"

# Rows are unit vectors up to rounding; further off is another file.
_MAX_NORM_ERROR = 1e-3

_Text = Annotated[str, Field(pattern=r"\S")]


@dataclass(frozen=True, kw_only=True)
class TemplateSource:
    """An answer that a template was written from.

    Attributes:
        record_id: The log record.
        candidate_id: Who answered.
        performance: Its performance in [0, 1]; None if unknown.
        judge_score: Its judge score in [0, 1]; None if unknown.
    """

    record_id: _Text
    candidate_id: _Text
    performance: Annotated[float, Field(ge=0, le=1)] | None = None
    judge_score: Annotated[float, Field(ge=0, le=1)] | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class ThoughtTemplate:
    """How queries like one solved query are solved.

    Attributes:
        id: Unique in its library.
        query_id: The solved query.
        query: Its text; templates are found by its similarity to a new query.
        text: The template.
        task: Task of the query, if known. Never needed to find it.
        sources: The answers it was written from, best first.
    """

    id: _Text
    query_id: _Text
    query: _Text
    text: _Text
    task: str | None = None
    sources: tuple[TemplateSource, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    @property
    def duplicate_key(self) -> str:
        """What its query shares with near-duplicates; see `logs.splits.duplicate_key`."""
        return duplicate_key(self.query)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self) | {"sources": [asdict(source) for source in self.sources]}

    @staticmethod
    def from_json(data: str | bytes) -> ThoughtTemplate:
        """Rebuild a template from JSON text, which may come from anybody's file.

        Args:
            data: JSON text, not trusted.

        Returns:
            The template.

        Raises:
            ArtifactFormatError: If a field is missing, unknown or of a wrong value.
        """
        try:
            return _template_reader().validate_json(data)
        except ValidationError as error:
            raise ArtifactFormatError(f"This is no saved thought template: {describe(error)}.") from error


class ThoughtTemplateLibrary:
    """Thought templates, their vectors and how they were made; immutable.

    Contains the text of logged queries: share it like the logs.

    Args:
        templates: n templates with distinct ids, at least one.
        vectors: (n, d) embedded queries of the templates, rows of unit length.
        embedder: The embedder of the vectors, d dimensions.
        arguments: The training arguments, as JSON data.
        log_fingerprint: Hash of the training logs.
        metrics: What training counted.

    Attributes:
        templates: The templates, in order.
        vectors: As given.
        embedder: As given.
        arguments: As given.
        log_fingerprint: As given.
        metrics: As given.
        fingerprint: 16 hexadecimal digits that differ if any template or the embedder does.

    Raises:
        InvalidPolicyError: If templates and vectors do not fit together.
    """

    def __init__(
        self,
        templates: Sequence[ThoughtTemplate],
        *,
        vectors: FloatArray,
        embedder: EmbedderIdentity,
        arguments: Mapping[str, Any] | None = None,
        log_fingerprint: str = "",
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        problem = _find_problem(templates, vectors, embedder)
        if problem is not None:
            raise InvalidPolicyError(f"These make no template library: {problem}.")
        self.templates = tuple(templates)
        self.vectors: FloatArray = np.array(vectors, dtype=np.float32)
        self.vectors.setflags(write=False)
        self.embedder = embedder
        self.arguments = dict(arguments or {})
        self.log_fingerprint = log_fingerprint
        self.metrics = dict(metrics or {})
        # Vectors may differ in the last bit between machines; they follow from texts and embedder.
        content = [template.to_json() for template in self.templates]
        self.fingerprint = fingerprint([content, embedder.to_json()])

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self.templates)

    def save_pretrained(self, folder: str | Path) -> Self:
        """Save the library as an artifact folder; an existing library there is replaced in one step.

        Args:
            folder: Where to.

        Returns:
            The library itself.

        Raises:
            ArtifactWriteError: If it cannot be written; what was there is unchanged.
        """
        lines = "".join(f"{canonical_json(template.to_json())}\n" for template in self.templates)
        save_artifact(
            folder,
            kind="template_library",
            files={
                _TEMPLATES_FILE: lines.encode(),
                _VECTORS_FILE: save({"vectors": self.vectors}),
            },
            card=_card(self),
            embedder=self.embedder,
            query_text_version=QUERY_TEXT_VERSION,
            arguments=self.arguments,
            log_fingerprint=self.log_fingerprint,
            metrics=self.metrics,
            details={"fingerprint": self.fingerprint},
        )
        return self

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, expected_digest: str | None = None) -> Self:
        """Load a saved library.

        Args:
            folder: Where it lies.
            expected_digest: Digest the artifact must have; protects against tampering.

        Returns:
            The library.

        Raises:
            ArtifactNotFoundError: If there is no artifact.
            ArtifactFormatError: If it is damaged, of another kind or of a newer release.
        """
        artifact = load_artifact(folder, kind="template_library", expected_digest=expected_digest)
        manifest = artifact.manifest
        if manifest.embedder is None or manifest.query_text_version != QUERY_TEXT_VERSION:
            message = (
                f"{folder} was made with the embedder {manifest.embedder} and version "
                f"{manifest.query_text_version} of the query text; this release needs an embedder and "
                f"version {QUERY_TEXT_VERSION}. Train again."
            )
            raise ArtifactFormatError(message)
        try:
            return cls(
                _read_templates(artifact),
                vectors=_read_vectors(artifact),
                embedder=manifest.embedder,
                arguments=manifest.arguments,
                log_fingerprint=manifest.log_fingerprint,
                metrics=manifest.metrics,
            )
        except InvalidPolicyError as error:
            raise ArtifactFormatError(f"{folder} is malformed: {error} Train again.") from error


@functools.cache
def _template_reader() -> TypeAdapter[ThoughtTemplate]:
    """Make the reader once: that takes longer than to read a hundred templates."""
    return TypeAdapter(ThoughtTemplate)


def _find_problem(
    templates: Sequence[ThoughtTemplate], vectors: FloatArray, embedder: EmbedderIdentity
) -> str | None:
    """Say what keeps templates and vectors from being a library."""
    if not templates:
        return "there is no template"
    for template in templates:
        try:
            ThoughtTemplate.from_json(canonical_json(template.to_json()).encode())
        except (TypeError, ValueError) as error:  # also of a lone surrogate, which no file holds
            return f"the template '{template.id!a}' could not be read back: {error}"
    n_ids = len({template.id for template in templates})
    if n_ids < len(templates):
        return f"{len(templates)} templates have {n_ids} different ids"
    if vectors.shape != (len(templates), embedder.dimensions):
        return (
            f"the vectors have the shape {vectors.shape}, but {len(templates)} templates embedded by "
            f"{embedder} need {(len(templates), embedder.dimensions)}"
        )
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(norms - 1) < _MAX_NORM_ERROR).all():  # also if a norm is not a number
        return "not every vector has length 1"
    return None


def _read_templates(artifact: LoadedArtifact) -> list[ThoughtTemplate]:
    templates = []
    for number, line in enumerate(artifact.read_bytes(_TEMPLATES_FILE).splitlines(), start=1):
        try:
            templates.append(ThoughtTemplate.from_json(line))
        except ArtifactFormatError as error:
            message = f"{artifact.path(_TEMPLATES_FILE)}, line {number}: {error} Train again."
            raise ArtifactFormatError(message) from error
    return templates


def _read_vectors(artifact: LoadedArtifact) -> FloatArray:
    try:
        vectors: FloatArray = load(artifact.read_bytes(_VECTORS_FILE))["vectors"]
    except (SafetensorError, KeyError) as error:
        path = artifact.path(_VECTORS_FILE)
        raise ArtifactFormatError(f"{path} holds no vectors: {error}. Train again.") from error
    return vectors


def _card(library: ThoughtTemplateLibrary) -> str:
    arguments, metrics = library.arguments, library.metrics
    counts = "".join(f"| {name} | {json.dumps(value)} |\n" for name, value in sorted(metrics.items()))
    return (
        "# Thought templates\n\n"
        f"{len(library)} notes on how logged queries were solved, written by "
        f"`{arguments.get('summariser', 'unknown')}`, found by {library.embedder}. They contain the text of "
        "logged queries.\n\n"
        f"| count | |\n| --- | --- |\n{counts}\n"
        "```python\nfrom fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary\n\n"
        'library = ThoughtTemplateLibrary.from_pretrained("path/to/this/folder")\n'
        "```\n"
    )
