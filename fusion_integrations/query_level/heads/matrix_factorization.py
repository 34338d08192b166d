"""Query vectors times candidate vectors: what a query asks for against what a candidate is able to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means, require_above_zero
from fusion_integrations.query_level.heads.gradient_descent import as_array, descend, seeded_torch
from fusion_integrations.query_level.heads.logistic import logistic, logit
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["MatrixFactorizationHead", "MatrixFactorizationHeadConfig", "fit_matrix_factorization_head"]

_MAX_QUERIES = 100_000


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationHeadConfig:
    """Settings of the matrix factorization head.

    Attributes:
        n_factors: Length of the query and candidate vectors.
        n_epochs: Passes over the queries.
        learning_rate: Of AdamW, at the start.
        weight_decay: Of AdamW.
    """

    name: Literal["matrix_factorization"] = "matrix_factorization"
    n_factors: int = 8
    n_epochs: int = 15
    learning_rate: float = 1e-3
    weight_decay: float = 3.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_factors", "n_epochs", "learning_rate", "weight_decay")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixFactorizationHead:
    """value = logistic(ability of the candidate - difficulty of the query + factors of both, multiplied).

    Attributes:
        factors: (d, r) turn features into what a query asks for.
        factors_bias: (r,).
        candidates: (r, t) how well each candidate does what is asked for.
        difficulty: (d,) turn features into a query's difficulty.
        ability: (t,) each candidate's, at a query of difficulty 0.
    """

    factors: FloatArray
    factors_bias: FloatArray
    candidates: FloatArray
    difficulty: FloatArray
    ability: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        asked_for = features @ self.factors + self.factors_bias
        hardness = (features @ self.difficulty)[:, None]
        return logistic((self.ability - hardness + asked_for @ self.candidates).astype(np.float32))

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "factors": self.factors,
            "factors_bias": self.factors_bias,
            "candidates": self.candidates,
            "difficulty": self.difficulty,
            "ability": self.ability,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(
            factors=tensors["factors"],
            factors_bias=tensors["factors_bias"],
            candidates=tensors["candidates"],
            difficulty=tensors["difficulty"],
            ability=tensors["ability"],
        )


def fit_matrix_factorization_head(
    config: MatrixFactorizationHeadConfig, inputs: HeadInputs
) -> MatrixFactorizationHead:
    """Fit factors, difficulty and ability together on the cells there are.

    Source:
        RouteLLM (arXiv 2406.18665), section 4.2, regressing performance instead of wins; ability and
        difficulty as in item response theory (IRT-Router, arXiv 2506.01048).
    """
    means = column_means(inputs.targets, inputs.weights)
    inputs = inputs.sample(_MAX_QUERIES)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    with seeded_torch(seed=inputs.seed, n_threads=inputs.n_threads) as torch:
        factors = torch.nn.Linear(inputs.features.shape[1], config.n_factors)
        difficulty = torch.nn.Linear(inputs.features.shape[1], 1, bias=False)
        candidates = torch.nn.Linear(config.n_factors, len(means))
        with torch.no_grad():
            factors.weight.mul_(0.5)
            difficulty.weight.zero_()
            candidates.bias.copy_(torch.from_numpy(logit(means)))
        descend(
            torch,
            lambda x: candidates(factors(x)) - difficulty(x),
            {
                "factors": factors.weight,
                "factors.bias": factors.bias,
                "difficulty": difficulty.weight,
                "candidates": candidates.weight,
                "candidates.bias": candidates.bias,
            },
            features=scaling.apply(inputs.features),
            inputs=inputs,
            n_epochs=config.n_epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        folded, folded_bias = scaling.fold(as_array(factors.weight).T, as_array(factors.bias))
        hardness, offset = scaling.fold(as_array(difficulty.weight).T, np.zeros(1))
        return MatrixFactorizationHead(
            factors=folded,
            factors_bias=folded_bias,
            candidates=np.ascontiguousarray(as_array(candidates.weight).T.astype(np.float32)),
            difficulty=np.ascontiguousarray(hardness[:, 0]),
            ability=(as_array(candidates.bias) - offset).astype(np.float32),
        )
