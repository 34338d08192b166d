"""What a router learns with: single learners, and blends of them.

A router holds several members, each trained without another part of the queries. `fit_members` trains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.heads.base import FittedHead, HeadInputs
from fusion_integrations.query_level.heads.cluster import ClusterHeadConfig
from fusion_integrations.query_level.heads.experts import ExpertsHeadConfig
from fusion_integrations.query_level.heads.graph import GraphHeadConfig
from fusion_integrations.query_level.heads.knn import KnnHeadConfig
from fusion_integrations.query_level.heads.learners import (
    LEARNERS,
    LearnerConfig,
    fit_learner,
    learner_config,
    restore_learner,
)
from fusion_integrations.query_level.heads.linear import LinearHeadConfig
from fusion_integrations.query_level.heads.matrix_factorization import MatrixFactorizationHeadConfig
from fusion_integrations.query_level.heads.mlp import MlpHeadConfig
from fusion_integrations.query_level.heads.stack import StackHead, StackHeadConfig, fit_stack_members
from fusion_integrations.query_level.heads.svm import SvmHeadConfig
from fusion_integrations.query_level.heads.xgboost import XGBoostHeadConfig

__all__ = [
    "HEAD_NAMES",
    "AutoHeadConfig",
    "ClusterHeadConfig",
    "ExpertsHeadConfig",
    "FittedHead",
    "GraphHeadConfig",
    "HeadConfig",
    "HeadInputs",
    "KnnHeadConfig",
    "LinearHeadConfig",
    "MatrixFactorizationHeadConfig",
    "MlpHeadConfig",
    "StackHeadConfig",
    "SvmHeadConfig",
    "XGBoostHeadConfig",
    "fit_members",
    "head_config",
    "named_head",
    "restore_head",
]

HeadConfig = LearnerConfig | StackHeadConfig

HEAD_NAMES: tuple[str, ...] = (*LEARNERS, "stack")


@dataclass(frozen=True, kw_only=True)
class AutoHeadConfig:
    """Try several heads on the logs at hand and keep the best.

    Attributes:
        heads: Names of the heads to try.
    """

    name: Literal["auto"] = "auto"
    heads: tuple[str, ...] = ("stack", "cluster", "linear", "knn", "svm", "matrix_factorization", "xgboost")

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InvalidPolicyError: If there is none, or one is unknown.
        """
        if not self.heads:
            raise InvalidPolicyError("AutoHeadConfig.heads must name at least one head.")
        for head in self.heads:
            head_config(head)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {"name": self.name, "heads": list(self.heads)}


def head_config(name: str) -> HeadConfig:
    """Return the default configuration of a head.

    Args:
        name: One of `HEAD_NAMES`.

    Returns:
        Its settings.

    Raises:
        InvalidPolicyError: If there is no such head; lists those there are.
    """
    if name not in HEAD_NAMES:
        raise InvalidPolicyError(f"There is no head '{name}'. Choose one of {sorted(HEAD_NAMES)}.")
    return StackHeadConfig() if name == "stack" else learner_config(name)


def named_head(name: str) -> HeadConfig | AutoHeadConfig:
    """Return the default configuration of a head, or of trying several for the name `"auto"`.

    Args:
        name: One of `HEAD_NAMES`, or `"auto"`.

    Returns:
        The settings.

    Raises:
        InvalidPolicyError: If there is no such head.
    """
    return AutoHeadConfig() if name == "auto" else head_config(name)


def fit_members(
    config: HeadConfig, inputs: HeadInputs, folds: npt.NDArray[np.int64]
) -> tuple[FittedHead, ...]:
    """Train one head a fold, each without the queries of its fold.

    Args:
        config: The head and its settings.
        inputs: What to learn from, n queries.
        folds: (n,) fold of each query, from 0.

    Returns:
        One member a fold.

    Raises:
        MissingDependencyError: If the head's package is not installed.
    """
    if isinstance(config, StackHeadConfig):
        return fit_stack_members(config, inputs, folds)
    n_folds = int(folds.max()) + 1
    return tuple(fit_learner(config, inputs.select(folds != fold)) for fold in range(n_folds))


def restore_head(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> FittedHead:
    """Rebuild a saved member.

    Args:
        name: Which head it is.
        tensors: What its `tensors` gave.

    Returns:
        The member.

    Raises:
        ArtifactFormatError: If this release has no such head, or arrays are missing.
    """
    if name != "stack":
        return restore_learner(name, tensors)
    try:
        return StackHead.from_tensors(tensors)
    except KeyError as error:
        message = f"The artifact's head 'stack' lacks the array {error}. Save the router again."
        raise ArtifactFormatError(message) from error
