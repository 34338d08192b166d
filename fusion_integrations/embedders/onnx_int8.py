"""Make the int8 form of an ONNX model; apart from finding weights, because it needs one package more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusion_integrations._optional import require

__all__ = ["quantize_to_int8"]


def quantize_to_int8(source: Path, target: Path) -> None:
    """Write a model with int8 weights and with activations that are quantised at run time.

    Each output column of a weight matrix has its own scale. Weights use 7 of the 8 bits: the products of 8
    would overflow the 16-bit sums of x86 processors without VNNI, and vectors made on one machine would not
    compare with those of another.

    Args:
        source: An ONNX file in fp32.
        target: Where the int8 file goes.

    Raises:
        MissingDependencyError: If onnx or onnxruntime is not installed.
    """
    onnx = require("onnx", extra="embed-int8")
    quantization = require("onnxruntime.quantization", extra="embed-int8")
    quant_utils = require("onnxruntime.quantization.quant_utils", extra="embed-int8")
    model = onnx.load(str(source))
    # Marked as prepared, to be spared the advice to prepare it: that folds constants, which onnxruntime does
    # when it opens the file.
    quant_utils.add_pre_process_metadata(model)
    with _root_logger_untouched():
        quantization.quantize_dynamic(
            model,
            str(target),
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )


@contextmanager
def _root_logger_untouched() -> Iterator[None]:
    """Keep the quantiser's `logging.info` from hanging a handler on the root logger for good."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        yield
    finally:
        root.removeHandler(placeholder)
