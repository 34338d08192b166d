"""What a router learns with: single learners, and blends of them.

A router holds several members, each trained without another part of the queries. `fit_members` trains them;
`fit_ensemble` also trains what the members of some heads share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import FittedHead, HeadInputs
from fusion_integrations.query_level.heads.bert import BertHeadConfig, fit_bert_members
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
from fusion_integrations.query_level.heads.linear import LinearHead, LinearHeadConfig
from fusion_integrations.query_level.heads.matrix_factorization import MatrixFactorizationHeadConfig
from fusion_integrations.query_level.heads.mlp import MlpHeadConfig
from fusion_integrations.query_level.heads.stack import StackHead, StackHeadConfig, fit_stack_members
from fusion_integrations.query_level.heads.svm import SvmHeadConfig
from fusion_integrations.query_level.heads.tuned_embedding import TunedEmbedding
from fusion_integrations.query_level.heads.xgboost import XGBoostHeadConfig

__all__ = [
    "HEAD_NAMES",
    "AutoHeadConfig",
    "BertHeadConfig",
    "ClusterHeadConfig",
    "Ensemble",
    "ExpertsHeadConfig",
    "FeatureHeadConfig",
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
    "TunedEmbedding",
    "XGBoostHeadConfig",
    "fit_ensemble",
    "fit_members",
    "head_config",
    "named_head",
    "predict_unseen",
    "restore_embedding",
    "restore_head",
]

FeatureHeadConfig = LearnerConfig | StackHeadConfig  # of heads that learn from the features alone
HeadConfig = FeatureHeadConfig | BertHeadConfig

HEAD_NAMES: tuple[str, ...] = (*LEARNERS, "bert", "stack")


class Ensemble(NamedTuple):
    """What training gives.

    Attributes:
        members: One a fold.
        embedding: Replaces the embedding among the features that members read; None where they read it as is.
    """

    members: tuple[FittedHead, ...]
    embedding: TunedEmbedding | None = None


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
    if name == "bert":
        return BertHeadConfig()
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


def fit_ensemble(config: HeadConfig, inputs: HeadInputs, folds: npt.NDArray[np.int64]) -> Ensemble:
    """Train one member a fold, each without the queries of its fold, and what they share on all queries.

    Args:
        config: The head and its settings.
        inputs: What to learn from, n queries.
        folds: (n,) fold of each query, from 0.

    Returns:
        The members and what they share.

    Raises:
        MissingDependencyError: If the head's package is not installed.
    """
    if not isinstance(config, BertHeadConfig):
        return Ensemble(fit_members(config, inputs, folds))
    sees = folds[:, None] != np.arange(int(folds.max()) + 1)
    embedding, members = fit_bert_members(config, inputs, sees)
    return Ensemble(members, embedding)


def predict_unseen(config: HeadConfig, inputs: HeadInputs, folds: npt.NDArray[np.int64]) -> FloatArray:
    """Predict every query by a head that learned nothing from the query's fold.

    Args:
        config: The head and its settings.
        inputs: What to learn from and to predict, n queries.
        folds: (n,) fold of each query, from 0.

    Returns:
        Array (n, t), float32.

    Raises:
        MissingDependencyError: If the head's package is not installed.
    """
    predicted = np.empty_like(inputs.targets)
    if not isinstance(config, BertHeadConfig):
        for fold, member in enumerate(fit_members(config, inputs, folds)):
            predicted[folds == fold] = member.predict(inputs.features[folds == fold])
        return predicted
    for fold in range(int(folds.max()) + 1):  # members share an embedding, which learns from all folds
        part, held_out = inputs.select(folds != fold), inputs.select(folds == fold)
        embedding, members = fit_bert_members(config, part, np.ones((len(part), 1), dtype=np.bool_))
        features = embedding.replace_embedding(held_out.texts, held_out.features)
        predicted[folds == fold] = members[0].predict(features)
    return predicted


def fit_members(
    config: FeatureHeadConfig, inputs: HeadInputs, folds: npt.NDArray[np.int64]
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
    of_other: dict[str, type[FittedHead]] = {"bert": LinearHead, "stack": StackHead}
    if name not in of_other:
        return restore_learner(name, tensors)
    try:
        return of_other[name].from_tensors(tensors)
    except KeyError as error:
        message = f"The artifact's head '{name}' lacks the array {error}. Save the router again."
        raise ArtifactFormatError(message) from error


def restore_embedding(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> TunedEmbedding | None:
    """Rebuild the embedding that the members of a saved head share.

    Args:
        name: Which head it is.
        tensors: What the embedding's `tensors` gave.

    Returns:
        The embedding; None for a head whose members share none.

    Raises:
        ArtifactFormatError: If arrays are missing or do not fit the weights of all-MiniLM-L6-v2.
        MissingDependencyError: If what runs it is not installed.
    """
    if name != "bert":
        return None
    try:
        return TunedEmbedding.from_tensors(tensors)
    except KeyError as error:
        message = (
            f"The artifact's embedding of the head 'bert' lacks the array {error}. Save the router again."
        )
        raise ArtifactFormatError(message) from error
