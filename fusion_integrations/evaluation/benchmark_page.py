"""Show benchmarks as one HTML file for a browser: tables, plots and single queries, without any network."""

from __future__ import annotations

from collections.abc import Sequence

from fusion_integrations.evaluation.baselines import BEST_PER_TASK, BEST_SINGLE
from fusion_integrations.evaluation.benchmark_report import BenchmarkReport, BenchmarkRow, HeadDetails
from fusion_integrations.evaluation.page_blocks import (
    calibration_block,
    cost_block,
    gain_block,
    pairs_block,
    task_block,
    verdict_text,
)
from fusion_integrations.evaluation.page_explorer import query_explorer
from fusion_integrations.evaluation.page_html import Html, column_table, element, joined, table
from fusion_integrations.evaluation.page_layout import PagePart, head_choice, render_parts, sentences
from fusion_integrations.evaluation.reliability import calibration_error
from fusion_integrations.evaluation.table_parts import cost_text

__all__ = ["render_page"]

_N_BEST_CANDIDATES = 2  # beside Best Single, which is one of them


def render_page(reports: Sequence[BenchmarkReport], *, remarks: Sequence[str] = ()) -> str:
    """Make one self-contained page of benchmarks; the texts of its queries are in it.

    Args:
        reports: One a log.
        remarks: What is to be said beside, such as which logs could not be measured on.

    Returns:
        The HTML document; it needs no other file and no network.

    Raises:
        MissingDependencyError: If Plotly is not installed.
    """
    return render_parts("Router benchmark", [_part(report) for report in reports], remarks=remarks)


def _part(report: BenchmarkReport) -> PagePart:
    heads = _heads(report)
    best = max(heads, key=lambda row: row.first.performance)
    return PagePart(
        title=report.name,
        summary=f"best: {best.strategy}, performance {best.first.performance:.3f}, "
        f"{best.first.gain} over {BEST_SINGLE}, {report.verdict(best)}",
        content=joined(
            sentences(_facts(report)),
            head_choice([row.strategy for row in heads], [row.first.performance for row in heads]),
            element("h3", "Is routing worth it?"),
            _strategies(report),
            element("h3", "What performance costs"),
            _costs(report),
            element("h3", "Performance by task"),
            _tasks(report),
            element("h3", "Do the predictions hold?"),
            _calibration(report),
            pairs_block(_details(report)),
            element("h3", "Which LLMs answer"),
            _candidates(report),
            element("h3", "Single queries"),
            _queries(report),
        ),
    )


def _heads(report: BenchmarkReport) -> list[BenchmarkRow]:
    return [row for row in report.rows if row.head is not None]


def _details(report: BenchmarkReport) -> dict[str, HeadDetails]:
    return {row.strategy: row.head for row in report.rows if row.head is not None}


def _facts(report: BenchmarkReport) -> list[str]:
    outcomes = (
        "Hardly any query has an answer of every LLM: outcomes that were never logged are doubly robust "
        "estimates."
        if report.is_estimated
        else "Every outcome is looked up: each measured query has an answer of every LLM."
    )
    left_out = f" {report.n_left_out} queries are left out." if report.n_left_out else ""
    groups = f"{report.n_queries} queries in {report.n_groups} groups (sessions, else near-duplicates)"
    learned = f"Routers learned from {report.answers} of the training answers."
    intervals = (
        f"Intervals cover {report.level:.0%}, are paired by query and resample whole groups: "
        "they tell how far other queries could move a result, not another training. Of many "
        "intervals some exclude 0 by chance."
    )
    baselines = (
        f"{BEST_SINGLE} is the best LLM on the training queries, {BEST_PER_TASK} the best one for the "
        "true task, Oracle the best answer to each query, which is partly luck."
    )
    return [
        f"{groups}, {len(report.candidates)} LLMs, {len(report.tasks)} tasks.{left_out}",
        f"How queries were kept apart: {report.split}. {learned}",
        *([] if report.label == "performance" else [f"What counts as performance is {report.label}."]),
        outcomes,
        *([report.cost_remark] if report.cost_remark else []),
        intervals,
        baselines,
    ]


def _strategies(report: BenchmarkReport) -> Html:
    columns: dict[str, list[str]] = {
        "Strategy": [row.strategy for row in report.rows],
        "Performance": [f"{row.first.performance:.3f}" for row in report.rows],
        f"Gain over {BEST_SINGLE}": [
            "reference" if row.strategy == BEST_SINGLE else str(row.first.gain) for row in report.rows
        ],
        "Verdict": [
            "" if row.strategy == BEST_SINGLE else verdict_text(report.verdict(row)) for row in report.rows
        ],
        "Left the default": [
            "" if row.head is None else f"{row.head.switch_share:.0%}" for row in report.rows
        ],
    }
    if _has_costs(report):
        columns["USD per 1000 calls"] = [cost_text(row.first.cost_usd) for row in report.rows]
    compared = [row for row in report.rows if row.head is not None or row.strategy == BEST_PER_TASK]
    return joined(
        column_table("Strategies", columns),
        gain_block(
            {row.strategy: row.first.gain for row in compared},
            what="performance",
            level=report.level,
            heads=list(_details(report)),
        ),
    )


def _has_costs(report: BenchmarkReport) -> bool:
    return any(cost is not None for cost in report.candidate_costs.values())


def _costs(report: BenchmarkReport) -> Html:
    candidates = {
        name: (cost, report.candidates[name])
        for name, cost in report.candidate_costs.items()
        if cost is not None
    }
    if not _has_costs(report):
        return element("p", "The log has no costs.")
    baselines = {
        row.strategy: (row.first.cost_usd, row.first.performance)
        for row in report.rows
        if row.head is None and row.first.cost_usd is not None
    }
    curves = {name: head.cost_quality.points for name, head in _details(report).items() if head.cost_quality}
    return joined(
        cost_block(
            {"LLMs": candidates, "Baselines": baselines},
            curves=curves,
            heads=list(_details(report)),
            caption="Up and to the left is better. The points of a head are its choices at different cost "
            "weights, its line is the hull over them: mixing two choices by chance reaches any point of it.",
        ),
        _scenarios(report) if len(report.policies) > 1 else Html(),
    )


def _scenarios(report: BenchmarkReport) -> Html:
    weighing = list(report.policies)[1:]
    rows = []
    for row in report.rows:
        curve = row.head.cost_quality if row.head else None
        share = None if curve is None else curve.cost_at_best_single
        cells = [f"{row.scenarios[name].reward:.3f} ({row.scenarios[name].gain})" for name in weighing]
        aiq = "" if curve is None else f"{curve.aiq:.3f}"
        at_best = "" if curve is None else "not reached" if share is None else f"{share:.0%}"
        rows.append((row.strategy, *cells, aiq, at_best))
    weights = ", ".join(f"{name} {report.policies[name]['cost_weight']:g}" for name in weighing)
    return joined(
        table(
            "Where cost counts",
            (
                "Strategy",
                *(f"{name}: reward (gain over {BEST_SINGLE})" for name in weighing),
                "AIQ",
                f"Cost at {BEST_SINGLE}",
            ),
            rows,
        ),
        sentences(
            [
                f"Cost weights: {weights}.",
                "AIQ is the mean performance over budgets from the cheapest to the dearest LLM.",
                f"The last column: cost, relative to {BEST_SINGLE}, at which a head performs as well.",
            ]
        ),
    )


def _tasks(report: BenchmarkReport) -> Html:
    if not report.tasks:
        return element("p", "The log names no tasks.")
    ranked = sorted(report.candidates, key=lambda name: -report.candidates[name])
    best, others = ranked[:_N_BEST_CANDIDATES], ranked[_N_BEST_CANDIDATES:]
    strategies = {row.strategy: row.per_task for row in report.rows}
    # An LLM may have the name of a strategy.
    labels = {name: f"{name} (LLM)" if name in strategies else name for name in ranked}
    return task_block(
        strategies | {labels[name]: report.candidate_tasks[name] for name in best},
        {labels[name]: report.candidate_tasks[name] for name in others},
        tasks=report.tasks,
        heads=list(_details(report)),
        caption="Mean performance on each task: the baselines, the heads, and the best LLMs, "
        f"{' and '.join(best)}.",
    )


def _calibration(report: BenchmarkReport) -> Html:
    details = _details(report)
    return joined(
        calibration_block(details),
        table(
            "The heads behind the routers",
            (
                "Head",
                "Gain without margin",
                "Squared error",
                "Calibration error",
                "Members",
                "Seconds to train",
            ),
            [
                (
                    head.title(name),
                    str(head.unbounded.gain),
                    f"{head.mse:.4f}",
                    f"{calibration_error(head.reliability):.3f}",
                    str(head.n_members),
                    f"{head.train_seconds:.0f}",
                )
                for name, head in details.items()
            ],
        ),
        sentences(
            [
                "Without margin the best prediction is always taken, however unsure.",
                "Members: how many learners of a head vote; heads that are slow to train have fewer.",
            ]
        ),
    )


def _candidates(report: BenchmarkReport) -> Html:
    ranked = sorted(report.candidates, key=lambda name: -report.candidates[name])
    columns: dict[str, list[str]] = {
        "LLM": ranked,
        "Performance": [f"{report.candidates[name]:.3f}" for name in ranked],
    }
    if _has_costs(report):
        columns["USD per 1000 calls"] = [cost_text(report.candidate_costs[name]) for name in ranked]
    for row in report.rows:
        columns[row.strategy] = [f"{row.candidate_shares.get(name, 0.0):.0%}" for name in ranked]
    return joined(
        column_table("LLMs, and the share of queries that each strategy sends to them", columns),
        sentences(["Shares are those under the first policy, where performance alone counts."]),
    )


def _queries(report: BenchmarkReport) -> Html:
    if not report.queries:
        return element("p", "The report holds no queries.")
    return joined(
        sentences(["Queries where the choice of a head changes most come first, then others at random."]),
        query_explorer(report.queries, candidates=list(report.candidates)),
    )
