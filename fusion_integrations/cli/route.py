"""`fusion route`: ask a saved router who should answer a query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import ExplorationName, PolicyName
from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal, usd_per_1000
from fusion_integrations.errors import InvalidPolicyError

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.query_level.decision import RouteDecision

__all__ = ["route"]


_Policy = Annotated[
    PolicyName | None, typer.Option(help="What to optimise.", show_default="performance-first")
]
_CostWeight = Annotated[float | None, typer.Option(help="Weight of cost from 0 to 1, instead of --policy.")]
_QualityOf = Annotated[
    str | None, typer.Option(metavar="ID", help="Hold this candidate's quality as cheaply as possible.")
]
_MaxLoss = Annotated[float, typer.Option(help="Mean performance that --quality-of may lose, from 0 to 1.")]
_MaxCost = Annotated[float | None, typer.Option(metavar="USD", help="Budget a call.")]
_MaxLatency = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Longest expected duration of a call.")
]
_MinPerformance = Annotated[float | None, typer.Option(help="Wanted expected performance from 0 to 1.")]
_Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Choose among these only; repeat for each.", show_default="all"),
]
_Need = Annotated[
    list[str] | None,
    typer.Option(metavar="CAPABILITY", help="What the candidate must be able to do; repeat for each."),
]
_Margin = Annotated[
    float | None,
    typer.Option(help="Standard errors a gain must exceed.", show_default="as validated in training"),
]
_Explore = Annotated[
    ExplorationName, typer.Option(help="Whether chance may take another eligible candidate.")
]
_Epsilon = Annotated[float, typer.Option(help="Probability of chance with --explore epsilon.")]
_Seed = Annotated[int, typer.Option(help="Seed of that chance.")]


def route(
    query: Annotated[str, typer.Argument(help="The question.")],
    *,
    router: Annotated[Path, typer.Option(help="Folder of a saved router.")],
    policy: _Policy = None,
    cost_weight: _CostWeight = None,
    quality_of: _QualityOf = None,
    max_loss: _MaxLoss = 0.0,
    max_cost: _MaxCost = None,
    max_latency: _MaxLatency = None,
    min_performance: _MinPerformance = None,
    allow: _Allow = None,
    need: _Need = None,
    margin: _Margin = None,
    explore: _Explore = ExplorationName.NONE,
    epsilon: _Epsilon = 0.1,
    seed: _Seed = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose who should answer a query.

    Prints the candidate, the reason, and what the router expects of every candidate. No LLM is called.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.query_level.policy import POLICY_PRESETS
        from fusion_integrations.query_level.router_model import RouterModel

        if sum(given is not None for given in (policy, cost_weight, quality_of)) > 1:
            raise InvalidPolicyError(
                "Give one of --policy, --cost-weight and --quality-of: each weighs cost."
            )
        preset = POLICY_PRESETS[policy or PolicyName.PERFORMANCE_FIRST]
        wanted = replace(
            preset,
            cost_weight=preset.cost_weight if cost_weight is None else cost_weight,
            quality_of=quality_of,
            max_loss=max_loss,
            max_cost_usd=max_cost,
            max_latency_s=max_latency,
            min_performance=min_performance,
            allowed=frozenset(allow) if allow else None,
            required_capabilities=frozenset(need or ()),
            margin_z=margin,
            exploration=explore.value,
            epsilon=epsilon,
        )
        decision = RouterModel.from_pretrained(router).route(query, policy=wanted, random=seed)
        place.show(
            decision.to_json(), f"{decision.candidate.id}\n{decision.reason}", _ranking_table(decision)
        )


def _ranking_table(decision: RouteDecision) -> Table:
    table = plain_table(
        "What it expects of each candidate",
        text_columns=("candidate",),
        number_columns=("performance", "95% interval", "USD per 1000 calls", "seconds", "reward"),
    )
    table.add_column("excluded", overflow="fold")
    for ranked in decision.ranking:
        table.add_row(
            ranked.candidate_id,
            f"{ranked.performance:.3f}",
            f"{ranked.performance_low:.3f} to {ranked.performance_high:.3f}",
            usd_per_1000(ranked.cost_usd),
            "unknown" if ranked.latency_s is None else f"{ranked.latency_s:.2f}",
            "" if ranked.reward is None else f"{ranked.reward:.3f}",
            ranked.excluded or "",
        )
    return table
