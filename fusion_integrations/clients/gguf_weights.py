"""Convert GGUF weights once to a safetensors folder, which loads in a second instead of a minute."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

from fusion_integrations._cache import cache_dir
from fusion_integrations._optional import require
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError

__all__ = ["file_sha256", "find_converted", "safetensors_from_gguf"]

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
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in marker["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if marker.get("gguf_sha256") == gguf_sha256 and sizes == marker["sizes"] else None


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
