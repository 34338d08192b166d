"""Bases and adapters as torch networks: the one place that knows how PEFT puts the two together."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError

from fusion_integrations._optional import require
from fusion_integrations.clients.gguf_weights import weights_identity
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.model_level.student_artifact import (
    WEIGHTS_FILE,
    BaseIdentity,
    LoraAdapterConfig,
    StudentAdapter,
)
from fusion_integrations.types import canonical_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "attach_adapter",
    "check_base",
    "end_tokens",
    "export_adapter",
    "identify_base",
    "lora_config",
    "without_rename_warning",
]


def identify_base(folder: str | Path, *, name: str, tokenizer: PreTrainedTokenizerBase) -> BaseIdentity:
    """Return the identity of a loaded base; reads all its weights once, unless they come from a GGUF file."""
    template: Any = tokenizer.chat_template or ""
    text = template.strip() if isinstance(template, str) else canonical_json(template)
    return BaseIdentity(
        name=name,
        weights=weights_identity(folder),
        chat_template=hashlib.sha256(text.encode()).hexdigest(),
    )


def check_base(wanted: BaseIdentity, found: BaseIdentity, *, folder: str | Path) -> None:
    """Refuse a base the student was not distilled on.

    Args:
        wanted: What the student was distilled on.
        found: What lies in the folder.
        folder: Where, for the message.

    Raises:
        ArtifactFormatError: If weights or chat template differ; names both.
    """
    for what, ours, theirs in (
        ("weights", wanted.weights, found.weights),
        ("the chat template", wanted.chat_template, found.chat_template),
    ):
        if ours != theirs:
            message = (
                f"Student was distilled from base '{wanted.name}' with {what} {ours}, but {folder} has "
                f"{theirs}. Pass the same base, or train again."
            )
            raise ArtifactFormatError(message)


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens at which `TransformersClient` ends an answer.

    Args:
        network: The base.
        tokenizer: Its tokenizer.

    Returns:
        At least one token.

    Raises:
        InvalidPolicyError: If neither names an end token.
    """
    named: Any = getattr(network.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise InvalidPolicyError("Neither the base nor its tokenizer names an end token. Use another base.")
    return (named,) if isinstance(named, int) else tuple(named)


@contextlib.contextmanager
def without_rename_warning() -> Iterator[None]:
    """Keep quiet that PEFT uses a name which transformers 5 has deprecated: no caller can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
        )
        yield


def lora_config(
    *, rank: int, alpha: float, dropout: float, target_modules: Literal["all-linear"] | Sequence[str]
) -> LoraConfig:
    """Return PEFT's configuration of an adapter, for training or to load one into."""
    peft = require("peft", extra="distill")
    is_name = isinstance(target_modules, str)
    config: LoraConfig = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if is_name else list(target_modules),
    )
    return config


def export_adapter(network: PeftModel, *, base: BaseIdentity) -> StudentAdapter:
    """Copy a trained adapter out of a network."""
    peft = require("peft", extra="distill")
    torch_io = require("safetensors.torch", extra="distill")
    float32 = require("torch", extra="distill").float32
    trained: Any = network.peft_config["default"]
    state = peft.get_peft_model_state_dict(network, save_embedding_layers=False)
    tensors = {name: tensor.detach().to("cpu", float32).contiguous() for name, tensor in state.items()}
    config = LoraAdapterConfig(
        base_model_name_or_path=base.name,
        r=trained.r,
        lora_alpha=trained.lora_alpha,
        lora_dropout=trained.lora_dropout,
        target_modules=_target_names(network),
    )
    return StudentAdapter(base=base, config=config, weights=torch_io.save(tensors, metadata={"format": "pt"}))


def _target_names(network: PeftModel) -> tuple[str, ...]:
    """Name the adapted layers: by their last part where that says it all, as `q_proj`, else in full."""
    tuner: Any = network.base_model
    targeted = set(tuner.targeted_module_names)
    last_parts = {name.rpartition(".")[2] for name in targeted}
    matching = {
        name for name, _ in network.get_base_model().named_modules() if name.rpartition(".")[2] in last_parts
    }
    return tuple(sorted(last_parts if matching == targeted else targeted))


def attach_adapter(network: PreTrainedModel, adapter: StudentAdapter, *, source: str | Path) -> PeftModel:
    """Put an adapter on its base, in place; the weights come from a file and are not trusted.

    Args:
        network: The base.
        adapter: What to put on it.
        source: Where the adapter is from, for the messages.

    Returns:
        The adapted network, for inference; `merge_and_unload` makes it an ordinary one.

    Raises:
        ArtifactFormatError: If the weights are damaged or do not fit the base.
    """
    peft = require("peft", extra="distill")
    torch_io = require("safetensors.torch", extra="distill")
    config = adapter.config
    try:
        tensors = torch_io.load(adapter.weights)
        _check_tensors(tensors, rank=config.r)
        settings = lora_config(
            rank=config.r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            target_modules=config.target_modules,
        )
        with without_rename_warning():
            adapted = peft.get_peft_model(network, settings)
        own = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        if {name: tensor.shape for name, tensor in own.items()} != {
            name: tensor.shape for name, tensor in tensors.items()
        }:
            raise ValueError("its tensors are not those that its layers need")
        peft.set_peft_model_state_dict(adapted, tensors)
    except (SafetensorError, ValueError, KeyError) as error:
        message = (
            f"{WEIGHTS_FILE} of {source} does not fit the base '{adapter.base.name}': {error}. "
            "Copy the artifact again, or train again."
        )
        raise ArtifactFormatError(message) from error
    adapted.eval()
    result: PeftModel = adapted
    return result


def _check_tensors(tensors: Mapping[str, torch.Tensor], *, rank: int) -> None:
    """Raise ValueError unless the tensors are sound, before PEFT makes room for an adapter of that rank."""
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape[1 if ".lora_B." in name else 0] != rank:
            raise ValueError(f"'{name}' of shape {tuple(tensor.shape)} is not of rank {rank}")
        if tensor.dtype != require("torch", extra="distill").float32 or not bool(tensor.isfinite().all()):
            raise ValueError(f"'{name}' holds something other than finite float32 numbers")
