"""Train a student: choose pairs from logs, fine-tune an adapter with TRL and PEFT, and run it on its base."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fusion_integrations._optional import require
from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
from fusion_integrations.model_level.distillation_dataset import DistillationDataset
from fusion_integrations.model_level.distillation_tokens import TokenizedPair, tokenize_pairs
from fusion_integrations.model_level.sft import OnProgress, eval_loss, make_sft_trainer
from fusion_integrations.model_level.student_artifact import BASE_NAME_PATTERN
from fusion_integrations.model_level.student_model import StudentModel, run_adapter
from fusion_integrations.model_level.student_network import (
    end_tokens,
    export_adapter,
    identify_base,
)
from fusion_integrations.types import query_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DistillationTrainer", "OnProgress"]

logger = logging.getLogger(__name__)


class DistillationTrainer:
    """Teaches a small base the best logged answers.

    Nothing is downloaded or reported, and nothing but the returned student remains: no checkpoint, no output
    folder, no changed random state. On a CPU, equal logs, arguments and threads give an equal adapter.

    A router that shall choose the student must learn from its answers to other queries than it was taught:
    train on a part of the logs, collect the student's answers to the rest.

    Args:
        arguments: Settings; default `DistillationTrainingArguments()`.
        base: Folder of an instruction-tuned model: safetensors, config, and tokenizer with a chat template.
        base_name: Name of the base as logged, for example `"smollm2-135m"` or `"owner/name"`; no path.

    Raises:
        InvalidPolicyError: If `base_name` is no such name.

    Example:
        ```python
        trainer = DistillationTrainer(base="models/smollm2", base_name="smollm2-135m")
        student = trainer.train(load_logs("logs.sqlite")).save_pretrained("student")
        ```

    Source:
        FusionFactory (arXiv 2507.10540), model-level fusion; see docs/paper_map.md.
    """

    def __init__(
        self, arguments: DistillationTrainingArguments | None = None, *, base: str | Path, base_name: str
    ) -> None:
        if not re.fullmatch(BASE_NAME_PATTERN, base_name):
            message = (
                f"base_name must be a name such as 'smollm2-135m' or 'owner/name', got '{base_name}'. It is "
                "published with the student: a path of this machine does not belong there."
            )
            raise InvalidPolicyError(message)
        self.arguments = arguments or DistillationTrainingArguments()
        self.base = Path(base)
        self.base_name = base_name

    def train(
        self,
        logs: pl.DataFrame | LogSource,
        *,
        eval_logs: pl.DataFrame | LogSource | None = None,
        on_progress: OnProgress | None = None,
    ) -> StudentModel:
        """Train a student.

        Args:
            logs: Who answered what, and how well: a log store or its frame.
            eval_logs: Logs of queries that `logs` does not teach, nor near-duplicates of them; the loss on
                their pairs, chosen in the same way, is measured before and after.
            on_progress: Called after every step; what it raises ends the training and passes through.

        Returns:
            The trained student, running.

        Raises:
            NotEnoughLogsError: If no answer is good enough to be taught, or none fits into `max_tokens`.
            InvalidPolicyError: If the base cannot be taught, `eval_logs` holds taught queries, or the loss
                stopped being a number.
            UnknownCandidateError: If a wanted teacher answered no query.
            LogSchemaError: If the frame lacks columns.
            ArtifactNotFoundError: If there is no base in the folder.
            MissingDependencyError: If torch, transformers, trl, peft or datasets is not installed.
        """
        start = time.perf_counter()
        frame = as_frame(logs)
        dataset = DistillationDataset.from_logs(frame, self.arguments)
        eval_dataset = None if eval_logs is None else self._eval_dataset(as_frame(eval_logs), taught=dataset)
        network, tokenizer = load_model(self.base, extra="distill")
        base = identify_base(self.base, name=self.base_name, tokenizer=tokenizer)
        pairs, n_unfit = self._tokenize(dataset, network, tokenizer)
        eval_pairs = self._tokenize(eval_dataset, network, tokenizer)[0] if eval_dataset else []
        logger.info("Teaching '%s' %d pairs of %d queries", self.base_name, len(pairs), dataset.n_queries)
        losses: list[float] = []
        with _undisturbed(self.arguments.n_threads), tempfile.TemporaryDirectory() as scratch:
            sft = make_sft_trainer(
                self.arguments,
                network=network,
                tokenizer=tokenizer,
                pairs=pairs,
                output_folder=scratch,
                on_step=_watcher(losses, on_progress),
            )
            eval_losses = [eval_loss(sft, eval_pairs)]
            sft.train()
            eval_losses.append(eval_loss(sft, eval_pairs))
            adapter = export_adapter(sft.accelerator.unwrap_model(sft.model), base=base)
        del sft, network  # the base is loaded once more below, without what training did to it
        client = run_adapter(
            adapter, base=self.base, source="the new student", n_threads=self.arguments.n_threads
        )
        tenth = math.ceil(len(losses) / 10)
        return StudentModel(
            adapter=adapter,
            client=client,
            arguments=self.arguments.to_json(),
            log_fingerprint=log_fingerprint(frame),
            metrics={
                **_counts(dataset, pairs, n_unfit),
                "n_steps": len(losses),
                "n_tokens_seen": sum(map(len, pairs)) * self.arguments.n_epochs,
                "train_loss_first": fmean(losses[:tenth]),
                "train_loss_last": fmean(losses[-tenth:]),
                "n_eval_pairs": len(eval_pairs),
                "eval_loss_base": eval_losses[0],
                "eval_loss_student": eval_losses[1],
                "duration_s": time.perf_counter() - start,
            },
        )

    def _eval_dataset(self, frame: pl.DataFrame, *, taught: DistillationDataset) -> DistillationDataset:
        dataset = DistillationDataset.from_logs(frame, self.arguments)
        shared = _duplicate_keys(dataset) & _duplicate_keys(taught)
        if shared:
            message = (
                f"eval_logs holds {len(shared)} queries that are taught, themselves or as a near-duplicate, "
                f"for example '{min(shared)[:80]}': the loss would measure memory. Split the logs by "
                "`duplicate_key`, for example with `holdout_mask`."
            )
            raise InvalidPolicyError(message)
        return dataset

    def _tokenize(
        self, dataset: DistillationDataset, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[TokenizedPair], dict[str, int]]:
        limit = self.arguments.max_tokens
        pairs, n_unfit = tokenize_pairs(
            dataset.pairs, tokenizer=tokenizer, end_tokens=end_tokens(network, tokenizer), max_tokens=limit
        )
        if not pairs:
            reasons = ", ".join(f"{count} {reason}" for reason, count in n_unfit.items() if count)
            message = f"No pair can be taught: {reasons}. Raise max_tokens={limit}, or use other logs."
            raise NotEnoughLogsError(message)
        return pairs, n_unfit


def _counts(
    dataset: DistillationDataset, pairs: Sequence[TokenizedPair], n_unfit: Mapping[str, int]
) -> dict[str, Any]:
    """Return what became of the logs."""
    return {
        "n_queries": dataset.n_queries,
        "n_solved": dataset.n_solved,
        "n_pairs": len(pairs),
        "n_pairs_by_teacher": dict(sorted(Counter(item.pair.teacher for item in pairs).items())),
        "n_dropped": {**dataset.n_dropped, **n_unfit},
    }


def _watcher(losses: list[float], on_progress: OnProgress | None) -> OnProgress:
    """Return a callback that keeps every loss, passes it on, and ends a training that diverged."""

    def watch(step: int, n_steps: int, loss: float) -> None:
        losses.append(loss)
        if not math.isfinite(loss):
            message = f"The loss became {loss} at step {step} of {n_steps}. Lower the learning rate."
            raise InvalidPolicyError(message)
        if on_progress is not None:
            on_progress(step, n_steps, loss)

    return watch


@contextlib.contextmanager
def _undisturbed(n_threads: int) -> Iterator[None]:
    """Use so many threads inside the block; put threads and random states back afterwards."""
    torch = require("torch", extra="distill")
    before = torch.get_num_threads()
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - transformers seeds the global state
    torch.set_num_threads(n_threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _duplicate_keys(dataset: DistillationDataset) -> set[str]:
    return {duplicate_key(query_text(pair.messages)) for pair in dataset.pairs}
