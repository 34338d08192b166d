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
    "ReferenceOrderName",
    "RescoreName",
    "ScorerName",
    "TeachingCriterionName",
]

AssignmentName = Literal["factorial", "policy", "user", "unknown"]
CriterionName = Literal["performance", "judge", "hybrid"]
EmbedderName = Literal["hash", "minilm", "minilm-torch", "wordllama"]
GroundTruthName = Literal["add", "leave_out"]
HeadName = Literal["cluster", "xgboost"]
LabelName = Literal["performance", "judge_score", "feedback"]
ReferenceOrderName = Literal["first", "both"]
RescoreName = Literal["missing", "outdated"]
ScorerName = Literal["metric", "judge"]
TeachingCriterionName = Literal["performance", "judge", "hybrid", "baseline"]


class PolicyName(StrEnum):
    """Presets of routing policies; an enumeration because Typer has no lists of literals."""

    PERFORMANCE_FIRST = "performance-first"
    BALANCE = "balance"
    COST_FIRST = "cost-first"
