"""Settings of distillation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fusion_integrations.errors import InvalidPolicyError

__all__ = ["DistillationCriterion", "DistillationTrainingArguments", "GroundTruth"]

DistillationCriterion = Literal["performance", "judge", "hybrid", "baseline"]
GroundTruth = Literal["add", "leave_out"]

# Smallest and largest value of each whole number.
_WHOLE_NUMBERS = {
    "top_k": (1, math.inf),
    "lora_rank": (1, 1024),
    "n_epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "max_tokens": (8, math.inf),
    "n_threads": (1, math.inf),
    "seed": (0, 2**32 - 1),
}
_SHARES = ("lora_dropout", "warmup_share")


@dataclass(frozen=True, kw_only=True)
class DistillationTrainingArguments:
    """Settings of `DistillationTrainer`; the defaults suit a base of 100M to 500M and some hundred pairs.

    Attributes:
        criterion: Which logged answers teach: the best by `"performance"`, by `"judge"` score, by `"hybrid"`
            (performance, then judge), or none: `"baseline"` teaches the logged references alone, as
            fine-tuning without multi-LLM logs would.
        top_k: Most different answers to one query, at least 1.
        min_score: An answer teaches only if it reaches this score, in [0, 1]; for `"hybrid"` this bounds the
            performance.
        ground_truth: `"add"` also teaches the logged reference of every query that has one, as the paper
            does, solved or not; `"leave_out"` teaches answers of LLMs only.
        teachers: Ids of the candidates whose answers may teach; None means all. The paper's "small models
            only" is one such choice.
        max_pairs_per_task: Most pairs of one task, so that a large task does not drown the others; None means
            no limit. Queries without a task count as one task.
        lora_rank: Rank of the adapter, from 1 to 1024. Its size is proportional to this.
        lora_alpha: The adapter counts `lora_alpha / lora_rank` times; above 0.
        lora_dropout: Share of the adapter's inputs dropped while training, in [0, 1).
        target_modules: Names of the layers that get an adapter, or `"all-linear"`: every linear layer but the
            output layer.
        n_epochs: How often every pair is seen, at least 1.
        learning_rate: Peak step size of AdamW, above 0; it rises linearly and then falls linearly to 0.
        batch_size: Pairs a step, at least 1.
        max_tokens: Most tokens of prompt and answer together, at least 8. Longer pairs are left out and
            counted, never cut.
        warmup_share: Share of the steps during which the learning rate rises, in [0, 1).
        weight_decay: AdamW's, at least 0.
        n_threads: CPU threads while training, at least 1.
        seed: Seed of every random choice, from 0 to 2**32 - 1.

    Source:
        FusionFactory (arXiv 2507.10540), model-level fusion: top 5 answers plus the ground truth, LoRA.
    """

    criterion: DistillationCriterion = "performance"
    top_k: int = 5
    min_score: float = 0.5
    ground_truth: GroundTruth = "add"
    teachers: tuple[str, ...] | None = None
    max_pairs_per_task: int | None = None
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    n_epochs: int = 3
    learning_rate: float = 5e-4
    batch_size: int = 8
    max_tokens: int = 512
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    n_threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value lies outside its range, or two contradict each other.
        """
        self._check_data()
        self._check_numbers()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def _check_data(self) -> None:
        for name, value, known in (
            ("criterion", self.criterion, get_args(DistillationCriterion)),
            ("ground_truth", self.ground_truth, get_args(GroundTruth)),
        ):
            if value not in known:
                raise InvalidPolicyError(f"{name} must be one of {', '.join(known)}, got '{value}'.")
        if self.criterion == "baseline" and (self.ground_truth != "add" or self.teachers is not None):
            message = (
                "criterion='baseline' teaches the logged references alone: leave ground_truth at 'add' and "
                "teachers at None."
            )
            raise InvalidPolicyError(message)
        if isinstance(self.teachers, str) or self.teachers == ():
            message = f"teachers must be None or a tuple of candidate ids, got {self.teachers!r}."
            raise InvalidPolicyError(message)
        if self.target_modules != "all-linear" and (
            isinstance(self.target_modules, str) or not self.target_modules
        ):
            message = f"target_modules must be 'all-linear' or a tuple of names, got {self.target_modules!r}."
            raise InvalidPolicyError(message)
        if not 0 <= self.min_score <= 1:
            raise InvalidPolicyError(f"min_score must lie in [0, 1], got {self.min_score}.")
        if self.max_pairs_per_task is not None and self.max_pairs_per_task < 1:
            message = f"max_pairs_per_task must be None or at least 1, got {self.max_pairs_per_task}."
            raise InvalidPolicyError(message)

    def _check_numbers(self) -> None:
        for name, (smallest, largest) in _WHOLE_NUMBERS.items():
            if not smallest <= getattr(self, name) <= largest:
                limits = f"between {smallest} and {largest}" if largest < math.inf else f"at least {smallest}"
                raise InvalidPolicyError(f"{name} must be {limits}, got {getattr(self, name)}.")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise InvalidPolicyError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name in ("lora_alpha", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InvalidPolicyError(f"{name} must be a finite number > 0, got {getattr(self, name)}.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InvalidPolicyError(f"weight_decay must be a finite number >= 0, got {self.weight_decay}.")
