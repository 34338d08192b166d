"""Set up TRL's trainer for supervised fine-tuning of an adapter, quiet and without traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fusion_integrations._optional import require
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
from fusion_integrations.model_level.distillation_tokens import TokenizedPair
from fusion_integrations.model_level.student_network import lora_config, without_rename_warning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

__all__ = ["OnProgress", "eval_loss", "make_sft_trainer"]

OnProgress = Callable[[int, int, float], None]
"""Called after every step with its number from 1, the number of steps, and its loss."""


def make_sft_trainer(
    arguments: DistillationTrainingArguments,
    *,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[TokenizedPair],
    output_folder: str,
    on_step: OnProgress,
) -> SFTTrainer:
    """Return a trainer that puts an adapter on a network and teaches it pairs.

    Args:
        arguments: The settings.
        network: The base; it is changed in place.
        tokenizer: Its tokenizer.
        pairs: What to teach, at least one.
        output_folder: An existing folder that the trainer wants and nothing is written to.
        on_step: Called after every step.

    Returns:
        The trainer; its `train()` does the work.

    Raises:
        MissingDependencyError: If trl, peft or datasets is not installed.
    """
    datasets = require("datasets", extra="distill")
    torch = require("torch", extra="distill")
    transformers = require("transformers", extra="distill")
    trl = require("trl", extra="distill")
    n_steps = math.ceil(len(pairs) / arguments.batch_size) * arguments.n_epochs
    config = trl.SFTConfig(
        output_dir=output_folder,
        num_train_epochs=arguments.n_epochs,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.floor(arguments.warmup_share * n_steps),
        weight_decay=arguments.weight_decay,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=arguments.batch_size,
        # Less padding: batches hold pairs of similar length, in an order drawn anew every epoch.
        train_sampling_strategy="group_by_length",
        max_length=None,  # long pairs are gone; nothing is ever cut
        bf16=False,  # half as fast as float32 on CPUs without matrix units for it
        gradient_checkpointing=None,  # off, for speed; False would warn that the option has a new name
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=arguments.seed,
        save_strategy="no",
        report_to="none",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a diverged training has to show
        disable_tqdm=True,
    )
    with without_rename_warning():
        sft: SFTTrainer = _quiet_trainer_class()(
            model=network,
            args=config,
            train_dataset=datasets.Dataset.from_list([pair.to_example() for pair in pairs]),
            processing_class=tokenizer,
            peft_config=lora_config(
                rank=arguments.lora_rank,
                alpha=arguments.lora_alpha,
                dropout=arguments.lora_dropout,
                target_modules=arguments.target_modules,
            ),
            callbacks=[_step_callback(on_step)],
        )
    sft.remove_callback(transformers.PrinterCallback)
    return sft


def eval_loss(sft: SFTTrainer, pairs: Sequence[TokenizedPair]) -> float | None:
    """Return the mean loss of an answer token, batches weighted by pairs; None if there are no pairs."""
    if not pairs:
        return None
    datasets = require("datasets", extra="distill")
    examples = datasets.Dataset.from_list([pair.to_example() for pair in pairs])
    loss: float = sft.evaluate(examples)["eval_loss"]
    return loss


def _quiet_trainer_class() -> type[SFTTrainer]:
    trl = require("trl", extra="distill")

    class QuietSFTTrainer(trl.SFTTrainer):  # type: ignore[misc,name-defined]  # imported when needed
        """TRL's trainer without its message to the hub about who trains what."""

        def _send_telemetry(self) -> None:
            return

    return QuietSFTTrainer


def _step_callback(on_step: OnProgress) -> Any:
    transformers = require("transformers", extra="distill")

    class StepCallback(transformers.TrainerCallback):  # type: ignore[misc,name-defined]  # as above
        """Hands every step's loss on."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs:
                on_step(state.global_step, state.max_steps, logs["loss"])

    return StepCallback()
