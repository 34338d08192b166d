"""Average static token vectors (WordLlama); far faster than a transformer, for very large logs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fusion_integrations._optional import require
from fusion_integrations.embedders._contract import checked_texts, unit_rows
from fusion_integrations.errors import ArtifactFormatError, MissingDependencyError
from fusion_integrations.protocols import EmbedderIdentity, FloatArray

__all__ = ["WordLlamaEmbedder"]

_DIMENSIONS = 256
_WEIGHTS_FILE = Path("weights", "l2_supercat_256.safetensors")
_TOKENIZER_FILE = Path("tokenizers", "l2_supercat_tokenizer_config.json")


class WordLlamaEmbedder:
    """The 256-dim "l2_supercat" vectors that the package `wordllama` carries; no network, no torch.

    Only the package's two data files are read. Its code is not imported: it configures the root logger on
    import, its `load()` looks for the tokenizer in the wrong folder and then on the network, and its
    `embed()` pads a whole batch to the longest text. The vectors are the same. An instance may be used by
    several threads at once.

    Raises:
        MissingDependencyError: If wordllama or tokenizers is not installed.
        ArtifactFormatError: If its data files are missing or damaged.
    """

    def __init__(self) -> None:
        tokenizers = require("tokenizers", extra="embed-static")
        folder = _package_folder()
        try:
            # float32 once, here: summing the stored float16 would lose digits on long texts.
            self._token_vectors: FloatArray = load_file(folder / _WEIGHTS_FILE)["embedding.weight"].astype(
                np.float32
            )
            text = (folder / _TOKENIZER_FILE).read_text(encoding="utf-8")
        except (OSError, SafetensorError, KeyError) as error:
            raise _unusable(folder, error) from error
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # it raises a plain Exception
            raise _unusable(folder, error) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._identity = EmbedderIdentity(
            name="wordllama-l2-supercat",
            engine="static",
            precision="fp32",
            dimensions=_DIMENSIONS,
            max_tokens=0,
        )

    @property
    def identity(self) -> EmbedderIdentity:
        """The vectors' name; static, in fp32."""
        return self._identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: n non-empty texts, of any length.

        Returns:
            Array (n, 256), float32, rows of unit length.

        Raises:
            EmptyQueryError: If a text is empty or blank.
            InvalidPolicyError: If `texts` is one string.
        """
        means = np.zeros((len(texts), _DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(checked_texts(texts)):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            if ids:
                means[row] = self._token_vectors[ids].mean(axis=0)
        return unit_rows(means)


def _package_folder() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        message = (
            "This needs the package 'wordllama', which is not installed. "
            "Run: pip install 'fusion-integrations[embed-static]'"
        )
        raise MissingDependencyError(message)
    return Path(spec.submodule_search_locations[0])


def _unusable(folder: Path, error: Exception) -> ArtifactFormatError:
    message = (
        f"The data files of wordllama in {folder} cannot be used: {error}. "
        "Run: pip install --force-reinstall 'wordllama>=0.4.0.post1,<0.5'"
    )
    return ArtifactFormatError(message)
