"""What callers ask of a router, whether it stays as it is or is replaced while they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.exploration import RandomSource
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate, PriceTable, Query

if TYPE_CHECKING:
    from fusion_integrations.query_level.router_model import RouterModel

__all__ = ["Router"]


class Router(Protocol):
    """Predicts and decides: a `RouterModel`, or a `ReloadingRouter` over one that changes."""

    @property
    def current(self) -> RouterModel:
        """The trained router that answers now; what is asked of it is consistent in itself."""
        ...

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The k candidates of the current router."""
        ...

    def predict(self, queries: Sequence[str | Query]) -> Prediction:
        """Predict performance, tokens and cost of every candidate for every query."""
        ...

    def route(
        self,
        query: str | Query,
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> RouteDecision:
        """Choose a candidate for a query."""
        ...

    def route_batch(
        self,
        queries: Sequence[str | Query],
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> list[RouteDecision]:
        """Choose for several queries with one call of the embedder."""
        ...
