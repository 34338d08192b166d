"""`fusion evaluate router`: compare saved routers with what needs no router, on held-out logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.choices import PolicyName
from fusion_integrations.cli.report_files import (
    HtmlOption,
    LlmRouterBenchOption,
    ReportFiles,
    RouterArenaOption,
)
from fusion_integrations.cli.terminal import DebugOption, JsonOption, terminal
from fusion_integrations.errors import InvalidPolicyError

if TYPE_CHECKING:
    from fusion_integrations.query_level.labels import AnyLabel
    from fusion_integrations.query_level.policy import RoutingPolicy
    from fusion_integrations.query_level.router_model import RouterModel

__all__ = ["evaluate_router", "usable_policies"]


def evaluate_router(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT", help="Folders of saved routers.")],
    *,
    logs: Annotated[
        str,
        typer.Option(
            help="Held-out logs: store, exported .parquet file, or demo for the demo's held-out part."
        ),
    ],
    train_logs: Annotated[
        str,
        typer.Option(
            help="The logs the routers were trained on, or the word demo for the demo's training log."
        ),
    ],
    policy: Annotated[
        list[PolicyName] | None,
        typer.Option(help="Policy to evaluate under; repeat for each.", show_default="all that apply"),
    ] = None,
    html: HtmlOption = None,
    export_routerarena: RouterArenaOption = None,
    export_llmrouterbench: LlmRouterBenchOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare routers on held-out logs.

    They stand beside Random, Best Single, Best per Task and Oracle; intervals say how sure the gains are. On
    partial logs, down to one answer a query, outcomes are estimated. Newer logs show what changed since
    training. To compare heads on logs in cross-validation, use fusion benchmark router.
    """
    with terminal(as_json=as_json, debug=debug) as place, place.progress.status("Evaluating"):
        from fusion_integrations.cli.inputs import log_name, read_logs
        from fusion_integrations.evaluation import (
            evaluate_routers,
            render_details,
            render_evaluation_page,
            render_table,
        )
        from fusion_integrations.query_level.policy import POLICY_PRESETS
        from fusion_integrations.query_level.router_model import RouterModel

        files = ReportFiles(
            out=None, html=html, routerarena=export_routerarena, llmrouterbench=export_llmrouterbench
        )
        files.check()
        held_out = read_logs(logs, demo_part="test")
        routers = {name: RouterModel.from_pretrained(path) for name, path in _names(artifacts).items()}
        first = next(iter(routers.values()))
        report = evaluate_routers(
            routers,
            logs=held_out,
            train_logs=read_logs(train_logs, demo_part="train"),
            policies={name.value: POLICY_PRESETS[name] for name in policy}
            if policy
            else usable_policies(first),
            label=_common_label(routers),
            name=log_name(logs),
            n_shown=files.n_shown,
        )
        place.show(report.to_json(), *render_table(report), *render_details(report))
        files.write(None, [report], frames=[held_out], page=partial(render_evaluation_page, report))


def usable_policies(router: RouterModel) -> dict[str, RoutingPolicy]:
    """Return the presets that a router can follow: those that weigh cost need logs with cost."""
    from fusion_integrations.query_level.policy import POLICY_PRESETS

    knows_cost = router.basis.cost_scale_usd is not None
    return {name: policy for name, policy in POLICY_PRESETS.items() if knows_cost or not policy.needs_cost}


def _names(artifacts: Sequence[Path]) -> dict[str, Path]:
    """Name routers by their folder, or by the whole path where folders of one name meet."""
    names = [path.resolve().name for path in artifacts]
    return {
        name if names.count(name) == 1 else str(path): path
        for name, path in zip(names, artifacts, strict=True)
    }


def _common_label(routers: Mapping[str, RouterModel]) -> AnyLabel:
    from fusion_integrations.query_level.labels import label_from_json, label_name

    found = [label_from_json(router.arguments.get("label", "performance")) for router in routers.values()]
    labels = dict(zip(routers, map(label_name, found), strict=True))
    if len(set(labels.values())) > 1:
        message = f"The routers learned different scores: {labels}. Evaluate those of one score at a time."
        raise InvalidPolicyError(message)
    return found[0]
