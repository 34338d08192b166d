"""Add a candidate to a trained router from a handful of answers, or remove one, without training again.

A new candidate is described by those that are known: it starts as the mean of the ones most like it in price
and description, and its own answers move it from there as far as they can be trusted. How far it may still be
off becomes the spread of its ensemble, so that margins keep it from being chosen on a guess.
See docs/decisions/0010-candidates-added-later.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.candidate_pool import AddedCandidate, CandidatePool
from fusion_integrations.query_level.heads.base import MIN_ANSWERS
from fusion_integrations.query_level.labels import label_from_json
from fusion_integrations.query_level.overlap import Overlap
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.types import Candidate, PriceTable, find_candidate

__all__ = ["add_candidate", "remove_candidate"]

# The prior, in the order of its use. Likeness of two candidates: e to the power of 4 times the cosine of
# their descriptions, less the natural logarithm of the ratio of their costs.
_DESCRIPTION_WEIGHT = 4.0
_LEVEL_SD = 0.15  # least doubt about the mean of a new candidate
_SHAPE_SD = 0.3  # doubt about the weight of each known candidate, when together they count as one
_MISFIT_SD = 0.08  # what no combination of the others can follow, however many answers there are
_NOISE, _NOISE_ANSWERS = 0.2, 10.0  # variance of single scores, and how many answers it counts for
_USAGE_ANSWERS = 3.0  # answers that "uses what those like it use" counts for

_USAGES = ("input_tokens", "output_tokens", "cost_usd", "latency_s")


def add_candidate(
    router: RouterModel,
    candidate: Candidate,
    logs: pl.DataFrame | LogSource,
    *,
    prices: PriceTable | None = None,
) -> RouterModel:
    """Add a candidate that was not there when the router was trained.

    Its performance is an intercept plus weights of the trained candidates' predictions: the posterior of a
    normal linear model, whose prior is the mean of the candidates like it and whose data are its answers. The
    posterior covariance becomes the spread of its members. Its use of tokens, USD and seconds is that of
    those like it, times the ratio seen in its answers. Train again when it has as many answers as others.

    Args:
        router: The trained router.
        candidate: Whom to add; its description, or model and id, is compared with theirs.
        logs: Logs with some scored answers of it; rows of others are not read. Their label is the router's.
        prices: Prices of the logged tokens. Default: costs as logged.

    Returns:
        The router with the candidate as its last. Margins stay as validated without it.

    Raises:
        InvalidPolicyError: If the router knows a candidate of that id.
        UnknownCandidateError: If the logs hold no scored answer of it.
        NotEnoughLogsError: If no row of the logs is scored, or no trained candidate is left to compare with.
        LogSchemaError: If the logs lack columns.

    Source:
        Normal linear model: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3.
    """
    if candidate.id in {known.id for known in router.candidates}:
        message = f"The router knows '{candidate.id}' already. Remove that one first, or give another id."
        raise InvalidPolicyError(message)
    if router.weights.pool is not None and not router.weights.pool.kept:
        message = f"No trained candidate is left that '{candidate.id}' could be compared with. Train again."
        raise NotEnoughLogsError(message)
    label = label_from_json(router.arguments.get("label", "performance"))
    dataset = RouterDataset.from_logs(as_frame(logs), candidates=[candidate], label=label, prices=prices)
    answers = _Answers.of(dataset, router)
    weights = router.weights
    pool = weights.pool or CandidatePool(
        n_trained=len(router.candidates), kept=tuple(range(len(router.candidates)))
    )
    likeness = _likeness(router, candidate, answers)
    mean, covariance = _posterior(answers, likeness)
    new = AddedCandidate(
        coefficients=_members(mean, covariance, answers=answers, n_members=len(weights.members)),
        usage=_usage_weights(answers, likeness),
    )
    everybody = (*router.candidates, candidate)
    return replace(
        router,
        weights=replace(weights, candidates=everybody, pool=pool.with_added(new)),
        basis=_basis_with(
            router.basis,
            everybody,
            new,
            level=float(mean[0]),
            level_se=math.sqrt(covariance[0, 0]),
            answers=answers,
        ),
        metrics={
            **router.metrics,
            "n_answers": {**router.metrics.get("n_answers", {}), candidate.id: len(answers.scores)},
        },
    )


def remove_candidate(router: RouterModel, candidate_id: str) -> RouterModel:
    """Remove a candidate; what is known of the others stays as it is.

    Args:
        router: The trained router.
        candidate_id: Whom to remove.

    Returns:
        The router without it.

    Raises:
        UnknownCandidateError: If the router does not know it.
        NotEnoughLogsError: If it is one of two: a router needs a choice.
    """
    position = router.candidates.index(find_candidate(router.candidates, candidate_id))
    if len(router.candidates) < 3:
        message = f"Without '{candidate_id}' one candidate is left, and nothing to choose. Add another first."
        raise NotEnoughLogsError(message)
    left = [column for column in range(len(router.candidates)) if column != position]
    candidates = tuple(router.candidates[column] for column in left)
    weights, average = router.weights, router.basis.average
    pool = weights.pool or CandidatePool(
        n_trained=len(router.candidates), kept=tuple(range(len(router.candidates)))
    )
    quality = router.basis.quality
    basis = replace(
        router.basis,
        average=average.select_candidates(left),
        quality=None if quality is None else quality.select(left),
        added=router.basis.added - {candidate_id},
        artifact="",
    )
    by_candidate: dict[str, Any] = {
        name: {known: value for known, value in router.metrics[name].items() if known != candidate_id}
        for name in ("n_answers", "mean_performance")
        if name in router.metrics
    }
    if "overlap" in router.metrics:
        overlap = Overlap.from_json(router.metrics["overlap"])
        by_candidate["overlap"] = overlap.without(candidate_id).to_json()
    return replace(
        router,
        weights=replace(weights, candidates=candidates, pool=pool.without(position)),
        basis=basis,
        metrics={**router.metrics, **by_candidate},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answers:
    """What is known of a new candidate, beside what is expected of the b' trained ones that are still there.

    Attributes:
        columns: (b',) their trained columns.
        n_trained: Number of trained columns.
        known: (n, b') expected performance.
        center: (b',) their mean performance.
        scores: (n,) scores of the new one.
        expected_use: (n, b') by kind of use; NaN where unknown.
        use: (n,) of the new one by kind of use; NaN where unknown.
    """

    columns: tuple[int, ...]
    n_trained: int
    known: npt.NDArray[np.float64]
    center: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    expected_use: dict[str, FloatArray]
    use: dict[str, FloatArray]

    @classmethod
    def of(cls, dataset: RouterDataset, router: RouterModel) -> _Answers:
        weights, n_candidates = router.weights, len(router.candidates)
        columns = tuple(range(n_candidates)) if weights.pool is None else weights.pool.kept
        n_trained = n_candidates if weights.pool is None else weights.pool.n_trained
        features = router_features(
            dataset.texts, embedder=router.embedder, version=router.weights.text_features_version
        )
        trained = weights.predict_trained(
            dataset.texts, features, context_characters=dataset.context_characters
        )
        there = list(columns)
        return cls(
            columns=columns,
            n_trained=n_trained,
            known=trained.performance[:, there].astype(np.float64),
            center=router.basis.average.performance[0, : len(columns)].astype(np.float64),
            scores=dataset.performance[:, 0].astype(np.float64),
            expected_use={
                "input_tokens": trained.input_tokens[:, there],
                "output_tokens": trained.output_tokens[:, there],
                "cost_usd": trained.logged_cost_usd[:, there],
                "latency_s": trained.latency_s[:, there],
            },
            use={name: getattr(dataset, name)[:, 0] for name in _USAGES},
        )


def _likeness(router: RouterModel, candidate: Candidate, answers: _Answers) -> npt.NDArray[np.float64]:
    """Return (b',) weights of the known candidates, of sum 1: who is how much like the new one."""
    known = router.candidates[: len(answers.columns)]
    vectors = router.embedder.embed([_description(each) for each in (candidate, *known)])
    score = _DESCRIPTION_WEIGHT * (vectors[1:] @ vectors[0]).astype(np.float64)
    own, theirs = answers.use["cost_usd"], answers.expected_use["cost_usd"]
    priced = ~np.isnan(own)
    if priced.any() and own[priced].mean() > 0:
        cost = theirs[priced].mean(axis=0)
        comparable = cost > 0  # not NaN either: of unknown cost, only the description counts
        score[comparable] -= np.abs(np.log(cost[comparable] / own[priced].mean()))
    weights = np.exp(score - score.max())
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _description(candidate: Candidate) -> str:
    return candidate.description or f"{candidate.model or candidate.id} {candidate.prompt_mode}"


def _posterior(
    answers: _Answers, likeness: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and covariance of the level on an average query and the weights around it, all columns."""
    columns = [1 + column for column in answers.columns]
    design = np.concatenate([np.ones((len(answers.scores), 1)), answers.known - answers.center], axis=1)
    prior_mean = np.concatenate([[likeness @ answers.center], likeness])
    prior = np.concatenate([[_LEVEL_SD**2], np.full(len(likeness), _SHAPE_SD**2)])
    deviation = ((answers.scores - answers.scores.mean()) ** 2).sum()
    noise = (deviation + _NOISE_ANSWERS * _NOISE) / (len(answers.scores) + _NOISE_ANSWERS)
    precision = np.diag(1 / prior) + design.T @ design / noise
    part = np.linalg.inv(precision)
    moved = prior_mean + part @ design.T @ (answers.scores - design @ prior_mean) / noise
    at = [0, *columns]
    mean, covariance = np.zeros(1 + answers.n_trained), np.zeros((1 + answers.n_trained,) * 2)
    mean[at], covariance[np.ix_(at, at)] = moved, part
    return mean, covariance


def _members(
    mean: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64], *, answers: _Answers, n_members: int
) -> FloatArray:
    """Spread the posterior over m members, so that their jackknife error is its standard deviation.

    Members differ in m - 1 directions at most: those in which predictions are least sure over the answered
    queries, widened to the whole variance.
    """
    center = np.zeros(answers.n_trained)
    center[list(answers.columns)] = answers.center
    spread = np.full((answers.n_trained,), 1e-4)
    around = np.zeros((len(answers.scores), answers.n_trained))
    around[:, list(answers.columns)] = answers.known - answers.center
    metric = np.diag(np.concatenate([[1.0], spread]))
    metric[1:, 1:] += around.T @ around / len(around)
    root = np.linalg.cholesky(metric)
    doubt = covariance.copy()
    doubt[0, 0] += _MISFIT_SD**2
    variances, directions = np.linalg.eigh(root.T @ doubt @ root)
    top = slice(-(n_members - 1), None)
    widened = np.sqrt(variances[top].clip(0) * variances.sum() / variances[top].sum())
    steps = np.linalg.solve(root.T, directions[:, top] * widened)
    deviations = math.sqrt(n_members / (n_members - 1)) * _contrasts(n_members, steps.shape[1]) @ steps.T
    coefficients = mean + deviations
    # From "level on an average query, and weights around it" to an intercept and weights.
    coefficients[:, 0] -= coefficients[:, 1:] @ center
    return coefficients.astype(np.float32)


def _contrasts(n_members: int, n_directions: int) -> npt.NDArray[np.float64]:
    """Return (m, r) orthonormal columns that sum to 0."""
    centered = np.eye(n_members) - 1 / n_members
    contrasts: npt.NDArray[np.float64] = np.linalg.svd(centered)[0][:, :n_directions]
    return contrasts


def _usage_weights(answers: _Answers, likeness: npt.NDArray[np.float64]) -> FloatArray:
    """Return (4, 1 + b) intercepts and weights: what those like it use, times the ratio seen."""
    usage = np.zeros((len(_USAGES), 1 + answers.n_trained))
    for row, name in enumerate(_USAGES):
        own, theirs = answers.use[name], answers.expected_use[name]
        seen = ~np.isnan(own)
        comparable = ~np.isnan(theirs).any(axis=0)
        weights = np.where(comparable, likeness, 0.0)
        weights = weights / weights.sum() if weights.sum() > 0 else weights
        expected = np.where(comparable, theirs, 0.0) @ weights
        if not seen.any():
            usage[row, 0] = np.nan
        elif expected.mean() > 0:
            held = _USAGE_ANSWERS * expected.mean()
            ratio = (own[seen].sum() + held) / (expected[seen].sum() + held)
            usage[row, [1 + column for column in answers.columns]] = ratio * weights
        else:
            usage[row, 0] = own[seen].mean()
    return usage.astype(np.float32)


def _basis_with(
    basis: DecisionBasis,
    candidates: tuple[Candidate, ...],
    new: AddedCandidate,
    *,
    level: float,
    level_se: float,
    answers: _Answers,
) -> DecisionBasis:
    """Return the basis with the new candidate's average; nobody's default below 20 answers."""
    average, n_trained = basis.average, answers.n_trained
    se = level_se if len(answers.scores) >= MIN_ANSWERS else 1.0
    members = average.performance_members
    members = members if len(members) > 1 else np.repeat(members, 2, axis=0)
    m = len(members)
    signs = np.zeros(m)
    signs[:2] = -1, 1  # two members apart by this have the jackknife error se
    column = level + signs * se * math.sqrt(m / (2 * (m - 1)))
    use = {}
    for row, name in enumerate(("input_tokens", "output_tokens", "logged_cost_usd")):
        values = getattr(average, name)
        trained = np.full((1, n_trained), np.nan, dtype=np.float32)
        trained[:, list(answers.columns)] = values[:, : len(answers.columns)]
        use[name] = np.concatenate([values, new.use(row, trained)[:, None]], axis=1).astype(np.float32)
    known = [*range(len(candidates) - 1)]
    return replace(
        basis,
        average=Prediction(
            candidates=candidates,
            performance_members=np.concatenate([members, column[:, None, None]], axis=2).astype(np.float32),
            input_tokens=use["input_tokens"],
            output_tokens=use["output_tokens"],
            logged_cost_usd=use["logged_cost_usd"],
        ),
        quality=None if basis.quality is None else basis.quality.select([*known, None]),
        added=basis.added | {candidates[-1].id},
        artifact="",
    )
