"""The artifact of the query level: predicts what to expect of each candidate, and routes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from fusion_integrations.artifacts import save_artifact
from fusion_integrations.embedders import check_identity, load_embedder
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.basis import DecisionBasis
from fusion_integrations.query_level.decision import RouteDecision, decide
from fusion_integrations.query_level.exploration import RandomSource, generators_for
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_artifact import (
    WEIGHTS_FILE,
    read_router,
    router_bytes,
    router_card,
    router_details,
)
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.router_weights import RouterWeights
from fusion_integrations.types import QUERY_TEXT_VERSION, Candidate, PriceTable, Query, context_characters

__all__ = ["RouterModel"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterModel:
    """A trained router. Immutable; safe to share between threads if its embedder is.

    Attributes:
        weights: What was learned.
        basis: Averages, cost scale and validated margins that decisions rest on.
        embedder: Turns texts into vectors; the one it was trained with.
        arguments: The training arguments, as JSON data.
        log_fingerprint: Hash of the training logs.
        metrics: What training measured.
    """

    weights: RouterWeights = field(repr=False)  # hundreds of kilobytes, when printed
    basis: DecisionBasis = field(repr=False)
    embedder: Embedder
    arguments: Mapping[str, Any] = field(default_factory=dict)
    log_fingerprint: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def current(self) -> Self:
        """This router; see `Router`."""
        return self

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The k candidates, in the order of every prediction's columns."""
        return self.weights.candidates

    def predict(self, queries: Sequence[str | Query]) -> Prediction:
        """Predict performance, tokens and cost of every candidate for every query.

        Args:
            queries: n texts or queries, none blank. Of a text, the prompt is taken to hold system and tool
                messages as long as is usual in the logs; a query holds all of its prompt.

        Returns:
            Expectations, (n, k); columns follow `self.candidates`.

        Raises:
            EmptyQueryError: If a query is blank.
            InvalidPolicyError: If `queries` is one text, which would be read letter by letter.
        """
        if isinstance(queries, str):
            raise InvalidPolicyError("The router got one text for a list of queries. Pass [text].")
        texts = _texts(queries)
        features = router_features(texts, embedder=self.embedder, version=self.weights.text_features_version)
        beside = [
            math.nan if isinstance(query, str) else context_characters(query.messages) for query in queries
        ]
        return self.weights.predict(texts, features, context_characters=np.array(beside, dtype=np.float32))

    def route(
        self,
        query: str | Query,
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> RouteDecision:
        """Choose a candidate for a query.

        Args:
            query: A text or a query.
            policy: What to optimise, within which limits.
            prices: Today's prices. Default: costs as in the training logs.
            random: What a policy that explores draws from: a generator, or a seed that with the query's text
                fixes the draw. Others leave it alone.

        Returns:
            The decision and its reason.

        Raises:
            EmptyQueryError: If the query is blank.
            NoEligibleCandidateError: If the policy excludes every candidate.
            UnknownCandidateError: If the policy names a candidate the router does not know.
            InvalidPolicyError: If the policy weighs cost and no cost scale is known, wants a quality that was
                not validated, or explores without `random`.

        Source:
            FusionFactory (arXiv 2507.10540), query-level fusion (section 4).
        """
        return self.route_batch([query], policy=policy, prices=prices, random=random)[0]

    def route_batch(
        self,
        queries: Sequence[str | Query],
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> list[RouteDecision]:
        """Choose for several queries with one call of the embedder; otherwise as `route`."""
        if not queries:
            return []
        generators = None
        if policy.exploration != "none" and random is not None:
            generators = generators_for(random, _texts(queries))
        return decide(
            self.predict(queries),
            policy,
            basis=self.basis,
            prices=prices,
            generators=generators,
        )

    def save_pretrained(self, folder: str | Path) -> Self:
        """Save the router as an artifact folder; an existing router there is replaced in one step.

        Args:
            folder: Where to.

        Returns:
            The router with its artifact digest, which decisions and logs then carry.

        Raises:
            ArtifactWriteError: If it cannot be written; what was there is unchanged.
        """
        manifest = save_artifact(
            folder,
            kind="router",
            files={WEIGHTS_FILE: router_bytes(self.weights, self.basis)},
            card=router_card(self.weights, self.basis, self.metrics),
            candidates=[candidate.to_json() for candidate in self.candidates],
            embedder=self.embedder.identity,
            query_text_version=QUERY_TEXT_VERSION,
            arguments=self.arguments,
            log_fingerprint=self.log_fingerprint,
            metrics=self.metrics,
            details=router_details(self.weights, self.basis),
        )
        return replace(self, basis=replace(self.basis, artifact=manifest.digest))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, embedder: Embedder | None = None, expected_digest: str | None = None
    ) -> Self:
        """Load a saved router.

        Args:
            folder: Where it lies.
            embedder: The embedder it was trained with. Default: the built-in one of that identity.
            expected_digest: Digest the artifact must have; protects against tampering.

        Returns:
            The router.

        Raises:
            ArtifactNotFoundError: If there is no artifact.
            ArtifactFormatError: If it is damaged, of another kind or of a newer release.
            EmbedderMismatchError: If the embedder differs from the one it was trained with.
        """
        artifact, weights, basis = read_router(folder, expected_digest=expected_digest)
        manifest = artifact.manifest
        if manifest.embedder is None:
            message = f"{folder} does not say which embedder it was trained with. Save it again."
            raise ArtifactFormatError(message)
        if embedder is None:
            embedder = load_embedder(manifest.embedder)
        check_identity(manifest.embedder, embedder.identity)
        return cls(
            weights=weights,
            basis=basis,
            embedder=embedder,
            arguments=manifest.arguments,
            log_fingerprint=manifest.log_fingerprint,
            metrics=manifest.metrics,
        )


def _texts(queries: Sequence[str | Query]) -> list[str]:
    """Give what is embedded: of a text too without the white space around it, as of the logged queries."""
    return [query.strip() if isinstance(query, str) else query.text for query in queries]
