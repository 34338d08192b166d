"""The names that options accept, written out so that `--help` can list them without loading the core.

The tests compare them with the tables of the core that they stand for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

__all__ = [
    "AssignmentName",
    "CriterionName",
    "EmbedderName",
    "GroundTruthName",
    "HeadName",
    "LabelName",
    "PolicyName",
    "TeachingCriterionName",
]

AssignmentName = Literal["factorial", "policy", "user", "unknown"]
CriterionName = Literal["performance", "judge", "hybrid"]
EmbedderName = Literal["hash", "minilm", "minilm-int8", "minilm-torch", "wordllama"]
GroundTruthName = Literal["add", "leave_out"]
HeadName = Literal["cluster", "xgboost"]
LabelName = Literal["performance", "judge_score", "feedback"]
TeachingCriterionName = Literal["performance", "judge", "hybrid", "baseline"]


class PolicyName(StrEnum):
    """Presets of routing policies; an enumeration because Typer has no lists of literals."""

    PERFORMANCE_FIRST = "performance-first"
    BALANCE = "balance"
    COST_FIRST = "cost-first"
