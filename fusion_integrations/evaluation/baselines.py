"""What a router must be measured against: pure functions over matrices of n queries by k candidates.

Everywhere here a NaN reward means that the candidate cannot be had for that query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.query_level.off_policy import cell_chances

__all__ = [
    "BASELINES",
    "BEST_PER_TASK",
    "BEST_SINGLE",
    "ORACLE",
    "RANDOM",
    "Matrix",
    "Selection",
    "best_per_task",
    "best_single",
    "oracle",
    "random_baseline",
    "select_columns",
    "training_means",
]

RANDOM = "Random"
BEST_SINGLE = "Best Single"
BEST_PER_TASK = "Best per Task"
ORACLE = "Oracle"
BASELINES = (RANDOM, BEST_SINGLE, BEST_PER_TASK, ORACLE)

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Who answers each query under one strategy.

    Attributes:
        name: The strategy.
        weights: (n, k) probability of each candidate, rows sum to 1; 0 or 1 where the strategy is certain.
    """

    name: str
    weights: npt.NDArray[np.float64]

    def expected(self, values: Matrix) -> npt.NDArray[np.float64]:
        """Give each query's expected value.

        Args:
            values: (n, k) value of every answer, NaN where unknown.

        Returns:
            Array (n,), float64; NaN where the value of a candidate that may be chosen is unknown.
        """
        expected: npt.NDArray[np.float64] = np.where(self.weights > 0, self.weights * values, 0.0).sum(axis=1)
        return expected


def select_columns(name: str, columns: npt.NDArray[np.intp], *, n_candidates: int) -> Selection:
    """Make the selection of a strategy that chooses exactly one candidate a query.

    Args:
        name: The strategy.
        columns: (n,) chosen column of each query.
        n_candidates: The number k of candidates.

    Returns:
        The selection, (n, k).
    """
    return Selection(name=name, weights=np.eye(n_candidates)[columns])


def random_baseline(rewards: Matrix) -> Selection:
    """Choose uniformly among the candidates that can be had: the expectation itself, nothing is drawn.

    Args:
        rewards: (n, k) reward of every answer; only where it is NaN is read.

    Returns:
        The selection "Random".
    """
    available = ~np.isnan(rewards)
    return Selection(name=RANDOM, weights=available / available.sum(axis=1, keepdims=True))


def best_single(train_rewards: Matrix, *, propensity: Matrix, n_queries: int) -> Selection:
    """Always choose the candidate that was best in training; the held-out queries have no say.

    Args:
        train_rewards: (m, k) rewards in training, NaN where missing.
        propensity: (m, k); see `training_means`.
        n_queries: The number n of held-out queries.

    Returns:
        The selection "Best Single"; ties go to the earlier candidate.

    Raises:
        NotEnoughLogsError: If no training reward is known.
    """
    column = _best_in_training(train_rewards, propensity)
    return select_columns(BEST_SINGLE, np.full(n_queries, column), n_candidates=train_rewards.shape[1])


def best_per_task(
    tasks: Sequence[str | None],
    *,
    train_rewards: Matrix,
    train_tasks: Sequence[str | None],
    propensity: Matrix,
) -> Selection:
    """Choose for each query the candidate that was best in training on its task.

    An upper reference, not a rival: it reads the task label of the held-out query, which a live query does
    not have. A query without a label, or of a task not seen in training, gets the best single candidate.

    Args:
        tasks: n task labels of the held-out queries.
        train_rewards: (m, k) rewards in training, NaN where missing.
        train_tasks: m task labels.
        propensity: (m, k); see `training_means`.

    Returns:
        The selection "Best per Task"; ties go to the earlier candidate.

    Raises:
        NotEnoughLogsError: If no training reward is known.
    """
    fallback = _best_in_training(train_rewards, propensity)
    labels = np.array(train_tasks, dtype=np.object_)
    best: dict[str | None, int] = {}
    for task in {task for task in tasks if task is not None}:
        rows = labels == task
        if (~np.isnan(train_rewards[rows])).any():
            best[task] = _best_in_training(train_rewards[rows], propensity[rows])
    columns = np.array([best.get(task, fallback) for task in tasks], dtype=np.intp)
    return select_columns(BEST_PER_TASK, columns, n_candidates=train_rewards.shape[1])


def oracle(rewards: Matrix, *, cost_usd: Matrix) -> Selection:
    """Choose for each query whatever turned out best, with hindsight.

    No router can reach it: part of the best answer's lead is luck, and the maximum over candidates collects
    the luck of all of them.

    Args:
        rewards: (n, k) reward of every answer.
        cost_usd: (n, k) cost of every answer, NaN where unknown.

    Returns:
        The selection "Oracle"; ties go to the cheaper, then to the earlier candidate.
    """
    columns = np.lexsort((cost_usd, -rewards), axis=1)[:, 0]  # NaN sorts last in both keys
    return select_columns(ORACLE, columns, n_candidates=rewards.shape[1])


def training_means(values: Matrix, *, propensity: Matrix) -> npt.NDArray[np.float64]:
    """Average each candidate's training values, answers that were unlikely to be logged counting more.

    Args:
        values: (m, k) values, NaN where missing.
        propensity: (m, k) probability with which the cell was logged, NaN if unknown; see `cell_chances`.

    Returns:
        Array (k,), float64; the plain means where every query has every answer, NaN for a candidate without
        any value.

    Source:
        The self-normalised (Hajek) estimator: Swaminathan and Joachims, The Self-Normalized Estimator for
        Counterfactual Learning (2015).
    """
    observed = ~np.isnan(values)
    weights = np.where(observed, 1.0 / cell_chances(values, propensity), 0.0)
    total, mass = np.where(observed, weights * values, 0.0).sum(axis=0), weights.sum(axis=0)
    means: npt.NDArray[np.float64] = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), np.nan)
    return means


def _best_in_training(train_rewards: Matrix, propensity: Matrix) -> int:
    means = training_means(train_rewards, propensity=propensity)
    if np.isnan(means).all():
        message = (
            "The training logs hold no reward of any candidate the policy can use, so there is no best "
            "single one. Pass the logs the router was trained on, and prices if the policy weighs cost."
        )
        raise NotEnoughLogsError(message)
    return int(np.nanargmax(means))
