"""Plots with their words and numbers that pages of benchmarks and of evaluations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusion_integrations.evaluation.baselines import BEST_SINGLE
from fusion_integrations.evaluation.cost_quality import quality_hull
from fusion_integrations.evaluation.evaluation_report import Verdict
from fusion_integrations.evaluation.page_figures import (
    calibration_figure,
    cost_figure,
    gain_figure,
    task_figure,
)
from fusion_integrations.evaluation.page_html import Html, element, joined, table
from fusion_integrations.evaluation.page_layout import figure_block, sentences
from fusion_integrations.evaluation.reliability import calibration_error
from fusion_integrations.evaluation.router_details import RouterDetails
from fusion_integrations.evaluation.table_parts import cost_text
from fusion_integrations.statistics import Interval

__all__ = [
    "calibration_block",
    "cost_block",
    "gain_block",
    "pairs_block",
    "task_block",
    "verdict_text",
]

Point = tuple[float, float]


def verdict_text(verdict: Verdict) -> Html:
    """Write a verdict; what is sure stands out."""
    return element("span", verdict, class_=verdict if verdict in ("better", "worse") else None)


def gain_block(gains: Mapping[str, Interval], *, what: str, level: float, heads: Sequence[str]) -> Html:
    """Show gains over Best Single.

    Args:
        gains: Gain by strategy.
        what: What is gained.
        level: Coverage of the intervals.
        heads: All heads, for their colours.

    Returns:
        The plot.
    """
    words = "; ".join(f"{name} {gain}" for name, gain in gains.items())
    return figure_block(
        f"Gain in {what} over {BEST_SINGLE} with {level:.0%} intervals. An interval right of 0 is a gain.",
        gain_figure(gains, title=f"Gain in {what} over {BEST_SINGLE}", heads=heads),
        label=f"Gains in {what} over {BEST_SINGLE}: {words}.",
        numbers=table(
            "Gains",
            ("Strategy", "Gain", "Low", "High"),
            [
                (name, f"{gain.mean:+.4f}", f"{gain.low:+.4f}", f"{gain.high:+.4f}")
                for name, gain in gains.items()
            ],
        ),
    )


def cost_block(
    groups: Mapping[str, Mapping[str, Point]],
    *,
    curves: Mapping[str, Sequence[Point]],
    heads: Sequence[str],
    caption: str,
) -> Html:
    """Show performance against cost.

    Args:
        groups: Mean USD a call and mean performance by name, by what they are.
        curves: What each head offers at different cost weights.
        heads: All heads, for their colours.
        caption: How to read it.

    Returns:
        The plot.
    """
    points = [(name, *point) for group in groups.values() for name, point in group.items()]
    hulls = [
        (name, cost, performance)
        for name, curve in curves.items()
        for cost, performance in quality_hull(curve).tolist()
    ]
    tops = {name: max(curve, key=lambda point: (point[1], -point[0])) for name, curve in curves.items()}
    words = [
        f"{name}: performance {performance:.3f} for {cost_text(cost)} USD per 1000 calls"
        for name, cost, performance in [*points, *((name, *point) for name, point in tops.items())]
    ]
    return figure_block(
        caption,
        cost_figure(groups, curves=curves, heads=heads),
        label=f"Performance against cost. {'; '.join(words)}.",
        numbers=table(
            "Cost and performance",
            ("Strategy", "USD per 1000 calls", "Performance"),
            [(name, cost_text(cost), f"{performance:.3f}") for name, cost, performance in [*points, *hulls]],
        ),
    )


def task_block(
    shown: Mapping[str, Mapping[str, float]],
    others: Mapping[str, Mapping[str, float]],
    *,
    tasks: Mapping[str, int],
    heads: Sequence[str],
    caption: str,
) -> Html:
    """Show performance by task.

    Args:
        shown: Performance by strategy and task, Best Single and the heads among them.
        others: The same of what only the table shows.
        tasks: Number of queries by task; one or more.
        heads: All heads.
        caption: How to read it.

    Returns:
        The plot.
    """
    gains = [(max(shown[head][task] for head in heads) - shown[BEST_SINGLE][task], task) for task in tasks]
    (least, worst), (most, best) = min(gains), max(gains)
    columns = [*shown.items(), *others.items()]
    return figure_block(
        caption,
        task_figure(shown, tasks=list(tasks), heads=heads),
        label=f"Performance on {len(tasks)} tasks. The best router stands highest above {BEST_SINGLE} on "
        f"{best} ({most:+.3f}) and lowest on {worst} ({least:+.3f}).",
        numbers=table(
            "Performance by task",
            ("Task", "Queries", *(name for name, _ in columns)),
            [
                (task, str(n_queries), *(f"{values[task]:.3f}" for _, values in columns))
                for task, n_queries in tasks.items()
            ],
        ),
    )


def calibration_block(details: Mapping[str, RouterDetails]) -> Html:
    """Show whether predictions mean what they say.

    Args:
        details: What is known of each head.

    Returns:
        The plot.
    """
    bins = [
        (
            name,
            f"{each.predicted:.3f}",
            f"{each.observed.mean:.3f}",
            f"{each.observed.low:.3f}",
            f"{each.observed.high:.3f}",
            str(each.n),
        )
        for name, head in details.items()
        for each in head.reliability
    ]
    words = "; ".join(f"{name} {calibration_error(head.reliability):.3f}" for name, head in details.items())
    return figure_block(
        "Predictions of performance in ten bins of equally many; on the dashed line they mean what they "
        "say. Intervals cover 95% and resample queries.",
        calibration_figure({name: head.reliability for name, head in details.items()}, heads=list(details)),
        label=f"Predicted against observed performance. Expected calibration error: {words}.",
        numbers=table("Calibration", ("Head", "Predicted", "Observed", "Low", "High", "Predictions"), bins),
    )


def pairs_block(details: Mapping[str, RouterDetails]) -> Html:
    """Show RouteLLM's measures.

    Args:
        details: What is known of each head.

    Returns:
        The table with its heading; nothing unless there are two candidates.
    """
    rows = [
        (name, family, pair.strong, f"{pair.apgr:.3f}", f"{pair.cpt_50:.0%}", f"{pair.cpt_80:.0%}")
        for name, head in details.items()
        for family, pair in head.pairs.items()
    ]
    if not rows:
        return Html()
    return joined(
        element("h3", "Which queries need the stronger model"),
        table(
            "Model pair",
            ("Head", "Tasks", "Stronger model", "APGR", "CPT50", "CPT80"),
            rows,
            n_text_columns=3,
        ),
        sentences(
            [
                "APGR: share of the gap between both recovered, over all shares of calls.",
                "Random routing has an APGR of 0.5.",
                "CPT50 and CPT80: share of calls to the stronger one that recovers 50% and 80% of the gap.",
            ]
        ),
    )
