"""The learners a router can use, as one closed table from name to code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.heads.base import FittedHead, HeadInputs
from fusion_integrations.query_level.heads.cluster import ClusterHead, ClusterHeadConfig, fit_cluster_head
from fusion_integrations.query_level.heads.experts import ExpertsHead, ExpertsHeadConfig, fit_experts_head
from fusion_integrations.query_level.heads.graph import GraphHead, GraphHeadConfig, fit_graph_head
from fusion_integrations.query_level.heads.knn import KnnHead, KnnHeadConfig, fit_knn_head
from fusion_integrations.query_level.heads.linear import LinearHead, LinearHeadConfig, fit_linear_head
from fusion_integrations.query_level.heads.matrix_factorization import (
    MatrixFactorizationHead,
    MatrixFactorizationHeadConfig,
    fit_matrix_factorization_head,
)
from fusion_integrations.query_level.heads.mlp import MlpHead, MlpHeadConfig, fit_mlp_head
from fusion_integrations.query_level.heads.svm import SvmHead, SvmHeadConfig, fit_svm_head
from fusion_integrations.query_level.heads.xgboost import XGBoostHead, XGBoostHeadConfig, fit_xgboost_head

__all__ = ["LEARNERS", "LearnerConfig", "fit_learner", "learner_config", "restore_learner"]

LearnerConfig = (
    ClusterHeadConfig
    | ExpertsHeadConfig
    | GraphHeadConfig
    | KnnHeadConfig
    | LinearHeadConfig
    | MatrixFactorizationHeadConfig
    | MlpHeadConfig
    | SvmHeadConfig
    | XGBoostHeadConfig
)


class _Learner(NamedTuple):
    config: type[LearnerConfig]
    fit: Callable[[Any, HeadInputs], FittedHead]
    fitted: type[FittedHead]


LEARNERS: dict[str, _Learner] = {
    "cluster": _Learner(ClusterHeadConfig, fit_cluster_head, ClusterHead),
    "experts": _Learner(ExpertsHeadConfig, fit_experts_head, ExpertsHead),
    "knn": _Learner(KnnHeadConfig, fit_knn_head, KnnHead),
    "linear": _Learner(LinearHeadConfig, fit_linear_head, LinearHead),
    "svm": _Learner(SvmHeadConfig, fit_svm_head, SvmHead),
    "mlp": _Learner(MlpHeadConfig, fit_mlp_head, MlpHead),
    "xgboost": _Learner(XGBoostHeadConfig, fit_xgboost_head, XGBoostHead),
    "matrix_factorization": _Learner(
        MatrixFactorizationHeadConfig, fit_matrix_factorization_head, MatrixFactorizationHead
    ),
    "graph": _Learner(GraphHeadConfig, fit_graph_head, GraphHead),
}


def learner_config(name: str) -> LearnerConfig:
    """Return the default configuration of a learner.

    Args:
        name: A key of `LEARNERS`.

    Returns:
        Its settings.

    Raises:
        InvalidPolicyError: If there is no such learner; lists those there are.
    """
    if name not in LEARNERS:
        raise InvalidPolicyError(f"There is no learner '{name}'. Choose one of {sorted(LEARNERS)}.")
    return LEARNERS[name].config()


def fit_learner(config: LearnerConfig, inputs: HeadInputs) -> FittedHead:
    """Train the learner that a configuration names."""
    return LEARNERS[config.name].fit(config, inputs)


def restore_learner(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> FittedHead:
    """Rebuild a saved learner.

    Args:
        name: Which learner it is.
        tensors: What its `tensors` gave.

    Returns:
        The learner.

    Raises:
        ArtifactFormatError: If this release has no such learner, or arrays are missing.
    """
    if name not in LEARNERS:
        message = (
            f"The artifact uses the head '{name}', which this release does not have. Update, or retrain."
        )
        raise ArtifactFormatError(message)
    try:
        return LEARNERS[name].fitted.from_tensors(tensors)
    except KeyError as error:
        message = f"The artifact's head '{name}' lacks the array {error}. Save the router again."
        raise ArtifactFormatError(message) from error
