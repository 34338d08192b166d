"""How a router is laid out on disk: arrays in one safetensors file, everything else in the manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fusion_integrations.artifacts import LoadedArtifact, load_artifact
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.candidate_pool import CandidatePool
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.quality_target import QualityCurves
from fusion_integrations.query_level.router_weights import RouterWeights
from fusion_integrations.query_level.text_features import TEXT_FEATURES_VERSION
from fusion_integrations.types import QUERY_TEXT_VERSION, Candidate

__all__ = ["WEIGHTS_FILE", "read_router", "router_bytes", "router_card", "router_details"]

WEIGHTS_FILE = "weights.safetensors"
_AVERAGES = ("performance_members", "input_tokens", "output_tokens", "logged_cost_usd")


class _Pool(BaseModel):
    """Which of the columns that the heads predict are still candidates; those added stand behind them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_trained: Annotated[int, Field(ge=1)]
    kept: tuple[int, ...]


class _Details(BaseModel):
    """What the manifest of a router holds under `details`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    n_members: Annotated[int, Field(ge=1)]
    text_features_version: int
    cost_scale_usd: Annotated[float, Field(gt=0)] | None
    # Margin by cost weight; None stands for infinity, which JSON does not have.
    margins: tuple[tuple[float, Annotated[float, Field(ge=0)] | None], ...]
    # Absent in artifacts of older releases.
    se_scale: Annotated[float, Field(ge=1)] = 1.0
    # Absent where nobody came or went after training, and in artifacts of older releases.
    pool: _Pool | None = None


def router_details(weights: RouterWeights, basis: DecisionBasis) -> dict[str, JsonValue]:
    """Return the JSON half of a router."""
    margins = tuple(
        (weight, margin if math.isfinite(margin) else None) for weight, margin in basis.margin_z.items()
    )
    pool = weights.pool
    details = _Details(
        head=weights.head_name,
        n_members=len(weights.members),
        text_features_version=weights.text_features_version,
        cost_scale_usd=basis.cost_scale_usd,
        margins=margins,
        se_scale=basis.se_scale,
        pool=None if pool is None else _Pool(n_trained=pool.n_trained, kept=pool.kept),
    )
    return details.model_dump(mode="json", exclude={"pool"} if pool is None else None)


def router_bytes(weights: RouterWeights, basis: DecisionBasis) -> bytes:
    """Return the content of the safetensors file: the other half of a router."""
    averages = {f"average.{name}": getattr(basis.average, name) for name in _AVERAGES}
    tensors = weights.tensors() | averages | _quality_tensors(basis)
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def router_card(weights: RouterWeights, basis: DecisionBasis, metrics: Mapping[str, Any]) -> str:
    """Return the model card, Markdown."""
    performance, cost = basis.average.performance[0], basis.average.logged_cost_usd[0]
    rows = "\n".join(
        f"| {candidate.id} | {candidate.model or 'tool'} | {candidate.prompt_mode} | {performance[i]:.3f} "
        f"| {'unknown' if np.isnan(cost[i]) else f'{cost[i] * 1000:.4f}'} |"
        for i, candidate in enumerate(weights.candidates)
    )
    return (
        "# Router\n\n"
        f"Chooses among {len(weights.candidates)} candidates; head `{weights.head_name}`, trained on "
        f"{metrics.get('n_queries', '?')} logged queries.\n\n"
        "| candidate | model | prompt mode | mean performance | USD per 1000 calls |\n"
        f"| --- | --- | --- | --- | --- |\n{rows}\n\n"
        "```python\nfrom fusion_integrations import RouterModel\n\n"
        'router = RouterModel.from_pretrained("path/to/this/folder")\n'
        'print(router.route("What is 17 * 24?").reason)\n```\n'
    )


def read_router(
    folder: str | Path, *, expected_digest: str | None = None
) -> tuple[LoadedArtifact, RouterWeights, DecisionBasis]:
    """Load the parts of a saved router.

    Args:
        folder: Where it lies.
        expected_digest: Digest the artifact must have; None accepts any.

    Returns:
        The verified artifact, the weights and the basis.

    Raises:
        ArtifactNotFoundError: If there is no artifact.
        ArtifactFormatError: If it is damaged, of another kind or of a newer release.
    """
    artifact = load_artifact(folder, kind="router", expected_digest=expected_digest)
    manifest = artifact.manifest
    try:
        details = _Details.model_validate(manifest.details)
        candidates = tuple(Candidate.from_json(candidate) for candidate in manifest.candidates)
        tensors = load(artifact.read_bytes(WEIGHTS_FILE))
        averages = {name: tensors[f"average.{name}"] for name in _AVERAGES}
    except (ValidationError, InvalidPolicyError, SafetensorError, KeyError, TypeError) as error:
        message = f"{folder} is not a router this release can read: {error}. Save it again."
        raise ArtifactFormatError(message) from error
    _check_versions(folder, details, manifest.query_text_version)
    _check_columns(folder, tensors, candidates, details.pool)
    pool = _pool(details, tensors, n_candidates=len(candidates))
    weights = RouterWeights.from_tensors(
        tensors,
        candidates=candidates,
        head_name=details.head,
        n_members=details.n_members,
        text_features_version=details.text_features_version,
        pool=pool,
    )
    basis = DecisionBasis(
        average=Prediction(candidates=candidates, **averages),
        cost_scale_usd=details.cost_scale_usd,
        margin_z={weight: math.inf if margin is None else margin for weight, margin in details.margins},
        se_scale=details.se_scale,
        added=frozenset(c.id for c in candidates[len(pool.kept) :]) if pool else frozenset(),
        quality=_quality(folder, tensors, n_candidates=len(candidates)),
        artifact=manifest.digest,
    )
    return artifact, weights, basis


def _check_columns(
    folder: str | Path,
    tensors: Mapping[str, npt.NDArray[Any]],
    candidates: tuple[Candidate, ...],
    pool: _Pool | None,
) -> None:
    """Refuse arrays of other candidates, which NumPy might broadcast to wrong answers without a word."""
    k = len(candidates)
    n_trained = k if pool is None else pool.n_trained
    per_trained = {"usage.scale": 2, "usage.head.means": 2, "usage.input_fit": 1, "usage.latency_s": 1}
    for name, tensor in tensors.items():
        is_means = name.startswith("member.") and name.endswith(".means")
        columns = n_trained * per_trained.get(name, 1 if is_means else 0)
        columns = k if name.startswith("average.") else columns
        if columns and tensor.shape[-1:] != (columns,):
            message = (
                f"{folder} is for {k} candidates, but its array '{name}' has the shape {tensor.shape}. "
                "Save it again."
            )
            raise ArtifactFormatError(message)
    if len({candidate.id for candidate in candidates}) < k:
        raise ArtifactFormatError(f"{folder} lists a candidate twice. Save it again.")


def _quality_tensors(basis: DecisionBasis) -> dict[str, npt.NDArray[Any]]:
    """Return what validation found of each quality; nothing if it was not asked."""
    if basis.quality is None:
        return {}
    return {"quality.rates": basis.quality.rates, "quality.loss": basis.quality.loss}


def _quality(
    folder: str | Path, tensors: Mapping[str, npt.NDArray[Any]], *, n_candidates: int
) -> QualityCurves | None:
    """Read what `_quality_tensors` gave; older artifacts have none."""
    rates, loss = tensors.get("quality.rates"), tensors.get("quality.loss")
    if rates is None or loss is None:
        return None
    if rates.ndim != 1 or loss.shape != (n_candidates, len(rates)) or (np.diff(rates) <= 0).any():
        message = (
            f"{folder} lists {n_candidates} candidates, but its array 'quality.loss' has the shape "
            f"{loss.shape} for rates of shape {rates.shape}, which must ascend. Save it again."
        )
        raise ArtifactFormatError(message)
    return QualityCurves(rates=rates, loss=loss)


def _pool(
    details: _Details, tensors: Mapping[str, npt.NDArray[Any]], *, n_candidates: int
) -> CandidatePool | None:
    if details.pool is None:
        return None
    return CandidatePool.from_tensors(
        tensors,
        n_trained=details.pool.n_trained,
        kept=details.pool.kept,
        n_candidates=n_candidates,
        n_members=details.n_members,
    )


def _check_versions(folder: str | Path, details: _Details, query_text_version: int | None) -> None:
    if query_text_version != QUERY_TEXT_VERSION:
        message = (
            f"{folder} was trained with version {query_text_version} of the query text; this release reads "
            f"version {QUERY_TEXT_VERSION}. Use the release it was trained with, or retrain."
        )
        raise ArtifactFormatError(message)
    if not 1 <= details.text_features_version <= TEXT_FEATURES_VERSION:
        message = (
            f"{folder} was trained with version {details.text_features_version} of the text features; this "
            f"release computes versions 1 to {TEXT_FEATURES_VERSION}. Update, or retrain."
        )
        raise ArtifactFormatError(message)
