"""Settings of router training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.heads import AutoHeadConfig, HeadConfig, StackHeadConfig
from fusion_integrations.query_level.labels import AnyLabel, label_to_json

__all__ = ["RouterTrainingArguments"]


@dataclass(frozen=True, kw_only=True)
class RouterTrainingArguments:
    """Settings of `RouterTrainer`.

    Attributes:
        head: Which learner predicts performance, and its settings. `AutoHeadConfig` tries several.
        label: Which score to learn, or a `LabelBlend`; the paper's fourth scenario is `"judge_score"`.
        n_members: Ensemble members, each trained without another part of the queries. Their spread is the
            router's uncertainty.
        n_calibration_folds: Folds of the cross-validation that chooses the margin.
        max_queries: Most queries to learn from; of longer logs, so many at random. Their own limits make
            heads learn no more from more.
        novel_share: Share of queries like the logged ones that may be taken for unlike them. A query unlike
            them keeps the default. 0 tells none apart.
        risk: Largest accepted probability that routing with the chosen margin is no better than the default.
        n_threads: CPU threads a library may use.
        seed: Seed of every random choice.
    """

    head: HeadConfig | AutoHeadConfig = field(default_factory=StackHeadConfig)
    label: AnyLabel = "performance"
    n_members: int = 5
    n_calibration_folds: int = 3
    max_queries: int = 100_000
    novel_share: float = 0.05
    risk: float = 0.05
    n_threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value lies outside its range.
        """
        for name in ("n_members", "n_calibration_folds"):
            if getattr(self, name) < 2:
                raise InvalidPolicyError(f"{name} must be at least 2, got {getattr(self, name)}.")
        if not 0 <= self.novel_share < 1:
            message = f"novel_share must be at least 0 and below 1, got {self.novel_share}."
            raise InvalidPolicyError(message)
        if not 0 < self.risk < 1:
            raise InvalidPolicyError(f"risk must lie strictly between 0 and 1, got {self.risk}.")
        for name in ("n_threads", "max_queries"):
            if getattr(self, name) < 1:
                raise InvalidPolicyError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise InvalidPolicyError(f"seed must be at least 0, got {self.seed}.")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {**asdict(self), "head": self.head.to_json(), "label": label_to_json(self.label)}
