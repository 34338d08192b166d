"""The router as a runnable: a query in, a decision out, for chains that act on the decision themselves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict

from fusion_integrations.errors import BudgetExceededError, FusionError
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Query
from langchain_fusion._convert import to_core, to_messages
from langchain_fusion._overrides import CONFIG_SPECS, CallOverrides

__all__ = ["FusionRouter", "RouterInput"]

RouterInput = LanguageModelInput | Query


class FusionRouter(RunnableSerializable[RouterInput, RouteDecision]):
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

        cheap = {"configurable": {"fusion_policy": RoutingPolicy(cost_weight=0.8)}}
        router.invoke("What is 17 * 24?", cheap).reason
        ```
    """

    pipeline: FusionPipeline
    policy: RoutingPolicy | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def InputType(self) -> Any:  # noqa: N802  # the framework's name
        """What a query may be."""
        return RouterInput

    @property
    def OutputType(self) -> type[RouteDecision]:  # noqa: N802  # the framework's name
        """What comes out."""
        return RouteDecision

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What `config["configurable"]` may hold: `fusion_route` and `fusion_policy`."""
        return [*super().config_specs, *CONFIG_SPECS]

    def invoke(
        self, input: RouterInput, config: RunnableConfig | None = None, **kwargs: Any
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
        return self._call_with_config(cast("Any", self._decide), input, config, **kwargs)

    async def ainvoke(
        self, input: RouterInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RouteDecision:
        """Decide without blocking the event loop; otherwise as `invoke`."""
        return await self._acall_with_config(cast("Any", self._adecide), input, config, **kwargs)

    def batch(
        self,
        inputs: list[RouterInput],
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
            cast("Any", self._decide_batch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[RouterInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RouteDecision]:
        """Decide for several queries without blocking the event loop; otherwise as `batch`."""
        return await self._abatch_with_config(
            cast("Any", self._adecide_batch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    # The four below are cast to Any where they are handed over: the framework's helpers call a function with
    # the config if it asks for one, but their annotations know only functions that ask for more.

    def _decide(self, input: RouterInput, config: RunnableConfig) -> RouteDecision:
        return self._decide_alike([input], [config], policy=self._policy(config))[0]

    async def _adecide(self, input: RouterInput, config: RunnableConfig) -> RouteDecision:
        return await asyncio.to_thread(self._decide, input, config)

    def _decide_batch(
        self, inputs: list[RouterInput], config: list[RunnableConfig]
    ) -> list[RouteDecision | Exception]:
        groups: dict[RoutingPolicy | None, list[int]] = defaultdict(list)
        for row, own in enumerate(config):
            groups[self._policy(own)].append(row)
        results: dict[int, RouteDecision | Exception] = {}
        for policy, rows in groups.items():
            group = [inputs[row] for row in rows], [config[row] for row in rows]
            try:
                results.update(zip(rows, self._decide_alike(*group, policy=policy), strict=True))
            except BudgetExceededError as error:  # it suffices for some, but nobody can say for which
                results.update(dict.fromkeys(rows, error))
            except FusionError:  # some query spoils the group: find out which
                results.update(zip(rows, map(self._attempt, *group), strict=True))
        return [results[row] for row in range(len(inputs))]

    async def _adecide_batch(
        self, inputs: list[RouterInput], config: list[RunnableConfig]
    ) -> list[RouteDecision | Exception]:
        return await asyncio.to_thread(self._decide_batch, inputs, config)

    def _attempt(self, input: RouterInput, config: RunnableConfig) -> RouteDecision | Exception:
        try:
            return self._decide(input, config)
        except FusionError as error:
            return error

    def _decide_alike(
        self, inputs: list[RouterInput], configs: list[RunnableConfig], *, policy: RoutingPolicy | None
    ) -> list[RouteDecision]:
        plans = self.pipeline.plan_batch([_query(input) for input in inputs], policy=policy)
        routes = [CallOverrides.from_config(config).route for config in configs]
        return [
            (plan if route is None else self.pipeline.pin(plan, route)).decision
            for plan, route in zip(plans, routes, strict=True)
        ]

    def _policy(self, config: RunnableConfig) -> RoutingPolicy | None:
        return CallOverrides.from_config(config).policy or self.policy


def _query(input: RouterInput) -> str | Query:
    return input if isinstance(input, str | Query) else Query(messages=to_core(to_messages(input)))
