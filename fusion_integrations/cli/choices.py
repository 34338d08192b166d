"""The names that options accept, written out so that `--help` can list them without loading the core.

The tests compare them with the tables of the core that they stand for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

__all__ = [
    "AssignmentName",
    "CriterionName",
    "EmbedderName",
    "ExplorationName",
    "GroundTruthName",
    "HeadName",
    "LabelName",
    "LabelOption",
    "LogFormatName",
    "OutcomeName",
    "PolicyName",
    "ReferenceOrderName",
    "RescoreName",
    "ScorerName",
    "SplitName",
    "TeachingCriterionName",
]

AssignmentName = Literal["factorial", "policy", "user", "unknown"]
CriterionName = Literal["performance", "judge", "hybrid"]
EmbedderName = Literal["hash", "minilm", "minilm-int8", "minilm-torch", "wordllama"]
GroundTruthName = Literal["add", "leave_out"]
LabelName = Literal["performance", "judge_score", "feedback"]
LabelOption = Annotated[
    str,
    typer.Option(
        help="The score to learn: performance, judge_score or feedback; or shares of several, such as "
        "performance=0.7,judge_score=0.3."
    ),
]
LogFormatName = Literal[
    "fusion",
    "fusionbench",
    "helicone",
    "langfuse",
    "langsmith",
    "litellm",
    "litellm-spend",
    "llmrouter",
    "llmrouterbench",
    "openai-batch",
    "openai-stored",
    "otel",
    "routerbench",
    "table",
    "vllm-replay",
]
ReferenceOrderName = Literal["first", "both"]
RescoreName = Literal["missing", "outdated"]
ScorerName = Literal["metric", "judge"]
SplitName = Literal["folds", "tasks", "families"]
TeachingCriterionName = Literal["performance", "judge", "hybrid", "baseline"]


class ExplorationName(StrEnum):
    """How chance may choose; an enumeration because Typer has no lists of literals."""

    NONE = "none"
    EPSILON = "epsilon"
    THOMPSON = "thompson"


OutcomeName = Literal["any", "answered", "failed"]


class PolicyName(StrEnum):
    """Presets of routing policies; an enumeration because Typer has no lists of literals."""

    PERFORMANCE_FIRST = "performance-first"
    BALANCE = "balance"
    COST_FIRST = "cost-first"


class HeadName(StrEnum):
    """Heads of a router; an enumeration for the same reason."""

    CLUSTER = "cluster"
    EXPERTS = "experts"
    KNN = "knn"
    LINEAR = "linear"
    SVM = "svm"
    MLP = "mlp"
    XGBOOST = "xgboost"
    MATRIX_FACTORIZATION = "matrix_factorization"
    GRAPH = "graph"
    BERT = "bert"
    STACK = "stack"
    AUTO = "auto"
