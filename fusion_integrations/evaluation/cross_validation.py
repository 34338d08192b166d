"""Route every query of a log by a router that learned from other queries."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.benchmark_arena import Arena
from fusion_integrations.evaluation.splitting import Mask, hide_answers
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.query_level.decision import DecisionBasis, choose
from fusion_integrations.query_level.heads import named_head
from fusion_integrations.query_level.labels import AnyLabel
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.types import PriceTable

__all__ = ["CURVE_WEIGHTS", "Answers", "RoutedQueries", "curve_choices", "route_by_others"]

Answers = float | Literal["one"]

# Heads that take minutes: a router trains its head twenty times, a benchmark of five folds a hundred.
_SLOW_HEADS = frozenset({"bert", "graph", "matrix_factorization", "mlp", "svm", "xgboost"})

# Cost weights of the cost-quality curve: dense at both ends, where rewards are all but one thing.
CURVE_WEIGHTS = (
    *(0.0, 0.003, 0.006, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3),
    *(0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutedQueries:
    """What routers of one kind did with n queries, each by the router that had not seen it.

    Attributes:
        predicted: (n, k) expected performance; NaN where no router predicted the query, or it had learned
            nothing of the candidate.
        se: (n, k) its standard error, as calibrated.
        chosen: By policy name, (n,) chosen column; -1 where no router predicted the query.
        switched: (n,) whether the default was left under the first policy.
        curve: (w, n) choice at each of `CURVE_WEIGHTS`; w is 0 where a router knows no cost.
        seconds: Time that training took, all routers together.
        n_members: Ensemble members of each router.
        head_names: The head of each router; not all the same if heads competed.
    """

    predicted: FloatArray
    se: FloatArray
    chosen: dict[str, npt.NDArray[np.intp]]
    switched: npt.NDArray[np.bool_]
    curve: npt.NDArray[np.intp]
    seconds: float
    n_members: int
    head_names: tuple[str, ...]


def route_by_others(
    head: str,
    arena: Arena,
    *,
    answers: Answers = 1.0,
    label: AnyLabel = "performance",
    n_threads: int = 2,
) -> RoutedQueries:
    """Train a router a part and let it route the part it did not see.

    Heads that are slow to train are ensembles of 3 validated on 2 folds instead of 5 on 3. A candidate of
    which a part's training answers hold none is not among those that its router chooses from.

    Args:
        head: Name of the head.
        arena: The logs, n queries and k candidates; the parts, the routers' embedder and the policies.
        answers: Which of the training answers the routers may learn from; see `hide_answers`.
        label: The score to learn.
        n_threads: CPU threads of training.

    Returns:
        The routed queries; errors as in `RouterTrainer.train`.

    Raises:
        NotEnoughLogsError: If a part's training answers are of one candidate.
    """
    dataset, seed = arena.dataset, arena.seed
    n, k = dataset.performance.shape
    predicted, se = np.full((2, n, k), np.nan, dtype=np.float32)
    chosen = {name: np.full(n, -1, dtype=np.intp) for name in arena.policies}
    switched = np.zeros(n, dtype=np.bool_)
    curve = np.full((len(CURVE_WEIGHTS), n), -1, dtype=np.intp)
    kept = hide_answers(~np.isnan(dataset.performance), share=answers, seed=seed)
    arguments = RouterTrainingArguments(head=named_head(head), label=label, n_threads=n_threads, seed=seed)
    if head in _SLOW_HEADS:
        arguments = replace(arguments, n_members=3, n_calibration_folds=2)
    seconds, head_names = 0.0, []
    for train, test in arena.parts:
        start = time.perf_counter()
        logs = arena.frame if answers == 1.0 else _kept_rows(arena.frame, dataset, kept)
        columns = np.flatnonzero(kept[train].any(axis=0))
        router = _train(arguments, logs, dataset, train, columns, embedder=arena.embedder)
        seconds += time.perf_counter() - start
        head_names.append(router.weights.head_name)
        prediction = router.predict(
            [text for text, wanted in zip(dataset.texts, test, strict=True) if wanted]
        )
        cells = np.ix_(test, columns)
        predicted[cells] = prediction.performance
        se[cells] = router.basis.se_scale * prediction.performance_se
        for name, policy in arena.policies.items():
            choice = choose(prediction, policy, basis=router.basis)
            chosen[name][test] = columns[choice.chosen]
            if name == next(iter(arena.policies)):
                switched[test] = choice.chosen != choice.default
        choices = curve_choices(prediction, basis=router.basis)
        curve = curve[: len(choices)]
        curve[:, test] = columns[choices[: len(curve)]]
    return RoutedQueries(
        predicted=predicted,
        se=se,
        chosen=chosen,
        switched=switched,
        curve=curve,
        seconds=seconds,
        n_members=arguments.n_members,
        head_names=tuple(head_names),
    )


def curve_choices(
    prediction: Prediction, *, basis: DecisionBasis, prices: PriceTable | None = None
) -> npt.NDArray[np.intp]:
    """Choose at each of `CURVE_WEIGHTS`, without margin.

    Args:
        prediction: Expectations for n queries.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.

    Returns:
        (w, n) columns; w is 0 where the router has no cost scale.
    """
    if basis.cost_scale_usd is None:
        return np.zeros((0, len(prediction.performance)), dtype=np.intp)
    policies = [RoutingPolicy(cost_weight=weight, margin_z=0.0) for weight in CURVE_WEIGHTS]
    return np.stack([choose(prediction, policy, basis=basis, prices=prices).chosen for policy in policies])


def _train(
    arguments: RouterTrainingArguments,
    logs: pl.DataFrame,
    dataset: RouterDataset,
    train: Mask,
    columns: npt.NDArray[np.intp],
    *,
    embedder: Embedder,
) -> RouterModel:
    wanted = pl.Series([query_id for query_id, is_in in zip(dataset.query_ids, train, strict=True) if is_in])
    part = logs.filter(pl.col("query_id").is_in(wanted.implode()))
    candidates = [dataset.candidates[column] for column in columns]
    if len(candidates) < 2:
        message = (
            f"Of the queries that one of the routers learns from, only {[each.id for each in candidates]} "
            "has answers, which leaves nothing to choose. Keep queries apart in another way, or collect "
            "answers of others."
        )
        raise NotEnoughLogsError(message)
    return RouterTrainer(arguments, embedder=embedder).train(part, candidates=candidates)


def _kept_rows(frame: pl.DataFrame, dataset: RouterDataset, kept: Mask) -> pl.DataFrame:
    rows, columns = np.nonzero(kept)
    ids = [candidate.id for candidate in dataset.candidates]
    wanted = pl.DataFrame(
        {
            "query_id": [dataset.query_ids[row] for row in rows],
            "candidate_id": [ids[column] for column in columns],
        }
    )
    return frame.join(wanted, on=["query_id", "candidate_id"], how="semi")
