"""Save artifacts so that a reader sees all of the old or all of the new, whenever the process stops.

    router/
      manifest.json            the switch: replaced by one rename
      README.md                the model card, for people
      data-3f2a9c0d11e84b7a/   the data files of this save; the next save makes a folder of its own
        weights.safetensors

A save writes its own data folder, then replaces `manifest.json`, which names that folder, then removes the
old one: there is no moment without a complete artifact. Data files keep plain names in one folder, so that
other programs (a server that loads an adapter) can be pointed at it. See docs/artifact_format.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from fusion_integrations.artifacts.loading import read_manifest
from fusion_integrations.artifacts.manifest import (
    CARD_FILE,
    DATA_FOLDER_PATTERN,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    ArtifactKind,
    ArtifactManifest,
    describe,
)
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, ArtifactWriteError
from fusion_integrations.protocols import EmbedderIdentity

__all__ = ["save_artifact"]

logger = logging.getLogger(__name__)


def save_artifact(
    folder: str | Path,
    *,
    kind: ArtifactKind,
    files: Mapping[str, bytes | Callable[[Path], object]],
    card: str,
    candidates: Sequence[Mapping[str, JsonValue]] = (),
    embedder: EmbedderIdentity | None = None,
    query_text_version: int | None = None,
    arguments: Mapping[str, JsonValue] | None = None,
    log_fingerprint: str = "",
    metrics: Mapping[str, JsonValue] | None = None,
    details: Mapping[str, JsonValue] | None = None,
    created_at: datetime | None = None,
) -> ArtifactManifest:
    """Save an artifact, replacing an older one of its kind.

    Whatever happens - an error, a full disk, a killed process - `folder` holds the whole old or the whole new
    artifact. After an error nothing is left behind; a killed process may leave its `data-*` folder, which
    nothing reads and which may be deleted. If several processes save at once, one of them wins as a whole.
    An error that a function of `files` raises passes through, if it is not an `OSError`.

    Args:
        folder: Where to; missing parents are made.
        kind: What it is.
        files: For each data file its content, or a function that writes the file at the path it is given.
        card: The model card, Markdown.
        candidates: See `ArtifactManifest`, as for the arguments up to `created_at`.
        embedder: The embedder it was trained with.
        query_text_version: Version of `types.query_text` it was trained with.
        arguments: The training arguments.
        log_fingerprint: Fingerprint of the logs it learned from.
        metrics: What was measured at training.
        details: What only this kind needs.
        created_at: When it was made, with a time zone; None means now.

    Returns:
        The manifest as written.

    Raises:
        ArtifactFormatError: If a file name is not plain, or a value is not JSON. Nothing was written.
        ArtifactWriteError: If `folder` holds anything but an artifact of this kind, or cannot be written.
    """
    target = Path(folder)
    try:
        # With stand-in hashes at first: what is wrong with the arguments shows before anything is written.
        manifest = ArtifactManifest(
            kind=kind,
            format_version=FORMAT_VERSION,
            created_at=created_at or datetime.now(UTC),
            library_version=importlib.metadata.version("fusion-integrations"),
            candidates=tuple(dict(candidate) for candidate in candidates),
            embedder=embedder,
            query_text_version=query_text_version,
            arguments=dict(arguments or {}),
            log_fingerprint=log_fingerprint,
            metrics=dict(metrics or {}),
            details=dict(details or {}),
            files=dict.fromkeys(files, "0" * 64),
            data_folder=f"data-{secrets.token_hex(8)}",
        )
    except ValidationError as error:
        raise ArtifactFormatError(f"Cannot save {target}: {describe(error)}.") from error
    try:
        _check_replaceable(target, kind=kind)
        return _write(target, manifest, files=files, card=card)
    except OSError as error:
        if isinstance(error, ArtifactWriteError):
            raise
        message = f"Cannot save {target}: {error}. What was there is unchanged. Free space or check rights."
        raise ArtifactWriteError(message) from error


def _check_replaceable(target: Path, *, kind: ArtifactKind) -> None:
    """Refuse to save over anything but nothing, or an artifact of the same kind."""
    if not target.exists():
        return
    if not target.is_dir() or (target / CARD_FILE).is_dir():
        raise ArtifactWriteError(f"{target} or its {CARD_FILE} is in the way. Choose another folder.")
    try:
        found = read_manifest(target).kind
    except ArtifactNotFoundError:
        # Hidden files (.git, .gitattributes) and what a killed first save left are no reason to refuse.
        strangers = sorted(
            entry.name
            for entry in target.iterdir()
            if not entry.name.startswith(".") and not re.fullmatch(DATA_FOLDER_PATTERN, entry.name)
        )
        if strangers:
            message = f"{target} is not an artifact: it holds '{strangers[0]}'. Choose another folder."
            raise ArtifactWriteError(message) from None
    except ArtifactFormatError as error:
        message = f"{target} is not replaced, for it cannot be read: {error} Or delete it first."
        raise ArtifactWriteError(message) from error
    else:
        if found != kind:
            message = f"{target} holds a {found}, which a {kind} does not replace. Choose another folder."
            raise ArtifactWriteError(message)


def _write(
    target: Path,
    manifest: ArtifactManifest,
    *,
    files: Mapping[str, bytes | Callable[[Path], object]],
    card: str,
) -> ArtifactManifest:
    data = target / manifest.data_folder
    with contextlib.ExitStack() as undo:
        absent = [folder for folder in (target, *target.parents) if not folder.exists()]
        for folder in reversed(absent):  # undone last in, first out: the innermost folder goes first
            undo.callback(_remove_if_empty, folder)
        target.mkdir(parents=True, exist_ok=True)
        undo.callback(_discard_unless_current, data)
        data.mkdir()
        hashes = {name: _write_file(data / name, source) for name, source in files.items()}
        strays = sorted({entry.name for entry in data.iterdir()} - hashes.keys())
        if strays:
            raise ArtifactWriteError(
                f"Cannot save {target}: a writer also made '{strays[0]}', not in `files`."
            )
        manifest = manifest.model_copy(update={"files": hashes})
        text = manifest.to_text().encode()
        if len(text) > MAX_MANIFEST_BYTES:
            message = f"Cannot save {target}: manifest of {len(text)} bytes. Put large data into `files`."
            raise ArtifactWriteError(message)
        # Written beside the data under hidden names, which no data file can have, and moved out of there.
        _write_file(data / f".{MANIFEST_FILE}", text)
        _write_file(data / f".{CARD_FILE}", card.encode(errors="replace"))
        _sync_folder(data)
        _sync_folder(target)
        replaced = _current_data_folder(target)
        (data / f".{MANIFEST_FILE}").replace(target / MANIFEST_FILE)
        # Gone already if another process saved over this very artifact in between: then its card counts.
        with contextlib.suppress(FileNotFoundError):
            (data / f".{CARD_FILE}").replace(target / CARD_FILE)
        undo.pop_all()
    _remove_replaced(target, replaced)
    logger.info("Saved a %s to %s, digest %s", manifest.kind, target, manifest.digest)
    return manifest


def _write_file(path: Path, source: bytes | Callable[[Path], object]) -> str:
    """Write a file through to the disk and return its SHA-256."""
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        source(path)
        if path.is_symlink() or not path.is_file():
            raise ArtifactWriteError(f"The writer of '{path.name}' made no file of that name.")
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut; Windows has no such call and orders renames itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _current_data_folder(target: Path) -> str | None:
    try:
        return read_manifest(target).data_folder
    except (ArtifactNotFoundError, ArtifactFormatError):
        return None


def _discard_unless_current(data: Path) -> None:
    """Remove an unfinished save, but never one that an interrupt hit just after the manifest was replaced."""
    if _current_data_folder(data.parent) != data.name:
        shutil.rmtree(data, ignore_errors=True)


def _remove_replaced(target: Path, data_folder: str | None) -> None:
    """Remove the data of the artifact before, once the disk has confirmed the switch away from it."""
    try:
        _sync_folder(target)
        if data_folder is not None:
            shutil.rmtree(target / data_folder)
    except FileNotFoundError:
        logger.debug("Another process removed '%s' in %s first", data_folder, target)
    except OSError as error:
        logger.warning(
            "Saved, but '%s' in %s could not be removed; delete it: %s", data_folder, target, error
        )


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
