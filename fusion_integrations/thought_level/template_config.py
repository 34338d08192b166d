"""The arguments of training a thought template library, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, get_args

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.scoring.top_answers import AnswerCriterion

__all__ = ["ThoughtTemplateTrainingArguments"]


@dataclass(frozen=True, kw_only=True)
class ThoughtTemplateTrainingArguments:
    """How templates are written.

    Attributes:
        criterion: What makes an answer good: `"performance"`, `"judge"`, or `"hybrid"`, performance and then
            the judge among equals. The paper finds hybrid best; without judge scores in the logs it is the
            same as performance.
        top_k: Most answers a template is written from.
        min_score: A query is solved by answers of at least this score, in [0, 1]. Others get no template.
        n_attempts: How often the summariser may try before a query is dropped. The first attempt is greedy.
        retry_temperature: Sampling temperature of the further attempts, above 0.
        min_words: Shorter templates are rejected.
        max_words: Longer templates are rejected.
        max_sentences: A template keeps its first sentences, this many, without repeats.
        max_tokens: Most tokens the summariser may write.
        max_answer_chars: Of longer answers and queries the summariser sees this much.
        batch_size: Queries handed to the summariser at once.
        seed: Seed of the sampling.

    Raises:
        InvalidPolicyError: If a value is out of range.

    Source:
        FusionFactory (arXiv 2507.10540), thought-level fusion: top 3 answers, templates of 1 to 5 sentences.
    """

    criterion: AnswerCriterion = "hybrid"
    top_k: int = 3
    min_score: float = 0.5
    n_attempts: int = 3
    retry_temperature: float = 0.7
    min_words: int = 5
    max_words: int = 120
    max_sentences: int = 5
    max_tokens: int = 160
    max_answer_chars: int = 1200
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.criterion not in get_args(AnswerCriterion):
            known = ", ".join(get_args(AnswerCriterion))
            raise InvalidPolicyError(f"criterion must be one of {known}, got '{self.criterion}'.")
        if not 0 <= self.min_score <= 1:
            raise InvalidPolicyError(f"min_score must lie in [0, 1], got {self.min_score}.")
        if not (self.retry_temperature > 0 and math.isfinite(self.retry_temperature)):
            raise InvalidPolicyError(
                f"retry_temperature must be above 0, got {self.retry_temperature}: "
                "a greedy attempt would repeat what was rejected."
            )
        for name in (
            "top_k",
            "n_attempts",
            "min_words",
            "max_sentences",
            "max_tokens",
            "max_answer_chars",
            "batch_size",
        ):
            if getattr(self, name) < 1:
                raise InvalidPolicyError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.max_words < self.min_words:
            message = f"max_words ({self.max_words}) must not be below min_words ({self.min_words})."
            raise InvalidPolicyError(message)

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON data."""
        return asdict(self)
