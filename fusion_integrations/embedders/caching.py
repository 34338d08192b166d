"""Embed each text once: training several routers on the same logs asks for the same vectors again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion_integrations.protocols import Embedder, EmbedderIdentity, FloatArray

__all__ = ["CachingEmbedder"]


class CachingEmbedder:
    """An embedder that remembers every vector it gave; same identity, same vectors. Not for endless traffic.

    Args:
        embedder: Computes the vectors.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, FloatArray] = {}

    @property
    def identity(self) -> EmbedderIdentity:
        """That of the embedder inside."""
        return self._embedder.identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts; errors as in the embedder inside.

        Args:
            texts: n texts.

        Returns:
            Array (n, dimensions), float32, rows of unit length.
        """
        if isinstance(texts, str):
            return self._embedder.embed(texts)  # which says what is wrong with one text
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        if len(texts) == 0:
            return np.zeros((0, self.identity.dimensions), dtype=np.float32)
        return np.array([self._vectors[text] for text in texts])
