"""`fusion route`: ask a saved router who should answer a query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import PolicyName
from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal, usd_per_1000
from fusion_integrations.errors import InvalidPolicyError

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.query_level.decision import RouteDecision

__all__ = ["route"]


def route(
    query: Annotated[str, typer.Argument(help="The question.")],
    *,
    router: Annotated[Path, typer.Option(help="Folder of a saved router.")],
    policy: Annotated[
        PolicyName | None, typer.Option(help="What to optimise.", show_default="performance-first")
    ] = None,
    cost_weight: Annotated[
        float | None, typer.Option(help="Weight of cost from 0 to 1, instead of --policy.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="Budget a call.")] = None,
    min_performance: Annotated[
        float | None, typer.Option(help="Wanted expected performance from 0 to 1.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Choose among these only; repeat for each.", show_default="all"),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose who should answer a query.

    Prints the candidate, the reason, and what the router expects of every candidate. No LLM is called.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.query_level.policy import POLICY_PRESETS
        from fusion_integrations.query_level.router_model import RouterModel

        if policy is not None and cost_weight is not None:
            raise InvalidPolicyError("Give --policy or --cost-weight, not both: a policy is a cost weight.")
        preset = POLICY_PRESETS[policy or PolicyName.PERFORMANCE_FIRST]
        wanted = replace(
            preset,
            cost_weight=preset.cost_weight if cost_weight is None else cost_weight,
            max_cost_usd=max_cost,
            min_performance=min_performance,
            allowed=frozenset(allow) if allow else None,
        )
        decision = RouterModel.from_pretrained(router).route(query, policy=wanted)
        place.show(
            decision.to_json(), f"{decision.candidate.id}\n{decision.reason}", _ranking_table(decision)
        )


def _ranking_table(decision: RouteDecision) -> Table:
    table = plain_table(
        "What it expects of each candidate",
        text_columns=("candidate",),
        number_columns=("performance", "standard error", "USD per 1000 calls", "reward"),
    )
    table.add_column("excluded", overflow="fold")
    for ranked in decision.ranking:
        table.add_row(
            ranked.candidate_id,
            f"{ranked.performance:.3f}",
            f"{ranked.performance_se:.3f}",
            usd_per_1000(ranked.cost_usd),
            "" if ranked.reward is None else f"{ranked.reward:.3f}",
            ranked.excluded or "",
        )
    return table
