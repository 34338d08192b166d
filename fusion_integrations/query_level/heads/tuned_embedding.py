"""An embedding tuned to the candidates: the top layers of all-MiniLM-L6-v2 trained, the rest as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.embedders.minilm_layers import MINILM_LAYERS, MiniLMLayers
from fusion_integrations.embedders.minilm_weights import MINILM_DIMENSIONS, MINILM_NAME, MINILM_SHA256
from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.protocols import FloatArray

__all__ = ["TunedEmbedding", "batches_of_like_length"]

_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedEmbedding:
    """Reads texts with the lower layers of all-MiniLM-L6-v2 and top layers of its own.

    Attributes:
        layers: The published weights.
        top: Trained tensors of each layer above those kept, the lowest first, named as by `layer_weights`.
        n_embedding: How many features of a query, the first ones, it stands in for.
        max_tokens: Longer texts are cut here.
    """

    layers: MiniLMLayers
    top: tuple[Mapping[str, Any], ...]
    n_embedding: int
    max_tokens: int

    def replace_embedding(self, texts: Sequence[str], features: FloatArray) -> FloatArray:
        """Give queries this embedding instead of the one they have.

        Args:
            texts: n query texts.
            features: (n, d) their features, the first `n_embedding` of them an embedding.

        Returns:
            Array (n, 384 + d - n_embedding), float32, this embedding first.
        """
        torch = require("torch", extra="embed-torch")
        embedded = np.empty((len(texts), MINILM_DIMENSIONS), dtype=np.float32)
        token_ids = self.layers.tokenize(texts)
        with torch.inference_mode():
            for rows in batches_of_like_length([len(ids) for ids in token_ids], batch_size=_BATCH_SIZE):
                hidden, mask = self.layers.run_lower(
                    [token_ids[row] for row in rows], n_layers=MINILM_LAYERS - len(self.top)
                )
                for weights in self.top:
                    hidden = self.layers.run_layer(hidden, mask, weights)
                embedded[rows] = self.layers.pool(hidden, mask).numpy()
        return np.ascontiguousarray(np.concatenate([embedded, features[:, self.n_embedding :]], axis=1))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was learned, and which weights it was learned on top of, as named arrays.

        The layers are stored with 16 bits, to which training rounded them.
        """
        learned = {
            f"layer.{number}.{name}": tensor.numpy().astype(np.float16)
            for number, weights in enumerate(self.top)
            for name, tensor in weights.items()
        }
        return {
            **learned,
            "published_sha256": np.frombuffer(bytes.fromhex(MINILM_SHA256), dtype=np.uint8),
            "n_embedding": np.array([self.n_embedding]),
            "max_tokens": np.array([self.max_tokens]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the embedding from `tensors`.

        Args:
            tensors: What `tensors` gave.

        Returns:
            The embedding.

        Raises:
            ArtifactFormatError: If it belongs on top of other weights, or its layers have other shapes.
            MissingDependencyError: If a package or the published weights are missing.
        """
        if tensors["published_sha256"].tobytes().hex() != MINILM_SHA256:
            message = (
                f"The head was trained on top of other weights than the {MINILM_NAME} of this release "
                f"(SHA-256 {MINILM_SHA256}). Use the release it was trained with, or retrain."
            )
            raise ArtifactFormatError(message)
        torch = require("torch", extra="embed-torch")
        n_top = len({name.split(".")[1] for name in tensors if name.startswith("layer.")})
        max_tokens = int(tensors["max_tokens"][0])
        layers, top = MiniLMLayers(max_tokens=max_tokens), []
        for number in range(n_top):
            published = layers.layer_weights(MINILM_LAYERS - n_top + number)
            learned = {name: tensors[f"layer.{number}.{name}"] for name in published}
            for name, tensor in learned.items():
                if tensor.shape != tuple(published[name].shape):
                    message = (
                        f"The artifact's array 'embedding.layer.{number}.{name}' has the shape "
                        f"{tensor.shape} instead of {tuple(published[name].shape)}. Save the router again."
                    )
                    raise ArtifactFormatError(message)
            top.append(
                {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in learned.items()}
            )
        return cls(
            layers=layers,
            top=tuple(top),
            n_embedding=int(tensors["n_embedding"][0]),
            max_tokens=max_tokens,
        )


def batches_of_like_length(lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Split n texts of these lengths so that a batch holds like ones: less padding to compute."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
