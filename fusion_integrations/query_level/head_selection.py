"""Let heads compete on queries they have not seen, and keep the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads import HeadConfig, HeadInputs, head_config, predict_unseen
from fusion_integrations.query_level.query_kinds import Kinds
from fusion_integrations.query_level.unanswered import estimate_outcomes, fill_targets
from fusion_integrations.statistics import Interval, paired_interval

__all__ = ["HeadTrial", "try_heads"]


@dataclass(frozen=True, kw_only=True)
class HeadTrial:
    """What a head reached in cross-validation.

    Attributes:
        head: Its name.
        performance: Mean performance of always choosing its best prediction; doubly robust on partial logs.
        gain: The same above the candidate of highest mean performance, paired by query.
        mse: Mean squared error of its predictions of logged answers.
    """

    head: str
    performance: float
    gain: Interval
    mse: float

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON data."""
        return asdict(self)


def try_heads(
    names: Sequence[str],
    inputs: HeadInputs,
    *,
    folds: npt.NDArray[np.int64],
    kinds: Kinds,
    groups: Sequence[str],
    propensity: FloatArray,
) -> tuple[HeadConfig, list[HeadTrial]]:
    """Cross-validate heads and pick the one whose choices reach most.

    Args:
        names: Names of heads.
        inputs: What they learn from, n queries.
        folds: (n,) fold of each query, near-duplicates together.
        kinds: (n,) kinds of query; see `fill_targets`.
        groups: n keys of near-duplicates.
        propensity: (n, k) probability with which each answer was logged, NaN if unknown.

    Returns:
        The configuration of the winner, and every trial, best first. Ties go to the earlier head.
    """
    trials = []
    filled = fill_targets(inputs, kinds)
    for name in names:
        predicted = predict_unseen(head_config(name), filled, folds)
        outcomes = estimate_outcomes(inputs.targets, predicted, propensity, kinds)
        trials.append(_trial(name, predicted, outcomes, inputs, groups=groups))
    ranked = sorted(trials, key=lambda trial: -trial.performance)
    return head_config(ranked[0].head), ranked


def _trial(
    name: str, predicted: FloatArray, outcomes: FloatArray, inputs: HeadInputs, *, groups: Sequence[str]
) -> HeadTrial:
    reached = outcomes[np.arange(len(outcomes)), predicted.argmax(axis=1)]
    single = outcomes[:, outcomes.mean(axis=0).argmax()]
    errors = (predicted - inputs.targets)[~np.isnan(inputs.targets)]
    return HeadTrial(
        head=name,
        performance=float(reached.mean()),
        gain=paired_interval(reached - single, groups=groups, seed=inputs.seed),
        mse=float((errors**2).mean()),
    )
