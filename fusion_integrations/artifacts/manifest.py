"""What an artifact says about itself; one JSON file that names every other file by its hash."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.protocols import EmbedderIdentity
from fusion_integrations.types import canonical_json

__all__ = ["FORMAT_VERSION", "ArtifactKind", "ArtifactManifest"]

# Raise it when a reader of the version before would misread or reject what is now written: a field of the
# manifest added, removed or read differently, or a data file laid out differently. A further key in
# `arguments`, `metrics` or `details` that may be absent needs no new number. Every number ever released stays
# loadable, with a golden artifact in the tests.
FORMAT_VERSION = 1

MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"

ArtifactKind = Literal["router", "template_library", "student"]

# Manifests are read whole before anything in them is trusted; what is large belongs into a data file.
MAX_MANIFEST_BYTES = 16 * 2**20

# No separators and no leading dot: a name from a file can never lead out of the data folder.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
DATA_FOLDER_PATTERN = r"^data-[0-9a-f]{16}$"
DataFolder = Annotated[str, StringConstraints(pattern=DATA_FOLDER_PATTERN)]


class ArtifactManifest(BaseModel):
    """The content of `manifest.json`.

    Attributes:
        kind: What was trained.
        format_version: How the artifact is laid out; see `FORMAT_VERSION`.
        created_at: When it was saved.
        library_version: Release of this toolkit that saved it.
        candidates: The candidates it knows, as JSON, in the order of its outputs.
        embedder: The embedder it was trained with, or None if it needs none.
        query_text_version: `types.QUERY_TEXT_VERSION` at training, or None if it embeds no queries.
        arguments: The training arguments.
        log_fingerprint: Fingerprint of the logs it learned from; empty if unknown.
        metrics: What was measured at training. No NaN or infinity: what is unknown is None.
        details: What only this kind needs.
        files: SHA-256 of each data file, by name.
        data_folder: Where in the artifact the data files lie. A location, not content: outside the digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ArtifactKind
    format_version: int
    created_at: AwareDatetime
    library_version: str
    candidates: tuple[dict[str, JsonValue], ...]
    embedder: EmbedderIdentity | None
    query_text_version: int | None
    arguments: dict[str, JsonValue]
    log_fingerprint: str
    metrics: dict[str, JsonValue]
    details: dict[str, JsonValue]
    files: dict[FileName, Sha256]
    data_folder: DataFolder

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if len({name.casefold() for name in self.files}) < len(self.files):
            raise ValueError("two file names differ only in case, which some file systems do not keep apart")
        for field in ("candidates", "arguments", "metrics", "details"):
            if not _is_writable(getattr(self, field)):
                raise ValueError(f"'{field}' holds NaN, infinity or a lone surrogate; store None instead")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact's content: of this manifest, and through its hashes of every data file.

        64 hexadecimal digits. Keep it apart from the artifact and pass it as `expected_digest` when loading:
        whoever changes the artifact can also change the hashes in it, but not this.
        """
        content = self.model_dump(mode="json", exclude={"data_folder"})
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def to_text(self) -> str:
        """Return the text of `manifest.json`, laid out for people."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes, *, source: Path) -> Self:
        """Read the text of a `manifest.json`.

        Args:
            text: The text; not trusted.
            source: Where it comes from, for the messages.

        Returns:
            The manifest, every field checked.

        Raises:
            ArtifactFormatError: If it is no manifest, or of a newer release.
        """
        try:
            version = json.loads(text)["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"{source} is not an artifact's manifest: {error!r}. Save the artifact again."
            raise ArtifactFormatError(message) from error
        if isinstance(version, int) and version > FORMAT_VERSION:
            message = (
                f"{source} was written by a newer release: format {version}, and this release reads up to "
                f"{FORMAT_VERSION}. Run: pip install --upgrade fusion-integrations"
            )
            raise ArtifactFormatError(message)
        if version != FORMAT_VERSION or isinstance(version, bool):
            message = (
                f"{source} has format version {version!r}, which never existed. Save the artifact again."
            )
            raise ArtifactFormatError(message)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            message = f"{source} is malformed: {describe(error)}. Save the artifact again."
            raise ArtifactFormatError(message) from error


def describe(error: ValidationError) -> str:
    """Say in one line which fields are wrong, without repeating their values."""
    return "; ".join(
        f"{'.'.join(map(str, detail['loc'])) or 'manifest'}: {detail['msg']}"
        for detail in error.errors(include_url=False, include_input=False)
    )


def _is_writable(value: JsonValue | tuple[JsonValue, ...]) -> bool:
    """Tell whether a UTF-8 JSON file can hold what pydantic accepts as JSON."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(_is_writable(key) and _is_writable(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_writable, value))
    return True
