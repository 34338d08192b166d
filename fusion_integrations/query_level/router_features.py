"""What a head sees of a query: its embedding beside its surface features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.query_level.text_features import TEXT_FEATURES_VERSION, text_features

__all__ = ["router_features"]


def router_features(
    texts: Sequence[str], *, embedder: Embedder, version: int = TEXT_FEATURES_VERSION
) -> FloatArray:
    """Compute the features of queries.

    Args:
        texts: n query texts, as `query_text` gives them.
        embedder: The embedder the router was or will be trained with.
        version: Which surface features; see `text_features`.

    Returns:
        Array (n, dimensions + 36), float32, C-contiguous; 30 instead of 36 for version 1.

    Raises:
        EmptyQueryError: If a text is blank.
    """
    for position, text in enumerate(texts):
        if not text.strip():
            raise EmptyQueryError(f"Query {position} of {len(texts)} is blank. Pass at least one word.")
    return np.ascontiguousarray(
        np.concatenate([embedder.embed(texts), text_features(texts, version=version)], axis=1)
    )
