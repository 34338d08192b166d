"""Convert GGUF weights once to a safetensors folder, which loads in a second instead of a minute."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fusion_integrations._cache import cache_dir
from fusion_integrations._optional import require
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError

__all__ = ["file_sha256", "find_converted", "safetensors_from_gguf", "weights_identity"]

logger = logging.getLogger(__name__)

# Written last: a folder without it, or with files of other sizes, is a conversion that did not finish.
_MARKER = "converted.json"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_converted(cache_name: str, *, gguf_sha256: str) -> Path | None:
    """Look up a finished conversion.

    Args:
        cache_name: The name it was converted under.
        gguf_sha256: SHA-256 of the GGUF file it must come from.

    Returns:
        Its folder, or None if there is none, or it is incomplete or of another file.
    """
    folder = _folder(cache_name)
    return folder if _converted_from(folder) == gguf_sha256 else None


def safetensors_from_gguf(gguf_path: str | Path, *, cache_name: str) -> Path:
    """Convert a GGUF file to float32 safetensors with config and tokenizer, unless that was done before.

    The folder appears in the cache in one step when it is complete, so an interrupted conversion leaves
    nothing behind that looks finished, and two processes may convert at once.

    Args:
        gguf_path: The GGUF file. Nothing is downloaded.
        cache_name: Name of the folder in the cache, one path component.

    Returns:
        The folder, as `TransformersClient.from_folder` reads it.

    Raises:
        ArtifactNotFoundError: If there is no such file.
        ArtifactFormatError: If transformers cannot read the file.
        MissingDependencyError: If transformers or gguf is not installed.
    """
    gguf_path = Path(gguf_path)
    if not gguf_path.is_file():
        raise ArtifactNotFoundError(f"There is no GGUF file at '{gguf_path}'.")
    digest = file_sha256(gguf_path)
    folder = find_converted(cache_name, gguf_sha256=digest)
    if folder is not None:
        return folder
    folder = _folder(cache_name)
    logger.info("Converting %s to safetensors in %s: a minute or two, once.", gguf_path.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{cache_name}-") as scratch:
        new = Path(scratch) / cache_name
        _convert(gguf_path, new)
        sizes = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
        marker = {"gguf_file": gguf_path.name, "gguf_sha256": digest, "sizes": sizes}
        (new / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        if find_converted(cache_name, gguf_sha256=digest) is None:  # else another process was faster
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    return folder


def weights_identity(folder: str | Path) -> str:
    """Say which weights lie in a folder, whatever its name, its files' names and how they are split.

    Args:
        folder: A folder with `*.safetensors`.

    Returns:
        `"gguf:"` and the SHA-256 of the GGUF file for a finished conversion, since machines may round
        differently when they convert; else `"safetensors:"` and a SHA-256 of all tensors: names, types,
        shapes and values, in the order of their names.

    Raises:
        ArtifactNotFoundError: If there are no safetensors.
        ArtifactFormatError: If they cannot be read, or hold a tensor twice.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        message = f"There are no safetensors weights in '{folder}'. Pass the folder of a saved model."
        raise ArtifactNotFoundError(message)
    gguf_sha256 = _converted_from(folder)
    return f"safetensors:{_tensors_sha256(files)}" if gguf_sha256 is None else f"gguf:{gguf_sha256}"


def _tensors_sha256(files: Sequence[Path]) -> str:
    """Hash the tensors of safetensors files, holding one tensor in memory at a time."""
    torch = require("torch", extra="transformers")
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        try:
            readers = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        except SafetensorError as error:
            message = f"A safetensors file in '{files[0].parent}' is damaged: {error}. Copy the model again."
            raise ArtifactFormatError(message) from error
        places = sorted((name, number) for number, reader in enumerate(readers) for name in reader.keys())  # noqa: SIM118 - a reader is no mapping
        if len({name for name, _ in places}) < len(places):
            message = f"The files in '{files[0].parent}' hold a tensor twice. Keep the files of one model."
            raise ArtifactFormatError(message)
        for name, number in places:
            header = readers[number].get_slice(name)
            digest.update(json.dumps([name, header.get_dtype(), header.get_shape()]).encode())
            digest.update(readers[number].get_tensor(name).reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _converted_from(folder: Path) -> str | None:
    """Return the SHA-256 of the GGUF file that a folder was converted from, if all of it is there."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in marker["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker.get("gguf_sha256") if sizes == marker["sizes"] else None


def _folder(cache_name: str) -> Path:
    return cache_dir() / "models" / cache_name


def _convert(gguf_path: Path, target: Path) -> None:
    """Write config, weights and tokenizer of a GGUF file to a folder."""
    require("gguf", extra="transformers")
    torch = require("torch", extra="transformers")
    transformers = require("transformers", extra="transformers")
    source = {"gguf_file": gguf_path.name, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_path.parent, **source)
        quantized = transformers.AutoModelForCausalLM.from_pretrained(
            gguf_path.parent, dtype=torch.float32, **source
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        message = f"transformers cannot read the GGUF file '{gguf_path}': {error}"
        raise ArtifactFormatError(message) from error
    # transformers refuses to save a model it loaded from GGUF, though its weights are plain float32 by now:
    # the same weights in a new model of the same config are saved without complaint.
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(quantized)(config)
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    model.generation_config = quantized.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
