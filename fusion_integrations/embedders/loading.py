"""Make an embedder from a name or from the identity an artifact was trained with, and compare identities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fusion_integrations.embedders.hash_embedder import HashEmbedder
from fusion_integrations.embedders.minilm_onnx import OnnxMiniLMEmbedder
from fusion_integrations.embedders.minilm_torch import SentenceTransformerEmbedder
from fusion_integrations.embedders.wordllama_static import WordLlamaEmbedder
from fusion_integrations.errors import EmbedderMismatchError, InvalidPolicyError
from fusion_integrations.protocols import Embedder, EmbedderIdentity

__all__ = ["EMBEDDER_NAMES", "check_identity", "load_embedder"]

# Closed on purpose: a file can choose among these, never name code to run.
_BY_NAME: dict[str, Callable[[], Embedder]] = {
    "hash": HashEmbedder,
    "minilm": OnnxMiniLMEmbedder,
    "minilm-int8": partial(OnnxMiniLMEmbedder, precision="int8"),
    "minilm-torch": SentenceTransformerEmbedder,
    "wordllama": WordLlamaEmbedder,
}
_BY_IDENTITY: dict[tuple[str, str], Callable[[EmbedderIdentity], Embedder]] = {
    ("all-MiniLM-L6-v2", "onnx"): lambda identity: OnnxMiniLMEmbedder(
        precision="int8" if identity.precision == "int8" else "fp32"
    ),
    ("all-MiniLM-L6-v2", "torch"): lambda _: SentenceTransformerEmbedder(),
    ("hash-v1", "hash"): lambda identity: HashEmbedder(dimensions=identity.dimensions),
    ("wordllama-l2-supercat", "static"): lambda _: WordLlamaEmbedder(),
}

EMBEDDER_NAMES: tuple[str, ...] = tuple(_BY_NAME)


def load_embedder(wanted: EmbedderIdentity | str) -> Embedder:
    """Make an embedder with its default settings.

    Args:
        wanted: A name of `EMBEDDER_NAMES` (`"minilm"` is all-MiniLM-L6-v2 on onnxruntime), or the identity
            that an artifact's manifest holds.

    Returns:
        The embedder; for an identity, one of exactly that identity.

    Raises:
        InvalidPolicyError: If the name is unknown; lists those there are.
        EmbedderMismatchError: If no built-in embedder has that identity; pass your own to the artifact then.

    Errors of the embedder's own constructor (package not installed, weights missing) pass through.
    """
    if isinstance(wanted, str):
        if wanted not in _BY_NAME:
            known = ", ".join(f"'{name}'" for name in EMBEDDER_NAMES)
            raise InvalidPolicyError(f"There is no embedder '{wanted}'. Known: {known}.")
        return _BY_NAME[wanted]()
    make = _BY_IDENTITY.get((wanted.name, wanted.engine))
    if make is None:
        message = (
            f"No built-in embedder is '{wanted}'. Make the embedder that was trained with and pass it as "
            "`embedder=`."
        )
        raise EmbedderMismatchError(message)
    embedder = make(wanted)
    check_identity(wanted, embedder.identity)
    return embedder


def check_identity(expected: EmbedderIdentity, actual: EmbedderIdentity) -> None:
    """Make sure that vectors of one embedder may be compared with those of another.

    Args:
        expected: What the artifact was trained with.
        actual: What is about to be used with it.

    Raises:
        EmbedderMismatchError: If they differ in anything; names what.
    """
    if expected == actual:
        return
    wanted, got = expected.to_json(), actual.to_json()
    differences = ", ".join(
        f"{field} '{wanted[field]}' against '{got[field]}'" for field in wanted if wanted[field] != got[field]
    )
    message = (
        f"Trained with embedder '{expected}' but got '{actual}': {differences}. "
        "Pass the same embedder, or retrain."
    )
    raise EmbedderMismatchError(message)
