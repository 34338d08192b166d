"""Predict what a call will use: prompt tokens from the prompt's length, the rest from the query.

Kept apart from the performance heads because usage needs neither their precision nor their uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs
from fusion_integrations.query_level.heads.cluster import ClusterHead, ClusterHeadConfig, fit_cluster_head
from fusion_integrations.query_level.query_kinds import Kinds
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.unanswered import fill_amounts

__all__ = ["Usage", "UsageModel", "fit_usage"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Usage:
    """Expected use of n queries by k candidates; NaN where the logs held nothing.

    Attributes:
        input_tokens: (n, k).
        output_tokens: (n, k).
        cost_usd: (n, k), at the prices of the logs.
        latency_s: (n, k), seconds a call; None if nobody's was logged.
    """

    input_tokens: FloatArray
    output_tokens: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class UsageModel:
    """A fitted usage predictor.

    Attributes:
        input_fit: (2, k) prompt tokens = row 0 + row 1 * characters of the query's text, for a prompt whose
            other messages are as long as usual; NaN if never logged.
        head: Predicts (n, 2k): output tokens, then USD, each divided by `scale`.
        scale: (2k,) unit of each column; NaN if never logged.
        latency_s: (g, k) mean seconds in each of the g groups of the head, NaN if never logged; None if
            nobody's were. Apart from the head's own means, so that releases before it read the artifact.
        usual_context: Characters of system and tool messages that prompts in the logs had, the median. None:
            made before they were counted, so that they are not.
    """

    input_fit: FloatArray
    head: ClusterHead
    scale: FloatArray
    latency_s: FloatArray | None = None
    usual_context: float | None = None

    def predict(
        self, texts: Sequence[str], features: FloatArray, *, context_characters: FloatArray | None = None
    ) -> Usage:
        """Predict the use of queries.

        Args:
            texts: n query texts.
            features: (n, d) their features.
            context_characters: (n,) characters of the prompts beside the texts; NaN for a prompt that is not
                laid out yet, whose other messages are then taken to be as long as usual. None: all are.

        Returns:
            The use, (n, k).
        """
        characters = np.array([len(text) for text in texts], dtype=np.float32)[:, None]
        if context_characters is not None and self.usual_context is not None:
            characters += np.nan_to_num(context_characters - self.usual_context)[:, None]
        shares, k = self.head.memberships(features), len(self.scale) // 2
        expected = shares @ self._scaled_means
        # A line may cross zero outside the lengths it was fitted on, and a negative cost would be a reward.
        input_tokens = np.maximum(self.input_fit[0] + self.input_fit[1] * characters, 0)
        return Usage(
            input_tokens=input_tokens,
            output_tokens=expected[:, :k],
            cost_usd=expected[:, k:],
            latency_s=None if self.latency_s is None else shares @ self.latency_s,
        )

    @cached_property
    def _scaled_means(self) -> FloatArray:
        return self.head.means * self.scale

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        head = {f"head.{name}": tensor for name, tensor in self.head.tensors().items()}
        latency = {} if self.latency_s is None else {"latency_s": self.latency_s}
        context = (
            {}
            if self.usual_context is None
            else {"usual_context": np.array([self.usual_context], dtype=np.float32)}
        )
        return {"input_fit": self.input_fit, "scale": self.scale, **head, **latency, **context}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the predictor from `tensors`."""
        head = {
            name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")
        }
        return cls(
            input_fit=tensors["input_fit"],
            scale=tensors["scale"],
            head=ClusterHead.from_tensors(head),
            latency_s=tensors.get("latency_s"),
            usual_context=float(tensors["usual_context"][0]) if "usual_context" in tensors else None,
        )


def fit_usage(
    dataset: RouterDataset,
    features: FloatArray,
    *,
    kinds: Kinds,
    n_embedding: int,
    n_threads: int,
    seed: int,
) -> UsageModel:
    """Learn the use of each candidate.

    Args:
        dataset: n queries, k candidates.
        features: (n, d) of the queries, the embedding first.
        kinds: (n,) kinds of query; of those that a candidate left out its use is assumed.
        n_embedding: How many of the d features are the embedding.
        n_threads: CPU threads of training.
        seed: Seed of every random choice.

    Returns:
        The predictor.
    """
    k, answered = len(dataset.candidates), ~np.isnan(dataset.performance)
    amounts = (dataset.output_tokens, dataset.cost_usd, dataset.latency_s)
    targets = np.concatenate([fill_amounts(each, answered, kinds) for each in amounts], axis=1)
    observed = ~np.isnan(targets)
    totals = np.where(observed, targets, 0.0).sum(axis=0)
    scale = np.where(observed.any(axis=0), totals / np.maximum(observed.sum(axis=0), 1), np.nan)
    # Each column in units of its own mean, so that they compare; what is always 0 stays 0 by its scale.
    in_means = np.where(
        scale == 0, np.where(observed, 1.0, np.nan), targets / np.where(scale == 0, 1.0, scale)
    )
    inputs = HeadInputs(
        texts=dataset.texts,
        features=features,
        targets=in_means.astype(np.float32),
        weights=(~np.isnan(in_means)).astype(np.float32),
        tasks=dataset.tasks,
        column_embeddings=np.zeros((in_means.shape[1], 0), dtype=np.float32),
        n_embedding=n_embedding,
        n_threads=n_threads,
        seed=seed,
    )
    usual_context = float(np.median(dataset.context_characters))
    characters = np.array([len(text) for text in dataset.texts]) + dataset.context_characters - usual_context
    fits = [_line(characters.astype(np.float64), dataset.input_tokens[:, column]) for column in range(k)]
    head, scale = fit_cluster_head(ClusterHeadConfig(), inputs), scale.astype(np.float32)
    latency_s = head.means[:, 2 * k :] * scale[2 * k :]
    return UsageModel(
        input_fit=np.array(fits, dtype=np.float32).T,
        head=replace(head, means=np.ascontiguousarray(head.means[:, : 2 * k])),
        scale=scale[: 2 * k],
        latency_s=None if np.isnan(latency_s).all() else latency_s,
        usual_context=usual_context,
    )


def _line(characters: npt.NDArray[np.float64], tokens: FloatArray) -> tuple[float, float]:
    known = ~np.isnan(tokens)
    if not known.any():
        return float("nan"), float("nan")
    x, y = characters[known], tokens[known].astype(np.float64)
    if np.ptp(x) == 0:
        return float(y.mean()), 0.0
    slope, offset = np.polyfit(x, y, 1)
    return float(offset), float(slope)
