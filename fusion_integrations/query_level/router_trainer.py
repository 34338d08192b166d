"""Train a router from logs: matrices, features, an ensemble of heads, averages, and validated margins."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.logs.splits import grouped_folds
from fusion_integrations.protocols import Embedder, FloatArray
from fusion_integrations.query_level.calibration import (
    Margin,
    Outcomes,
    calibrate_margins,
    calibrate_se,
    validate_quality,
)
from fusion_integrations.query_level.decision import DecisionBasis
from fusion_integrations.query_level.head_selection import HeadTrial, try_heads
from fusion_integrations.query_level.heads import AutoHeadConfig, HeadConfig, HeadInputs, fit_ensemble
from fusion_integrations.query_level.heads.base import MIN_ANSWERS
from fusion_integrations.query_level.label_noise import measure_label_noise
from fusion_integrations.query_level.novelty import fit_novelty
from fusion_integrations.query_level.off_policy import importance_weights
from fusion_integrations.query_level.overlap import measure_overlap
from fusion_integrations.query_level.policy import MIN_COST_SCALE_USD
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.query_kinds import Kinds, kinds_by_task, kinds_of_queries
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_weights import RouterWeights
from fusion_integrations.query_level.unanswered import (
    assume_outcomes,
    estimate_outcomes,
    fill_targets,
)
from fusion_integrations.query_level.usage import UsageModel, fit_usage
from fusion_integrations.types import Candidate, PriceTable

__all__ = ["RouterTrainer"]

logger = logging.getLogger(__name__)

_MIN_QUERIES = 20
_MIN_QUERIES_FOR_NOVELTY = 200  # fewer do not tell what is unlike them


class RouterTrainer:
    """Learns from logs which candidate to expect what of.

    Args:
        arguments: Settings; default `RouterTrainingArguments()`.
        embedder: Turns query texts into vectors; its identity becomes part of the artifact.

    Example:
        >>> from fusion_integrations.embedders import HashEmbedder
        >>> from fusion_integrations.testing import tiny_logs
        >>> router = RouterTrainer(embedder=HashEmbedder()).train(tiny_logs())
        >>> router.route("What is 17 plus 24?").candidate.id
        'calculator'

    Source:
        FusionFactory (arXiv 2507.10540), query-level fusion (section 4); see docs/paper_map.md.
    """

    def __init__(self, arguments: RouterTrainingArguments | None = None, *, embedder: Embedder) -> None:
        self.arguments = arguments or RouterTrainingArguments()
        self.embedder = embedder

    def train(
        self,
        logs: pl.DataFrame | LogSource,
        *,
        candidates: Sequence[Candidate] | None = None,
        prices: PriceTable | None = None,
        eval_logs: pl.DataFrame | LogSource | None = None,
    ) -> RouterModel:
        """Train a router.

        Args:
            logs: Who answered what, how well, at what cost: a log store or its frame. Answers may be missing
                in any pattern.
            candidates: Who may be chosen. Default: every candidate in the logs, sorted by id.
            prices: Prices to apply to the logged tokens. Default: costs as logged.
            eval_logs: Validation logs for the margins, of queries that `logs` does not hold. Default: grouped
                cross-validation on `logs`.

        Returns:
            The trained router.

        Raises:
            NotEnoughLogsError: If there is one candidate only, or too few scored queries.
            UnknownCandidateError: If a wanted candidate answered no query.
            InvalidPolicyError: If `candidates` is empty or repeats an id.
            LogSchemaError: If the frame lacks columns.
            MissingDependencyError: If the head's package is not installed.
        """
        whole = as_frame(logs)
        frame = _sampled(whole, n_max=self.arguments.max_queries, seed=self.arguments.seed)
        training = self._prepare(frame, candidates, prices)
        _check_enough(training.dataset)
        logger.info("Training on %d queries x %d candidates", *training.dataset.performance.shape)
        overlap = measure_overlap(frame, training.dataset, kinds=training.kinds)
        for warning in overlap.warnings:
            logger.warning(warning)
        head, trials = self._choose_head(training)
        weights = self._fit(training, head)
        folds = self._calibration_folds(training)
        unseen = self._cross_validate(training, head, folds=folds, usage=weights.usage)
        basis = _basis(training, unseen)
        validation = training
        if eval_logs is not None:
            validation = self._prepare(as_frame(eval_logs), weights.candidates, prices)
            _check_enough(validation.dataset, name="validation logs")
            unseen = weights.predict(validation.dataset.texts, validation.features)
            folds = np.zeros(len(validation.dataset), dtype=np.int64)
        outcomes = _outcomes(validation, unseen)
        margins = calibrate_margins(
            unseen,
            outcomes,
            basis=basis,
            groups=validation.groups,
            risk=self.arguments.risk,
            seed=self.arguments.seed,
        )
        for margin in margins:
            logger.info("Validated %s", margin)
        noise = measure_label_noise(frame, self.arguments.label)
        return RouterModel(
            weights=weights,
            basis=replace(
                basis,
                margin_z={margin.cost_weight: margin.margin_z for margin in margins},
                se_scale=calibrate_se(unseen, outcomes, kinds=_named_kinds(validation), folds=folds),
                quality=validate_quality(unseen, outcomes, basis=basis, seed=self.arguments.seed),
            ),
            embedder=self.embedder,
            arguments=self.arguments.to_json(),
            log_fingerprint=log_fingerprint(whole),
            metrics={
                **_metrics(training.dataset, basis, margins),
                "overlap": overlap.to_json(),
                "label_noise": None if noise is None else noise.to_json(),
                "head_trials": [trial.to_json() for trial in trials],
            },
        )

    def _prepare(
        self, frame: pl.DataFrame, candidates: Sequence[Candidate] | None, prices: PriceTable | None
    ) -> _Prepared:
        dataset = RouterDataset.from_logs(
            frame, candidates=candidates, label=self.arguments.label, prices=prices
        )
        features = router_features(dataset.texts, embedder=self.embedder)
        return _Prepared(
            dataset=dataset,
            features=features,
            groups=dataset.groups,
            kinds=kinds_of_queries(
                dataset,
                lambda: features,
                n_embedding=self.embedder.identity.dimensions,
                seed=self.arguments.seed,
            ),
            candidate_embeddings=self.embedder.embed([_describe(each) for each in dataset.candidates]),
        )

    def _inputs(self, training: _Prepared) -> HeadInputs:
        return HeadInputs(
            texts=training.dataset.texts,
            features=training.features,
            targets=training.dataset.performance,
            weights=importance_weights(training.dataset.performance, training.dataset.propensity),
            tasks=training.dataset.tasks,
            column_embeddings=training.candidate_embeddings,
            n_embedding=self.embedder.identity.dimensions,
            n_threads=self.arguments.n_threads,
            seed=self.arguments.seed,
        )

    def _choose_head(self, training: _Prepared) -> tuple[HeadConfig, list[HeadTrial]]:
        """Return the wanted head, or the winner of the wanted trials and what each reached."""
        wanted, arguments = self.arguments.head, self.arguments
        if not isinstance(wanted, AutoHeadConfig):
            return wanted, []
        head, trials = try_heads(
            wanted.heads,
            self._inputs(training),
            folds=grouped_folds(training.groups, n_folds=arguments.n_members, seed=arguments.seed),
            kinds=training.kinds,
            groups=training.groups,
            propensity=training.dataset.propensity,
        )
        for trial in trials:
            logger.info("Tried head '%s': performance %.4f", trial.head, trial.performance)
        return head, trials

    def _fit(self, training: _Prepared, head: HeadConfig) -> RouterWeights:
        """Fit the members, each without one group-wise fold, and the usage predictor on everything."""
        arguments = self.arguments
        folds = grouped_folds(training.groups, n_folds=arguments.n_members, seed=arguments.seed)
        n_embedding, novelty = self.embedder.identity.dimensions, None
        if arguments.novel_share > 0 and len(training.dataset) >= _MIN_QUERIES_FOR_NOVELTY:
            novelty = fit_novelty(
                training.features,
                tasks=training.dataset.tasks,
                folds=folds,
                n_embedding=n_embedding,
                share=arguments.novel_share,
                seed=arguments.seed,
            )
        ensemble = fit_ensemble(head, fill_targets(self._inputs(training), training.kinds), folds)
        return RouterWeights(
            candidates=training.dataset.candidates,
            head_name=head.name,
            novelty=novelty,
            members=ensemble.members,
            embedding=ensemble.embedding,
            usage=fit_usage(
                training.dataset,
                training.features,
                kinds=training.kinds,
                n_embedding=n_embedding,
                n_threads=arguments.n_threads,
                seed=arguments.seed,
            ),
        )

    def _calibration_folds(self, training: _Prepared) -> npt.NDArray[np.int64]:
        arguments = self.arguments
        return grouped_folds(training.groups, n_folds=arguments.n_calibration_folds, seed=arguments.seed + 1)

    def _cross_validate(
        self, training: _Prepared, head: HeadConfig, *, folds: npt.NDArray[np.int64], usage: UsageModel
    ) -> Prediction:
        """Predict every training query by weights that saw neither it nor a near-duplicate of it.

        Where a fold logged no tokens or cost of a candidate, `usage`, which saw everything, stands in.
        """
        parts = []
        for fold in range(self.arguments.n_calibration_folds):
            weights = self._fit(training.select(folds != fold), head)
            held_out = training.select(folds == fold)
            parts.append(weights.predict(held_out.dataset.texts, held_out.features))
        order = np.argsort(np.argsort(folds, kind="stable"), kind="stable")
        whole = usage.predict(training.dataset.texts, training.features)

        def joined(name: str, stand_in: FloatArray) -> FloatArray:
            values = np.concatenate([getattr(part, name) for part in parts])[order]
            filled: FloatArray = np.where(np.isnan(values), stand_in, values)
            return filled

        return Prediction(
            candidates=training.dataset.candidates,
            performance_members=np.concatenate([p.performance_members for p in parts], axis=1)[:, order],
            input_tokens=joined("input_tokens", whole.input_tokens),
            output_tokens=joined("output_tokens", whole.output_tokens),
            logged_cost_usd=joined("logged_cost_usd", whole.cost_usd),
            is_novel=_joined_novelty([part.is_novel for part in parts], order),
        )


def _joined_novelty(
    parts: Sequence[npt.NDArray[np.bool_] | None], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known)[order] if len(known) == len(parts) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """A data set with what is computed once from its texts.

    Attributes:
        dataset: n queries, k candidates.
        features: (n, d), the embedding first.
        groups: n keys of what folds must not split.
        kinds: (n,) kinds of query.
        candidate_embeddings: (k, e) of their descriptions.
    """

    dataset: RouterDataset
    features: FloatArray
    groups: tuple[str, ...]
    kinds: Kinds
    candidate_embeddings: FloatArray

    def select(self, rows: npt.NDArray[np.bool_]) -> _Prepared:
        return _Prepared(
            dataset=self.dataset.select(rows),
            features=self.features[rows],
            groups=tuple(np.asarray(self.groups, dtype=np.object_)[rows]),
            kinds=self.kinds[rows],
            candidate_embeddings=self.candidate_embeddings,
        )


def _sampled(frame: pl.DataFrame, *, n_max: int, seed: int) -> pl.DataFrame:
    """Keep the rows of at most n_max queries, drawn at random."""
    if frame.height <= n_max or "query_id" not in frame.columns:
        return frame
    queries = frame["query_id"].unique().sort()
    if len(queries) <= n_max:
        return frame
    kept = queries.sample(n_max, seed=seed)
    logger.info("Learning from %d of %d queries", n_max, len(queries))
    return frame.filter(pl.col("query_id").is_in(kept.implode()))


def _describe(candidate: Candidate) -> str:
    """Put what is known of a candidate in words, for heads that learn from descriptions."""
    return f"{candidate.model or candidate.id}, {candidate.prompt_mode}. {candidate.description}".strip()


def _check_enough(dataset: RouterDataset, *, name: str = "logs") -> None:
    n, k = dataset.performance.shape
    if k < 2:
        message = (
            f"The {name} hold one candidate only, '{dataset.candidates[0].id}'. A router needs at least two "
            "to choose from: log another model or prompt mode."
        )
        raise NotEnoughLogsError(message)
    if n < _MIN_QUERIES:
        message = f"The {name} hold {n} scored queries; a router needs at least {_MIN_QUERIES}. Collect more."
        raise NotEnoughLogsError(message)


def _named_kinds(prepared: _Prepared) -> Kinds:
    """Tell kinds by task even where nothing is missing, which `kinds_of_queries` has no need to."""
    by_task = kinds_by_task(prepared.dataset.tasks)
    return by_task if by_task.any() else prepared.kinds


def _outcomes(prepared: _Prepared, unseen: Prediction) -> Outcomes:
    dataset = prepared.dataset
    propensity, kinds = dataset.propensity, prepared.kinds
    return Outcomes(
        performance=estimate_outcomes(dataset.performance, unseen.performance, propensity, kinds),
        cost_usd=estimate_outcomes(dataset.cost_usd, unseen.logged_cost_usd, propensity, kinds),
    )


def _basis(training: _Prepared, unseen: Prediction) -> DecisionBasis:
    dataset = training.dataset
    outcomes = _outcomes(training, unseen)
    cost = outcomes.cost_usd.mean(axis=0, keepdims=True)
    mean, n = outcomes.performance.mean(axis=0), len(dataset)
    n_answers = (~np.isnan(dataset.performance)).sum(axis=0)
    # Few answers say nothing about a mean: an error as wide as the scale keeps such a candidate from being
    # the default. Two members at mean -/+ se are the ensemble whose jackknife error is se.
    se = outcomes.performance.std(axis=0) / math.sqrt(n)
    weights = importance_weights(dataset.performance, dataset.propensity)
    assumed = assume_outcomes(dataset.performance, weights, training.kinds)
    if assumed is not None:
        se = np.hypot(se, assumed.error_of_means(training.kinds))
    se = np.where(n_answers < MIN_ANSWERS, 1.0, se)
    known = cost[~np.isnan(cost)]
    average = Prediction(
        candidates=dataset.candidates,
        performance_members=np.stack([mean - se, mean + se])[:, None, :].astype(np.float32),
        input_tokens=unseen.input_tokens.mean(axis=0, keepdims=True),
        output_tokens=unseen.output_tokens.mean(axis=0, keepdims=True),
        logged_cost_usd=cost,
    )
    # What costs all but nothing is free: there is no scale to weigh it by.
    scale = float(known.max()) if known.size and known.max() >= MIN_COST_SCALE_USD else None
    return DecisionBasis(average=average, cost_scale_usd=scale)


def _metrics(dataset: RouterDataset, basis: DecisionBasis, margins: Sequence[Margin]) -> dict[str, Any]:
    return {
        "n_queries": len(dataset),
        "n_answers": {
            candidate.id: int(count)
            for candidate, count in zip(
                dataset.candidates, (~np.isnan(dataset.performance)).sum(axis=0), strict=True
            )
        },
        "mean_performance": {
            candidate.id: float(mean)
            for candidate, mean in zip(dataset.candidates, basis.average.performance[0], strict=True)
        },
        "validated_margins": [
            {key: value if math.isfinite(value) else None for key, value in asdict(margin).items()}
            for margin in margins
        ],
    }
