"""Load a causal language model from a folder: safetensors alone, no download, no code of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fusion_integrations._optional import require
from fusion_integrations.errors import ArtifactNotFoundError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load_model"]


def load_model(
    folder: str | Path, *, extra: str = "transformers"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in float32: bfloat16 is slower on CPUs, and merging an adapter in it costs accuracy.

    Args:
        folder: Folder of safetensors, config and tokenizer.
        extra: What to install where torch or transformers is missing.

    Returns:
        The network and its tokenizer.

    Raises:
        ArtifactNotFoundError: If the folder holds no `*.safetensors`.
        MissingDependencyError: If torch or transformers is not installed.
    """
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        message = f"There are no safetensors weights in '{folder}'. Pass the folder of a saved model."
        raise ArtifactNotFoundError(message)
    torch = require("torch", extra=extra)
    transformers = require("transformers", extra=extra)
    safe = {"local_files_only": True, "trust_remote_code": False}
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, **safe
    )
    return network, transformers.AutoTokenizer.from_pretrained(folder, **safe)
