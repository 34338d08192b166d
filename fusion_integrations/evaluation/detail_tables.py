"""Show what is known of routers beyond their rows: drift, cost at equal quality, model pairs, calibration."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from fusion_integrations.evaluation.cost_quality import CostQuality
from fusion_integrations.evaluation.drift import Drift
from fusion_integrations.evaluation.evaluation_report import EvaluationReport
from fusion_integrations.evaluation.model_pairs import PairMeasures
from fusion_integrations.evaluation.reliability import calibration_error
from fusion_integrations.evaluation.router_details import RouterDetails
from fusion_integrations.evaluation.table_parts import add_caption_line, make_table

__all__ = ["COST_QUALITY_CAPTION", "cost_quality_cells", "pairs_table", "render_details"]

COST_QUALITY_CAPTION = (
    "AIQ is the mean performance over budgets from the cheapest to the dearest LLM. The last column is the "
    "cost, relative to Best Single, at which the cost-quality curve reaches its performance."
)


def render_details(report: EvaluationReport) -> list[Table]:
    """Lay out what an evaluation knows of its routers beyond their rows.

    Args:
        report: The evaluation.

    Returns:
        What changed since training; performance for cost, if costs are known; which queries need the stronger
        of two models, if there are two; and one table a router of predicted against observed performance.
    """
    tables = [] if report.drift is None else [_drift_table(report.drift)]
    curves = {name: each.cost_quality for name, each in report.details.items() if each.cost_quality}
    if curves:
        table = make_table(
            "What performance costs", text_columns=("router",), number_columns=("AIQ", "cost at\nBest Single")
        )
        for name, curve in curves.items():
            table.add_row(Text(name), *cost_quality_cells(curve))
        add_caption_line(table, COST_QUALITY_CAPTION)
        tables.append(table)
    pairs = {name: each.pairs for name, each in report.details.items() if each.pairs}
    if pairs:
        tables.append(pairs_table("Which queries need the stronger model", pairs))
    return tables + [_reliability_table(name, each) for name, each in report.details.items()]


def cost_quality_cells(curve: CostQuality | None) -> tuple[str, str]:
    """Write AIQ, and the cost at which the quality of Best Single is reached; empty if there is no curve."""
    if curve is None:
        return "", ""
    share = curve.cost_at_best_single
    return f"{curve.aiq:.3f}", "not reached" if share is None else f"{share:.0%}"


def pairs_table(title: str, pairs: Mapping[str, Mapping[str, PairMeasures]]) -> Table:
    """Lay out RouteLLM's measures.

    Args:
        title: Of the table.
        pairs: By router, the measures by task family.

    Returns:
        The table, one row a router.
    """
    families = list(dict.fromkeys(family for measures in pairs.values() for family in measures))
    table = make_table(
        title,
        text_columns=("head",),
        number_columns=tuple(f"{family}:\nAPGR  CPT50  CPT80" for family in families),
    )
    for name, measures in pairs.items():
        found = (measures.get(family) for family in families)
        cells = (f"{p.apgr:.3f}  {p.cpt_50:.0%}  {p.cpt_80:.0%}" if p else "" for p in found)
        table.add_row(Text(name), *cells)
    add_caption_line(
        table,
        "APGR: share of the gap between the models recovered, over all shares of calls to the stronger one; "
        "random routing has 0.5. CPT50: share of such calls that recovers half of the gap.",
    )
    return table


def _drift_table(drift: Drift) -> Table:
    table = make_table(
        "Since training",
        text_columns=("router", "policy"),
        number_columns=("validated\nreward gain", "reward gain here", "verdict"),
    )
    for each in drift.routers:
        validated = "unknown" if each.validated_gain is None else f"{each.validated_gain:+.3f}"
        table.add_row(*map(Text, (each.router, each.policy, validated, str(each.gain), each.advice)))
    for line in drift.lines:
        add_caption_line(table, line)
    return table


def _reliability_table(name: str, details: RouterDetails) -> Table:
    table = make_table(
        f"{name}: does it get what it expects?",
        text_columns=(),
        number_columns=("predicted\nperformance", "observed", "95% interval", "logged\nanswers"),
    )
    for each in details.reliability:
        interval = f"[{each.observed.low:.3f}, {each.observed.high:.3f}]"
        cells = (f"{each.predicted:.3f}", f"{each.observed.mean:.3f}", interval, str(each.n))
        table.add_row(*map(Text, cells))
    error = calibration_error(details.reliability)
    add_caption_line(table, f"Calibration error {error:.3f}, squared error {details.mse:.4f}.")
    if details.intervals:
        shares = ", ".join(f"{each.covered:.0%} of {each.level:.0%}" for each in details.intervals)
        add_caption_line(
            table,
            f"Stated intervals that held, of {details.intervals[0].n_groups} groups of answers: {shares} "
            "intervals. Fewer than stated: it is surer than it should be.",
        )
    return table
