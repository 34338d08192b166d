"""Embed texts by hashing words and letter triples; needs no model, so examples and tests run anywhere."""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from fusion_integrations.embedders._contract import checked_texts, unit_rows
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import EmbedderIdentity, FloatArray

__all__ = ["HashEmbedder"]

# Raise the number with any change to `_features` or `_bucket_counts`: old and new vectors do not compare.
_NAME = "hash-v1"
_MAX_DIMENSIONS = 65536
_WORD = re.compile(r"\w+")


class HashEmbedder:
    """Feature hashing of words, word pairs and character trigrams.

    Texts that share words are near, texts that mean the same in other words are not: it is a baseline and a
    stand-in, not a semantic model. The same text gives the same vector on every machine.

    Args:
        dimensions: Length of a vector, 1 to 65536; more means fewer collisions.

    Raises:
        InvalidPolicyError: If `dimensions` is out of range.

    Example:
        >>> HashEmbedder(dimensions=64).embed(["What is 2 + 2?"]).shape
        (1, 64)
    """

    def __init__(self, *, dimensions: int = 256) -> None:
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise InvalidPolicyError(f"dimensions must be 1 to {_MAX_DIMENSIONS}, got {dimensions}.")
        self._identity = EmbedderIdentity(
            name=_NAME, engine="hash", precision="fp32", dimensions=dimensions, max_tokens=0
        )

    @property
    def identity(self) -> EmbedderIdentity:
        """Name and version of the hashing rule, and the dimensions."""
        return self._identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: n non-empty texts, of any length.

        Returns:
            Array (n, dimensions), float32, rows of unit length.

        Raises:
            EmptyQueryError: If a text is empty or blank.
            InvalidPolicyError: If `texts` is one string.
        """
        dimensions = self._identity.dimensions
        vectors = np.zeros((len(texts), dimensions), dtype=np.float32)
        for row, text in enumerate(checked_texts(texts)):
            vectors[row] = _bucket_counts(text, dimensions=dimensions)
        return unit_rows(vectors)


def _bucket_counts(text: str, *, dimensions: int) -> FloatArray:
    """Count features into buckets; the hash's top bit signs them, so that collisions cancel on average."""
    hashes = np.fromiter((zlib.crc32(feature.encode()) for feature in _features(text)), dtype=np.uint32)
    signs = np.where(hashes >> 31, -1.0, 1.0)
    return np.bincount(hashes % dimensions, weights=signs, minlength=dimensions).astype(np.float32)


def _features(text: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded)
    yield from (f"w:{word}" for word in words)
    yield from (f"p:{first} {second}" for first, second in itertools.pairwise(words))
    # Padded with spaces, so that even one letter or a lone sign has a trigram.
    padded = f" {' '.join(folded.split())} "
    yield from (f"c:{padded[i : i + 3]}" for i in range(len(padded) - 2))
