"""The router as a runnable: a query in, a decision out, for chains that act on the decision themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict

from fusion_integrations.errors import FusionError
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Query
from langchain_fusion._convert import to_core, to_messages
from langchain_fusion._overrides import CONFIG_SPECS, CallOverrides

__all__ = ["FusionRouter"]


class FusionRouter(RunnableSerializable[LanguageModelInput | Query, RouteDecision]):
    """Decides who should answer a query; calls no model and records nothing.

    It takes what a chat model takes (a text, a prompt value, messages) or a core `Query`, so it fits before
    a `RunnableBranch` or beside a prompt. `batch` embeds all its queries at once. One call can bring its own
    `policy` or pin a `route` through `config["configurable"]`.

    Attributes:
        pipeline: Router, prices and default policy.
        policy: Replaces the pipeline's policy. None keeps it.

    Example:
        ```python
        router = FusionRouter(pipeline=pipeline)
        router.invoke("What is 17 * 24?").candidate.id

        cheap = {"configurable": {"policy": RoutingPolicy(cost_weight=0.8)}}
        router.invoke("What is 17 * 24?", cheap).reason
        ```
    """

    pipeline: FusionPipeline
    policy: RoutingPolicy | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def InputType(self) -> Any:  # noqa: N802  # the framework's name
        """What a query may be."""
        return LanguageModelInput | Query

    @property
    def OutputType(self) -> type[RouteDecision]:  # noqa: N802  # the framework's name
        """What comes out."""
        return RouteDecision

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What `config["configurable"]` may hold: `route` and `policy`."""
        return [*super().config_specs, *CONFIG_SPECS]

    def invoke(
        self, input: LanguageModelInput | Query, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RouteDecision:
        """Decide who should answer.

        Args:
            input: The query.
            config: The run's config; see the class for what it may override.
            **kwargs: None are known.

        Returns:
            The decision and its reason.

        Raises:
            EmptyQueryError: If the query has no text.
            NoEligibleCandidateError: If the policy excludes every candidate.
            UnknownCandidateError: If a pinned or allowed candidate is unknown.
        """
        return self._call_with_config(self._decide, input, config, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput | Query, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RouteDecision:
        """Decide without blocking the event loop; otherwise as `invoke`."""
        return await self._acall_with_config(self._adecide, input, config, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput | Query],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RouteDecision]:
        """Decide for several queries with one call of the embedder for each policy among them.

        Args:
            inputs: The queries.
            config: One config for all, or one each.
            return_exceptions: Whether a query that cannot be routed gives its error instead of raising it.
            **kwargs: None are known.

        Returns:
            One decision a query, in their order.

        Raises:
            FusionError: As `invoke`, unless `return_exceptions`.
        """
        return self._batch_with_config(
            self._decide_batch, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[LanguageModelInput | Query],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RouteDecision]:
        """Decide for several queries without blocking the event loop; otherwise as `batch`."""
        return await self._abatch_with_config(
            self._adecide_batch, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def _decide(self, input: LanguageModelInput | Query, config: RunnableConfig) -> RouteDecision:
        overrides = CallOverrides.from_config(config)
        plan = self.pipeline.plan(_query(input), policy=overrides.policy or self.policy)
        return self._pinned(plan, overrides).decision

    async def _adecide(self, input: LanguageModelInput | Query, config: RunnableConfig) -> RouteDecision:
        overrides = CallOverrides.from_config(config)
        plan = await self.pipeline.aplan(_query(input), policy=overrides.policy or self.policy)
        return self._pinned(plan, overrides).decision

    def _decide_batch(
        self, inputs: list[LanguageModelInput | Query], config: list[RunnableConfig]
    ) -> list[RouteDecision | Exception]:
        batch = _Batch(self, inputs, config)
        for policy, queries in batch.groups.items():
            try:
                batch.settle(policy, self.pipeline.plan_batch(queries, policy=policy))
            except FusionError:  # one query spoils the group: find out which
                batch.settle(policy, [_attempt(self.pipeline.plan, query, policy=policy) for query in queries])
        return batch.results

    async def _adecide_batch(
        self, inputs: list[LanguageModelInput | Query], config: list[RunnableConfig]
    ) -> list[RouteDecision | Exception]:
        raise NotImplementedError

    def _pinned(self, plan: FusionPlan, overrides: CallOverrides) -> FusionPlan:
        return plan if overrides.route is None else self.pipeline.pin(plan, overrides.route)
