"""Load artifacts, and only what is intact: every data file has to match its hash in the manifest."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fusion_integrations.artifacts.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    ArtifactKind,
    ArtifactManifest,
)
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError

__all__ = ["LoadedArtifact", "load_artifact", "read_manifest"]

# A reader starts over when a save replaced the artifact under it; this often only if saves never pause.
_MAX_READS = 100


@dataclass(frozen=True, kw_only=True)
class LoadedArtifact:
    """An artifact whose manifest and data files were found intact.

    Attributes:
        manifest: What it says about itself.
        folder: Where it lies.
        contents: The verified content of each data file; empty if it was loaded with `keep="paths"`.
    """

    manifest: ArtifactManifest
    folder: Path
    contents: Mapping[str, bytes] = field(repr=False)

    @property
    def data_folder(self) -> Path:
        """The folder of the data files; the next save over this artifact removes it."""
        return self.folder / self.manifest.data_folder

    def path(self, name: str) -> Path:
        """Give the path of a data file, for a library that wants to open it itself.

        Args:
            name: Name of the file.

        Returns:
            The path. The file matched its hash when the artifact was loaded; a later change goes unseen.

        Raises:
            ArtifactFormatError: If the artifact has no file of that name.
        """
        if name not in self.manifest.files:
            known = ", ".join(f"'{file}'" for file in self.manifest.files)
            message = f"The artifact {self.folder} has no file '{name}'. It has: {known}. Save it again."
            raise ArtifactFormatError(message)
        return self.data_folder / name

    def read_bytes(self, name: str) -> bytes:
        """Return the verified content of a data file.

        Args:
            name: Name of the file.

        Returns:
            What was hashed when the artifact was loaded, or with `keep="paths"` what is read and hashed now.

        Raises:
            ArtifactFormatError: If there is no such file, or it is damaged or gone.
        """
        path = self.path(name)
        if name in self.contents:
            return self.contents[name]
        return _read_verified(path, sha256=self.manifest.files[name])


def load_artifact(
    folder: str | Path,
    *,
    kind: ArtifactKind,
    expected_digest: str | None = None,
    keep: Literal["bytes", "paths"] = "bytes",
) -> LoadedArtifact:
    """Load an artifact after comparing every data file with its hash.

    Files are read as bytes and nothing in them is run. Symbolic links are followed, because a download by
    `huggingface_hub` consists of them: names cannot leave the folder, and content must match its hash.

    Args:
        folder: Where it lies.
        kind: What it has to be.
        expected_digest: The `ArtifactManifest.digest` it has to have. The hashes inside only detect damage;
            this, kept elsewhere, also detects tampering.
        keep: `"bytes"` keeps the verified content in memory, so `read_bytes` gives just that even if the
            artifact is replaced later. `"paths"` keeps nothing: for large files that another library opens.

    Returns:
        The artifact, as one save wrote it, even while others save over it.

    Raises:
        ArtifactNotFoundError: If there is no artifact.
        ArtifactFormatError: If it is damaged, of another kind, of a newer release, or not the expected one.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    for _ in range(_MAX_READS):
        _check_wanted(manifest, root=root, kind=kind, expected_digest=expected_digest)
        data_folder = root / manifest.data_folder
        try:
            contents = {
                name: _read_verified(data_folder / name, sha256=sha256, keep=keep)
                for name, sha256 in manifest.files.items()
            }
        except ArtifactFormatError:
            current = read_manifest(root)
            if current.data_folder == manifest.data_folder:
                raise
            manifest = current  # a save replaced the artifact meanwhile: read that one
            continue
        return LoadedArtifact(manifest=manifest, folder=root, contents=contents if keep == "bytes" else {})
    message = f"{root} was replaced {_MAX_READS} times while it was read. Save to it less often."
    raise ArtifactFormatError(message)


def read_manifest(folder: str | Path) -> ArtifactManifest:
    """Read what an artifact says about itself, without touching its data files.

    Args:
        folder: Where it lies.

    Returns:
        The manifest, every field checked.

    Raises:
        ArtifactNotFoundError: If there is no artifact.
        ArtifactFormatError: If the manifest is damaged or of a newer release.
    """
    root = Path(folder)
    file = root / MANIFEST_FILE
    try:
        _require_regular(file)
        with file.open("rb") as stream:
            text = stream.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = (
            f"There is no artifact at {root}: it has no {MANIFEST_FILE}. Check the path, or train and save."
        )
        raise ArtifactNotFoundError(message) from error
    except OSError as error:
        raise ArtifactFormatError(f"{file} cannot be read: {error}.") from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise ArtifactFormatError(
            f"{file} is no manifest: it is larger than {MAX_MANIFEST_BYTES} bytes. Save the artifact again."
        )
    return ArtifactManifest.from_text(text, source=file)


def _check_wanted(
    manifest: ArtifactManifest, *, root: Path, kind: ArtifactKind, expected_digest: str | None
) -> None:
    if manifest.kind != kind:
        raise ArtifactFormatError(f"{root} holds a {manifest.kind}, not a {kind}. Load it as what it is.")
    if expected_digest is not None and manifest.digest != expected_digest:
        message = (
            f"{root} has the digest {manifest.digest}, expected {expected_digest}: it is another artifact, "
            "or was tampered with. Get it again from where the digest is from."
        )
        raise ArtifactFormatError(message)


def _read_verified(path: Path, *, sha256: str, keep: Literal["bytes", "paths"] = "bytes") -> bytes:
    """Return the content if its hash is right; with `keep="paths"` hash it in pieces and return nothing."""
    try:
        _require_regular(path)
        with path.open("rb") as stream:
            content = stream.read() if keep == "bytes" else b""
            digest = hashlib.sha256(content) if keep == "bytes" else hashlib.file_digest(stream, "sha256")
    except OSError as error:
        message = f"The artifact file {path} is missing or unreadable: {error}. Copy the artifact again."
        raise ArtifactFormatError(message) from error
    if digest.hexdigest() != sha256:
        message = (
            f"The artifact file {path} is damaged: its SHA-256 is not the one in {MANIFEST_FILE}. "
            "Copy the artifact again, or train again."
        )
        raise ArtifactFormatError(message)
    return content


def _require_regular(path: Path) -> None:
    """Refuse what could block or never end when read: pipes and devices."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is not a regular file")
