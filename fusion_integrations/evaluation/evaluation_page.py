"""Show an evaluation of saved routers as one HTML file, built of the parts that benchmark pages have."""

from __future__ import annotations

from collections.abc import Sequence

from fusion_integrations.evaluation.baselines import BEST_PER_TASK, BEST_SINGLE
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
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
from fusion_integrations.evaluation.report import reward_text, verdict_lines
from fusion_integrations.evaluation.table_parts import cost_text

__all__ = ["render_evaluation_page"]


def render_evaluation_page(report: EvaluationReport) -> str:
    """Make one self-contained page of an evaluation; the texts of its queries are in it.

    Args:
        report: The evaluation.

    Returns:
        The HTML document, one part a policy and one of what no policy changes; it needs no other file and no
        network.

    Raises:
        MissingDependencyError: If Plotly is not installed.
    """
    parts = [_part(report, policy) for policy in report.policies]
    return render_parts("Router evaluation", [*parts, _predictions(report)])


def _predictions(report: EvaluationReport) -> PagePart:
    errors = {name: calibration_error(router.reliability) for name, router in report.details.items()}
    policy = next(iter(report.policies))
    return PagePart(
        title="Predictions and single queries",
        summary="calibration error " + ", ".join(f"{name} {error:.3f}" for name, error in errors.items()),
        content=joined(
            head_choice(list(errors), [-error for error in errors.values()]),
            element("h3", "Do the predictions hold?"),
            calibration_block(report.details),
            pairs_block(report.details),
            element("h3", "Single queries"),
            sentences(
                [
                    f"What routers chose under the policy {policy}.",
                    "Queries where a choice changes most come first, then others at random.",
                ]
            ),
            query_explorer(report.queries, candidates=report.candidates),
        ),
    )


def _part(report: EvaluationReport, policy: str) -> PagePart:
    rows = [row for row in report.rows if row.policy == policy]
    routers = [row for row in rows if row.is_router]
    best = max(routers, key=lambda row: row.reward)
    names = [row.strategy for row in routers]
    compared = [row for row in rows if row.is_router or row.strategy == BEST_PER_TASK]
    return PagePart(
        title=policy,
        summary=f"best: {best.strategy}, {best.reward_gain} in reward over {BEST_SINGLE}, "
        f"{report.verdict(best)}",
        content=joined(
            sentences(_facts(report, policy)),
            head_choice(names, [row.reward for row in routers]),
            element("h3", "Is routing worth it?"),
            _strategies(report, rows),
            gain_block(
                {row.strategy: row.reward_gain for row in compared},
                what="reward",
                level=report.level,
                heads=names,
            ),
            element("h3", "What performance costs"),
            _costs(report, rows, names),
            element("h3", "Performance by task"),
            _tasks(report, rows, names),
            element("h3", "Which LLMs answer"),
            table(
                "Share of queries by LLM",
                ("LLM", *(row.strategy for row in rows)),
                [
                    (name, *(f"{row.candidate_shares.get(name, 0.0):.0%}" for row in rows))
                    for name in report.candidates
                ],
            ),
        ),
    )


def _facts(report: EvaluationReport, policy: str) -> list[str]:
    groups = (
        f"{report.n_queries} held-out queries in {report.n_groups} groups (sessions, else near-duplicates)"
    )
    return [
        f"{groups}, {len(report.candidates)} LLMs, {len(report.tasks)} tasks.",
        f"Reward is {reward_text(report, policy)}.",
        *verdict_lines(report, policy=policy),
        *(f"Warning: {warning}" for warning in report.warnings),
    ]


def _strategies(report: EvaluationReport, rows: Sequence[EvaluationRow]) -> Html:
    others = [row.strategy != BEST_SINGLE for row in rows]
    columns: dict[str, list[str]] = {
        "Strategy": [row.strategy for row in rows],
        "Performance": [f"{row.performance:.3f}" for row in rows],
        "Reward": [f"{row.reward:.3f}" for row in rows],
        "Gain in reward": [str(row.reward_gain) for row in rows],
        "Gain in performance": [str(row.performance_gain) for row in rows],
        "Verdict": [verdict_text(report.verdict(row)) for row in rows],
        "USD per 1000 calls": [cost_text(row.cost_usd) for row in rows],
        "Left the default": ["" if row.switch_share is None else f"{row.switch_share:.1%}" for row in rows],
    }
    for name in ("Gain in reward", "Gain in performance", "Verdict"):
        columns[name] = [text if it else "" for text, it in zip(columns[name], others, strict=True)]
    return column_table("Strategies", columns)


def _costs(report: EvaluationReport, rows: Sequence[EvaluationRow], routers: Sequence[str]) -> Html:
    points = {row.strategy: (row.cost_usd, row.performance) for row in rows if row.cost_usd is not None}
    if not points:
        return element("p", "The logs have no costs.")
    return cost_block(
        {
            "LLMs": {
                name: (cost, performance)
                for name, (performance, cost) in report.candidate_means.items()
                if cost is not None
            },
            "Baselines": {name: point for name, point in points.items() if name not in routers},
            "Routers": {name: point for name, point in points.items() if name in routers},
        },
        curves={name: each.cost_quality.points for name, each in report.details.items() if each.cost_quality},
        heads=routers,
        caption="Up and to the left is better. The small points of a router are its choices at different "
        "cost weights, its line is the hull over them: mixing two choices by chance reaches any point of it.",
    )


def _tasks(report: EvaluationReport, rows: Sequence[EvaluationRow], routers: Sequence[str]) -> Html:
    if not report.tasks:
        return element("p", "The logs name no tasks.")
    return task_block(
        {row.strategy: row.per_task for row in rows},
        {},
        tasks=report.tasks,
        heads=routers,
        caption="Mean performance on each task of the baselines and the routers.",
    )
