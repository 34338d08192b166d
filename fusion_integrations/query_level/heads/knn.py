"""Mean performance on the most similar logged queries, shrunk towards the overall mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means, require_above_zero

__all__ = ["KnnHead", "KnnHeadConfig", "fit_knn_head"]

_CHUNK = 2_000_000  # similarities held at once


@dataclass(frozen=True, kw_only=True)
class KnnHeadConfig:
    """Settings of the k-nearest-neighbours head.

    Attributes:
        n_neighbors: How many similar queries count. Below 40 the noise of single answers decides.
        shrinkage: Weight of the overall mean beside them, in answers.
        max_queries: Largest number of logged queries kept; beyond, a random sample.
    """

    name: Literal["knn"] = "knn"
    n_neighbors: int = 60
    shrinkage: float = 10.0
    max_queries: int = 8_000

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_neighbors", "shrinkage", "max_queries")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnnHead:
    """The logged queries themselves.

    Attributes:
        embeddings: (n, e) float16; cosine similarity is their product.
        values: (n, t) float32 target times weight, 0 where nothing was logged.
        amounts: (n, t) float32 weight.
        means: (t,) shrunk mean of each column.
        n_neighbors: (1,) how many similar queries count.
        shrinkage: (1,) weight of the mean beside them.
    """

    embeddings: npt.NDArray[np.float16]
    values: FloatArray
    amounts: FloatArray
    means: FloatArray
    n_neighbors: npt.NDArray[np.int64]
    shrinkage: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        logged = self.embeddings.astype(np.float32)
        predicted = np.empty((len(features), len(self.means)), dtype=np.float32)
        step = max(1, _CHUNK // max(len(logged), 1))
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            nearest = self._nearest(features[rows, : logged.shape[1]] @ logged.T)
            amounts = self.amounts[nearest].sum(axis=1)
            values = self.values[nearest].sum(axis=1) + self.shrinkage * self.means
            predicted[rows] = values / (amounts + self.shrinkage)
        return predicted

    def _nearest(self, similarity: FloatArray) -> npt.NDArray[np.intp]:
        k = int(self.n_neighbors[0])
        if similarity.shape[1] <= k:
            return np.tile(np.arange(similarity.shape[1]), (len(similarity), 1))
        # Sorted, so that sums round alike whatever order the partition left them in.
        return np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {
            "embeddings": self.embeddings,
            "values": self.values,
            "amounts": self.amounts,
            "means": self.means,
            "n_neighbors": self.n_neighbors,
            "shrinkage": self.shrinkage,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(
            embeddings=tensors["embeddings"],
            values=tensors["values"],
            amounts=tensors["amounts"],
            means=tensors["means"],
            n_neighbors=tensors["n_neighbors"],
            shrinkage=tensors["shrinkage"],
        )


def fit_knn_head(config: KnnHeadConfig, inputs: HeadInputs) -> KnnHead:
    """Keep the logged queries. Their embeddings have unit length, so a product is the cosine similarity."""
    kept = inputs.sample(config.max_queries)
    return KnnHead(
        embeddings=kept.features[:, : inputs.n_embedding].astype(np.float16),
        values=(np.nan_to_num(kept.targets) * kept.weights).astype(np.float32),
        amounts=kept.weights.astype(np.float32),
        means=column_means(inputs.targets, inputs.weights),
        n_neighbors=np.array([config.n_neighbors]),
        shrinkage=np.array([config.shrinkage], dtype=np.float32),
    )
