"""The heads a router can learn with, as one closed table from name to code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.heads.base import FittedHead, HeadInputs
from fusion_integrations.query_level.heads.cluster import ClusterHead, ClusterHeadConfig, fit_cluster_head
from fusion_integrations.query_level.heads.xgboost import XGBoostHead, XGBoostHeadConfig, fit_xgboost_head

__all__ = [
    "HEAD_CONFIGS",
    "ClusterHeadConfig",
    "FittedHead",
    "HeadConfig",
    "HeadInputs",
    "XGBoostHeadConfig",
    "fit_head",
    "head_config",
    "restore_head",
]

HeadConfig = ClusterHeadConfig | XGBoostHeadConfig

HEAD_CONFIGS: dict[str, type[HeadConfig]] = {"cluster": ClusterHeadConfig, "xgboost": XGBoostHeadConfig}
_FITTED: dict[str, type[FittedHead]] = {"cluster": ClusterHead, "xgboost": XGBoostHead}


def head_config(name: str) -> HeadConfig:
    """Return the default configuration of a head.

    Args:
        name: A key of `HEAD_CONFIGS`.

    Returns:
        Its settings.

    Raises:
        InvalidPolicyError: If there is no such head; lists those there are.
    """
    if name not in HEAD_CONFIGS:
        raise InvalidPolicyError(f"There is no head '{name}'. Choose one of {sorted(HEAD_CONFIGS)}.")
    return HEAD_CONFIGS[name]()


def fit_head(config: HeadConfig, inputs: HeadInputs) -> FittedHead:
    """Train the head that a configuration names."""
    if isinstance(config, ClusterHeadConfig):
        return fit_cluster_head(config, inputs)
    return fit_xgboost_head(config, inputs)


def restore_head(name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> FittedHead:
    """Rebuild a saved head.

    Args:
        name: Which head it is.
        tensors: What its `tensors` gave.

    Returns:
        The head.

    Raises:
        ArtifactFormatError: If this release has no such head, or arrays are missing.
    """
    if name not in _FITTED:
        raise ArtifactFormatError(f"The artifact uses the head '{name}', which this release does not have.")
    try:
        return _FITTED[name].from_tensors(tensors)
    except KeyError as error:
        message = f"The artifact's '{name}' head lacks the array {error}. Save the router again."
        raise ArtifactFormatError(message) from error
