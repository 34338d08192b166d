"""Plots of a page as Plotly figures: plain data, drawn by the script of the page.

Names of colours stand for the page's style variables, so that one figure serves light and dark screens. Names
from logs are escaped: Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion_integrations.evaluation.baselines import BEST_PER_TASK, BEST_SINGLE
from fusion_integrations.evaluation.cost_quality import quality_hull
from fusion_integrations.evaluation.page_labels import place_labels
from fusion_integrations.evaluation.reliability import ReliabilityBin
from fusion_integrations.statistics import Interval

__all__ = [
    "RADAR_TASKS",
    "Figure",
    "calibration_figure",
    "cost_figure",
    "gain_figure",
    "task_figure",
]

Figure = dict[str, Any]
Point = tuple[float, float]

RADAR_TASKS = range(3, 17)  # fewer make no shape, more cannot be told apart

_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "pentagon", "star", "hexagram")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_N_COLORS = 8
_LOG_RATIO = 20.0  # costs that differ more than this are shown on a logarithmic axis
_N_STEPS = 60
_GROUP_SYMBOLS, _GROUP_COLORS = ("circle", "diamond", "square"), ("--muted", "--text", "--text")
_LEAST_REACH = 0.02  # half width of the axis of gains


def gain_figure(gains: Mapping[str, Interval], *, title: str, heads: Sequence[str]) -> Figure:
    """Show gains over Best Single with their intervals.

    Args:
        gains: Gain by strategy, in the order to show.
        title: Of the axis.
        heads: All heads, for their colours.

    Returns:
        The figure.
    """
    names = [_label(name) for name in gains]
    # Zero in the middle: the eye should not take a wide plot of tiny gains for large ones.
    reach = 1.05 * max(_LEAST_REACH, *(abs(end) for gain in gains.values() for end in (gain.low, gain.high)))
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": names[number],
                "x": [gain.mean],
                "y": [names[number]],
                "error_x": _error(gain.low, gain.mean, gain.high, color=_color(strategy, heads)),
                "marker": {"size": 10} | _marker(strategy, heads),
                "hovertemplate": f"%{{y}}: %{{x:+.3f}} [{gain.low:+.3f}, {gain.high:+.3f}]<extra></extra>",
            }
            for number, (strategy, gain) in enumerate(gains.items())
        ],
        "layout": {
            "height": 110 + 34 * len(gains),
            "showlegend": False,
            "xaxis": _axis(title, zeroline=True, range=[-reach, reach]),
            "yaxis": _axis("", type="category", categoryarray=names[::-1], categoryorder="array"),
        },
    }


def cost_figure(
    groups: Mapping[str, Mapping[str, Point]], *, curves: Mapping[str, Sequence[Point]], heads: Sequence[str]
) -> Figure:
    """Show performance against cost: points in groups, and for each head its points and the hull over them.

    Args:
        groups: Mean USD a call and mean performance by name, by the name of the group; three at most.
        curves: What each head offers.
        heads: All heads, for their colours.

    Returns:
        The figure; costs are those of a thousand calls.
    """
    points = {(group, name): point for group, found in groups.items() for name, point in found.items()}
    offered = [point for curve in curves.values() for point in curve]
    costs = [cost for cost, _ in [*points.values(), *offered]]
    is_log = min(costs) > 0 and max(costs) > _LOG_RATIO * min(costs)
    best_first = sorted(points, key=lambda key: -points[key][1])
    places = place_labels(
        [(name, points[group, name]) for group, name in best_first], obstacles=offered, is_log=is_log
    )
    labels = dict(zip(best_first, places, strict=True))
    traces = [
        _points(group, found, [labels[group, name] for name in found], symbol=symbol, color=color)
        for (group, found), symbol, color in zip(
            groups.items(), _GROUP_SYMBOLS[: len(groups)], _GROUP_COLORS[: len(groups)], strict=True
        )
    ]
    for head, curve in curves.items():
        hull = _hull_line(curve, is_log=is_log)
        color, name = _color(head, heads), _label(head)
        traces += [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "strategy": head,
                "x": [1000 * cost for cost, _ in hull],
                "y": [performance for _, performance in hull],
                "line": {"color": color, "width": 2, "dash": _dash(head, heads)},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "showlegend": False,
                "strategy": head,
                "x": [1000 * cost for cost, _ in curve],
                "y": [performance for _, performance in curve],
                "marker": {"size": 6, "opacity": 0.7} | _marker(head, heads),
                "hovertemplate": _COST_HOVER.replace("%{customdata}", "%{fullData.name}"),
            },
        ]
    return {
        "data": traces,
        "layout": {
            "height": 480,
            "xaxis": _axis("USD per 1000 calls", type="log" if is_log else "linear"),
            "yaxis": _axis("Mean performance"),
        },
    }


def task_figure(
    per_task: Mapping[str, Mapping[str, float]], *, tasks: Sequence[str], heads: Sequence[str]
) -> Figure:
    """Show performance by task: a radar, or dots where the tasks are too many or too few for one.

    Args:
        per_task: Performance by strategy and task, in the order to show.
        tasks: The tasks.
        heads: All heads, for their colours.

    Returns:
        The figure.
    """
    labels = [_label(task) for task in tasks]
    everything = [values[task] for values in per_task.values() for task in tasks]
    low, high = min(0.0, *everything), max(1.0, *everything)  # estimates may leave [0, 1]
    is_radar = len(tasks) in RADAR_TASKS
    traces = []
    for strategy, values in per_task.items():
        reached = [values[task] for task in tasks]
        trace: Figure = {
            "name": _label(strategy),
            "strategy": strategy if strategy in heads else None,
            "marker": {"size": 7} | _marker(strategy, heads, others=list(per_task)),
        }
        if is_radar:
            line = {"color": trace["marker"]["color"], "width": 2, "dash": _dash(strategy, heads)}
            where = {"r": [*reached, reached[0]], "theta": [*labels, labels[0]], "line": line}
            hover = "%{fullData.name}, %{theta}: %{r:.3f}<extra></extra>"
            traces.append(
                trace | where | {"type": "scatterpolar", "mode": "lines+markers", "hovertemplate": hover}
            )
        else:
            hover = "%{fullData.name}, %{y}: %{x:.3f}<extra></extra>"
            where = {"x": reached, "y": labels}
            traces.append(trace | where | {"type": "scatter", "mode": "markers", "hovertemplate": hover})
    if is_radar:
        polar = {
            "radialaxis": _axis("", range=[low, high], angle=90, tickangle=90),
            "angularaxis": _axis("", type="category", direction="clockwise", rotation=90),
            "bgcolor": "--plain",
        }
        return {"data": traces, "layout": {"height": 560, "polar": polar}}
    return {
        "data": traces,
        "layout": {
            "height": 140 + 24 * len(tasks),
            "xaxis": _axis("Mean performance", range=[low - 0.02, high + 0.02]),
            "yaxis": _axis("", type="category", categoryarray=labels[::-1], categoryorder="array", dtick=1),
        },
    }


def calibration_figure(tables: Mapping[str, Sequence[ReliabilityBin]], *, heads: Sequence[str]) -> Figure:
    """Show predicted against observed performance with intervals, beside the diagonal of perfect predictions.

    Args:
        tables: Reliability table by head.
        heads: All heads, for their colours.

    Returns:
        The figure.
    """
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": "--muted", "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
        }
    ]
    for head, bins in tables.items():
        color = _color(head, heads)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": _label(head),
                "strategy": head,
                "x": [each.predicted for each in bins],
                "y": [each.observed.mean for each in bins],
                "text": [f"{each.n} predictions" for each in bins],
                "error_y": _errors([each.observed for each in bins], color=color),
                "line": {"color": color, "width": 1.5, "dash": _dash(head, heads)},
                "marker": {"size": 7} | _marker(head, heads),
                "hovertemplate": _CALIBRATION_HOVER,
            }
        )
    return {
        "data": traces,
        "layout": {
            "height": 480,
            "xaxis": _axis("Predicted performance", range=[-0.02, 1.02]),
            "yaxis": _axis("Observed performance", range=[-0.02, 1.02]),
        },
    }


_CALIBRATION_HOVER = "%{fullData.name}: predicted %{x:.3f}, observed %{y:.3f}, %{text}<extra></extra>"
_COST_HOVER = "%{customdata}: %{x:.4~g} USD per 1000 calls, performance %{y:.3f}<extra></extra>"


def _label(name: str) -> str:
    """Escape what Plotly reads as HTML; it knows no entity of quotation marks."""
    return html.escape(name, quote=False)


def _points(
    name: str, points: Mapping[str, Point], places: Sequence[str | None], *, symbol: str, color: str
) -> Figure:
    names = [_label(each) for each in points]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": [1000 * cost for cost, _ in points.values()],
        "y": [performance for _, performance in points.values()],
        "customdata": names,
        "text": ["" if place is None else each for each, place in zip(names, places, strict=True)],
        "textposition": [place or "top center" for place in places],
        "textfont": {"size": 11, "color": color},
        "marker": {"size": 9, "symbol": symbol, "color": color},
        "cliponaxis": False,
        "hovertemplate": _COST_HOVER,
    }


def _hull_line(curve: Sequence[Point], *, is_log: bool) -> list[Point]:
    """Follow the hull, straight in cost: on a logarithmic axis that is a bent line, made of many points."""
    hull = quality_hull(curve)
    costs = hull[:, 0]
    if is_log and len(hull) > 1:
        costs = np.unique(np.concatenate([costs, np.geomspace(costs[0], costs[-1], _N_STEPS)]))
    performances = np.interp(costs, hull[:, 0], hull[:, 1])
    return list(zip(costs.tolist(), performances.tolist(), strict=True))


def _error(low: float, mean: float, high: float, *, color: str) -> Figure:
    return _errors([Interval(mean=mean, low=low, high=high)], color=color)


def _errors(intervals: Sequence[Interval], *, color: str) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [each.high - each.mean for each in intervals],
        "arrayminus": [each.mean - each.low for each in intervals],
        "color": color,
        "thickness": 1.5,
    }


def _axis(title: str, **settings: Any) -> Figure:
    return {
        "title": {"text": title},
        "color": "--text",
        "gridcolor": "--line",
        "linecolor": "--line",
        "zerolinecolor": "--muted",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    } | settings


def _number(strategy: str, heads: Sequence[str]) -> int | None:
    return list(heads).index(strategy) if strategy in heads else None


def _color(strategy: str, heads: Sequence[str]) -> str:
    number = _number(strategy, heads)
    if number is None:
        return "--text" if strategy in (BEST_SINGLE, BEST_PER_TASK) else "--muted"
    return f"--c{number % _N_COLORS}"


def _dash(strategy: str, heads: Sequence[str]) -> str:
    number = _number(strategy, heads)
    if number is None:
        return {BEST_SINGLE: "solid", BEST_PER_TASK: "dash"}.get(strategy, "dot")
    return _DASHES[number % len(_DASHES)]


def _marker(strategy: str, heads: Sequence[str], *, others: Sequence[str] = ()) -> Figure:
    """Give each head a colour and symbol, and what is no head an open symbol of its own."""
    number, color = _number(strategy, heads), _color(strategy, heads)
    if number is not None:
        return {"color": color, "symbol": _SYMBOLS[number % len(_SYMBOLS)]}
    place = [each for each in others if each not in heads].index(strategy) if strategy in others else 0
    return {"color": color, "symbol": f"{_SYMBOLS[place % len(_SYMBOLS)]}-open"}
