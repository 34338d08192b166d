"""Run all-MiniLM-L6-v2 layer by layer, so that its top can be trained while the rest stays as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion_integrations._optional import require
from fusion_integrations.embedders._contract import checked_texts
from fusion_integrations.embedders.minilm_weights import (
    MINILM_DIMENSIONS,
    MINILM_MAX_TOKENS,
    find_torch_files,
)

__all__ = ["MINILM_LAYERS", "MiniLMLayers"]

MINILM_LAYERS = 6
_N_ATTENTION_HEADS = 12
_LAYER_NORM_EPS = 1e-12
_MAX_CHARACTERS = 100_000  # as in `minilm_onnx`: the tokens that count end long before


class MiniLMLayers:
    """The published weights of all-MiniLM-L6-v2, verified, as steps on torch tensors; they never change.

    Args:
        max_tokens: Longer texts are cut here; at most 256 count.

    Raises:
        MissingDependencyError: If torch, safetensors or tokenizers is not installed, or there are no weights.
        ArtifactFormatError: If the weights are not the published ones.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._torch: Any = require("torch", extra="embed-torch")
        tokenizers = require("tokenizers", extra="embed-torch")
        safetensors = require("safetensors.torch", extra="embed-torch")
        files = find_torch_files()
        self._weights: dict[str, Any] = safetensors.load_file(files.weights)
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.enable_truncation(min(max_tokens, MINILM_MAX_TOKENS))
        self._tokenizer.no_padding()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of n non-blank texts."""
        # One text a call keeps the tokenizer on this thread: its batch call starts a pool of its own.
        return [self._tokenizer.encode(text[:_MAX_CHARACTERS]).ids for text in checked_texts(texts)]

    def layer_weights(self, number: int) -> dict[str, Any]:
        """Return the tensors of a layer, the lowest being 0, by their names within it."""
        prefix = f"encoder.layer.{number}."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self._weights.items()
            if name.startswith(prefix)
        }

    def pad(self, rows: Sequence[Any]) -> tuple[Any, Any]:
        """Bring b tensors (l, ...) to one length: values (b, l, ...), and a mask (b, l), true at the real."""
        padded = self._torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = self._torch.tensor([len(row) for row in rows])
        return padded, self._torch.arange(padded.shape[1]) < lengths[:, None]

    def run_lower(self, token_ids: Sequence[Sequence[int]], *, n_layers: int) -> tuple[Any, Any]:
        """Embed b rows of token ids and run the lowest layers: hidden states (b, l, 384), and their mask."""
        with self._torch.no_grad():
            ids, mask = self.pad([self._torch.tensor(row) for row in token_ids])
            summed = (
                self._weights["embeddings.word_embeddings.weight"][ids]
                + self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
                + self._weights["embeddings.token_type_embeddings.weight"][0]
            )
            hidden = self._normalise(summed, "embeddings.LayerNorm", self._weights)
            for number in range(n_layers):
                hidden = self.run_layer(hidden, mask, self.layer_weights(number))
        return hidden, mask

    def run_layer(self, hidden: Any, mask: Any, weights: Mapping[str, Any], *, dropout: float = 0.0) -> Any:
        """Run one layer.

        Args:
            hidden: (b, l, 384) what it reads.
            mask: (b, l) true at real tokens.
            weights: Its tensors, named as by `layer_weights`.
            dropout: Share of what its parts add that is left out; for training.

        Returns:
            What the next layer reads, (b, l, 384).

        Source:
            Devlin et al., BERT (arXiv 1810.04805), on Vaswani et al. (arXiv 1706.03762), section 3.1.
        """
        functional = self._torch.nn.functional

        def linear(name: str, values: Any) -> Any:
            return functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

        def by_head(name: str) -> Any:
            return linear(name, hidden).unflatten(-1, (_N_ATTENTION_HEADS, -1)).transpose(1, 2)

        query, key, value = (by_head(f"attention.self.{name}") for name in ("query", "key", "value"))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        mixed = linear("attention.output.dense", attended.transpose(1, 2).flatten(2))
        mixed = hidden + functional.dropout(mixed, dropout)
        mixed = self._normalise(mixed, "attention.output.LayerNorm", weights)
        added = linear("output.dense", functional.gelu(linear("intermediate.dense", mixed)))
        return self._normalise(mixed + functional.dropout(added, dropout), "output.LayerNorm", weights)

    def pool(self, hidden: Any, mask: Any) -> Any:
        """Average (b, l, 384) over the real tokens, and scale to length 1: the embeddings (b, 384)."""
        summed = (hidden * mask[:, :, None]).sum(dim=1)
        return self._torch.nn.functional.normalize(summed, dim=1)

    def _normalise(self, values: Any, name: str, weights: Mapping[str, Any]) -> Any:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return self._torch.nn.functional.layer_norm(
            values, (MINILM_DIMENSIONS,), weight, bias, _LAYER_NORM_EPS
        )
