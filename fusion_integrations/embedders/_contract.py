"""What every embedder promises: texts are checked before, rows have unit length after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.protocols import FloatArray


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts, each ready for a tokenizer.

    A lone surrogate, as a cut JSON escape leaves behind, becomes `?`: no tokenizer accepts it, and one such
    log row must not stop a training run.

    Args:
        texts: n texts.

    Returns:
        The n texts, in order.

    Raises:
        EmptyQueryError: If a text is empty or blank.
        InvalidPolicyError: If `texts` is one string, which would be embedded letter by letter.
    """
    if isinstance(texts, str):
        raise InvalidPolicyError("embed() takes a sequence of texts but got one string. Pass [text].")
    for position, text in enumerate(texts):
        if not text.strip():
            message = (
                f"Text {position} of {len(texts)} is empty or blank. Remove it, or pass at least one word."
            )
            raise EmptyQueryError(message)
    return [text.encode("utf-8", "replace").decode("utf-8") for text in texts]


def require_positive(name: str, value: int) -> None:
    """Refuse a count below 1.

    Args:
        name: What the count is called, for the message.
        value: The count.

    Raises:
        InvalidPolicyError: If `value` is below 1.
    """
    if value < 1:
        raise InvalidPolicyError(f"{name} must be at least 1, got {value}.")


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Scale each row of an (n, d) array to length 1; a zero row becomes the first axis."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_zero = norms[:, 0] == 0
    scaled = (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)
    scaled[is_zero, 0] = 1
    return scaled
