"""A network of one hidden layer that all candidates share."""

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

__all__ = ["MlpHead", "MlpHeadConfig", "fit_mlp_head"]

_MAX_QUERIES = 100_000


@dataclass(frozen=True, kw_only=True)
class MlpHeadConfig:
    """Settings of the neural head.

    Attributes:
        n_hidden: Width of the hidden layer.
        n_epochs: Passes over the queries.
        learning_rate: Of AdamW, at the start.
        weight_decay: Of AdamW.
        dropout: Share of hidden units left out in each training step.
    """

    name: Literal["mlp"] = "mlp"
    n_hidden: int = 128
    n_epochs: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 0.5
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_hidden", "n_epochs", "learning_rate", "weight_decay", "dropout")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class MlpHead:
    """value = logistic(relu(features @ hidden + hidden_bias) @ weights + bias).

    Attributes:
        hidden: (d, h).
        hidden_bias: (h,).
        weights: (h, t).
        bias: (t,).
    """

    hidden: FloatArray
    hidden_bias: FloatArray
    weights: FloatArray
    bias: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        hidden = np.maximum(features @ self.hidden + self.hidden_bias, 0.0)
        return logistic(hidden @ self.weights + self.bias)

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "hidden": self.hidden,
            "hidden_bias": self.hidden_bias,
            "weights": self.weights,
            "bias": self.bias,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(
            hidden=tensors["hidden"],
            hidden_bias=tensors["hidden_bias"],
            weights=tensors["weights"],
            bias=tensors["bias"],
        )


def fit_mlp_head(config: MlpHeadConfig, inputs: HeadInputs) -> MlpHead:
    """Train the network; it starts from the candidates' means."""
    means = column_means(inputs.targets, inputs.weights)
    inputs = inputs.sample(_MAX_QUERIES)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    with seeded_torch(seed=inputs.seed, n_threads=inputs.n_threads) as torch:
        first = torch.nn.Linear(inputs.features.shape[1], config.n_hidden)
        second = torch.nn.Linear(config.n_hidden, len(means))
        with torch.no_grad():
            second.weight.mul_(0.1)
            second.bias.copy_(torch.from_numpy(logit(means)))
        dropout = torch.nn.Dropout(config.dropout)
        descend(
            torch,
            lambda x: second(dropout(torch.relu(first(x)))),
            {
                "first": first.weight,
                "first.bias": first.bias,
                "second": second.weight,
                "second.bias": second.bias,
            },
            features=scaling.apply(inputs.features),
            inputs=inputs,
            n_epochs=config.n_epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        hidden, hidden_bias = scaling.fold(as_array(first.weight).T, as_array(first.bias))
        return MlpHead(
            hidden=hidden,
            hidden_bias=hidden_bias,
            weights=np.ascontiguousarray(as_array(second.weight).T.astype(np.float32)),
            bias=as_array(second.bias).astype(np.float32),
        )
