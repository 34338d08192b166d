"""Everything a router learned, as arrays: the ensemble of heads and the usage predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.candidate_pool import CandidatePool
from fusion_integrations.query_level.heads import (
    FittedHead,
    TunedEmbedding,
    restore_embedding,
    restore_head,
)
from fusion_integrations.query_level.heads.packed_stack import PackedStack
from fusion_integrations.query_level.novelty import NoveltyDetector
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.text_features import TEXT_FEATURES_VERSION
from fusion_integrations.query_level.usage import UsageModel
from fusion_integrations.types import Candidate

__all__ = ["RouterWeights"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterWeights:
    """The learned part of a router.

    Attributes:
        candidates: The k columns of every prediction.
        head_name: Which learner the members are.
        members: m trained heads, each of which predicts (n, k) performance.
        usage: Predicts tokens and cost.
        text_features_version: Which surface features it reads.
        novelty: Tells queries unlike the logged ones; None if nobody can.
        pool: Who came and went after training; None if nobody did.
        embedding: What the members read instead of the features' embedding; None if they read that.
    """

    candidates: tuple[Candidate, ...]
    head_name: str
    members: tuple[FittedHead, ...]
    usage: UsageModel
    text_features_version: int = TEXT_FEATURES_VERSION
    novelty: NoveltyDetector | None = None
    pool: CandidatePool | None = None
    embedding: TunedEmbedding | None = None

    @cached_property
    def _packed(self) -> PackedStack | None:
        return PackedStack.of(self.members)

    def predict(
        self, texts: Sequence[str], features: FloatArray, *, context_characters: FloatArray | None = None
    ) -> Prediction:
        """Predict for n queries.

        Args:
            texts: n query texts.
            features: (n, d) their features; see `router_features`.
            context_characters: (n,) characters of the prompts beside these; see `UsageModel.predict`.

        Returns:
            Expectations for every query and candidate; performance within [0, 1].
        """
        trained = self.predict_trained(texts, features, context_characters=context_characters)
        return trained if self.pool is None else self.pool.apply(trained, self.candidates)

    def predict_trained(
        self, texts: Sequence[str], features: FloatArray, *, context_characters: FloatArray | None = None
    ) -> Prediction:
        """Predict the b columns that the heads were trained for, whoever is a candidate now."""
        usage = self.usage.predict(texts, features, context_characters=context_characters)
        read = features if self.embedding is None else self.embedding.replace_embedding(texts, features)
        packed = self._packed
        members = (
            np.stack([m.predict(read) for m in self.members]) if packed is None else packed.predict(read)
        )
        return Prediction(
            candidates=self.candidates,
            performance_members=np.clip(members, 0.0, 1.0),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            logged_cost_usd=usage.cost_usd,
            logged_latency_s=usage.latency_s,
            is_novel=None if self.novelty is None else self.novelty.is_novel(features),
        )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        named = {} if self.pool is None else self.pool.tensors()
        if self.novelty is not None:
            named |= {f"novelty.{name}": tensor for name, tensor in self.novelty.tensors().items()}
        if self.embedding is not None:
            named |= {f"embedding.{name}": tensor for name, tensor in self.embedding.tensors().items()}
        named |= {f"usage.{name}": tensor for name, tensor in self.usage.tensors().items()}
        for number, member in enumerate(self.members):
            named |= {f"member.{number}.{name}": tensor for name, tensor in member.tensors().items()}
        return named

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        candidates: tuple[Candidate, ...],
        head_name: str,
        n_members: int,
        text_features_version: int,
        pool: CandidatePool | None = None,
    ) -> Self:
        """Rebuild the learned part.

        Args:
            tensors: What `tensors` gave.
            candidates: The k columns.
            head_name: Which learner the members are.
            n_members: How many there are.
            text_features_version: Which surface features it reads.
            pool: Who came and went after training, as the manifest says.

        Returns:
            The learned part.

        Raises:
            ArtifactFormatError: If this release has no such head, or arrays are missing.
            MissingDependencyError: If what runs the head is not installed.
        """
        members = (_under(f"member.{number}.", tensors) for number in range(n_members))
        of_novelty = _under("novelty.", tensors)
        try:
            usage = UsageModel.from_tensors(_under("usage.", tensors))
            novelty = NoveltyDetector.from_tensors(of_novelty) if of_novelty else None
        except KeyError as error:
            message = f"The artifact's usage or novelty lacks the array {error}. Save the router again."
            raise ArtifactFormatError(message) from error
        return cls(
            candidates=candidates,
            head_name=head_name,
            members=tuple(restore_head(head_name, member) for member in members),
            usage=usage,
            text_features_version=text_features_version,
            novelty=novelty,
            pool=pool,
            embedding=restore_embedding(head_name, _under("embedding.", tensors)),
        )


def _under(prefix: str, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
