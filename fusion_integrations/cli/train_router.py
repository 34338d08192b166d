"""`fusion train router`: learn from logs which candidate to expect what of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusion_integrations.cli.choices import EmbedderName, HeadName, LabelOption
from fusion_integrations.cli.terminal import (
    DebugOption,
    JsonOption,
    noise_text,
    plain_table,
    terminal,
    usd_per_1000,
)

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from fusion_integrations.evaluation import EvaluationReport
    from fusion_integrations.query_level.labels import AnyLabel
    from fusion_integrations.query_level.router_model import RouterModel
    from fusion_integrations.types import Candidate

__all__ = ["train_router"]


_Logs = Annotated[
    str,
    typer.Argument(
        help="Log store (file or URL), exported .parquet file, or the word demo for the training part of the "
        "demo's log."
    ),
]
_Candidates = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Learn what the candidates of this file (or demo, or demo-levels) did, at their revisions.",
        show_default="all in the logs",
    ),
]
_CandidateIds = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Choose among these only; repeat for each.", show_default="all"),
]
_Holdout = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Leave out this share of the queries and evaluate the router on them."
    ),
]


def train_router(
    logs: _Logs,
    *,
    out: Annotated[Path, typer.Option(help="Folder to save the router to.")],
    head: Annotated[HeadName, typer.Option(help="What learns to predict the scores.")] = HeadName.STACK,
    label: LabelOption = "performance",
    embedder: Annotated[EmbedderName, typer.Option(help="What turns queries into vectors.")] = "minilm",
    candidates: _Candidates = None,
    candidate: _CandidateIds = None,
    holdout: _Holdout = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a router and save it.

    With --holdout near-duplicate queries and sessions stay on one side, the saved router has not seen the
    held-out ones, and nothing is saved if they cannot be evaluated on.
    """
    with terminal(as_json=as_json, debug=debug) as place, place.progress.status("Loading") as status:
        from fusion_integrations.cli.inputs import read_logs
        from fusion_integrations.cli.outputs import check_out
        from fusion_integrations.embedders import load_embedder
        from fusion_integrations.logs.splits import split_by_query
        from fusion_integrations.query_level.heads import named_head
        from fusion_integrations.query_level.labels import parse_label
        from fusion_integrations.query_level.router_config import RouterTrainingArguments
        from fusion_integrations.query_level.router_trainer import RouterTrainer

        check_out(out, kind="router")
        frame = read_logs(logs, demo_part="train")
        wanted = parse_label(label)
        chosen = _choose_candidates(frame, candidates, candidate, label=wanted)
        arguments = RouterTrainingArguments(head=named_head(head), label=wanted, seed=seed)
        training, held_out = (
            (frame, None) if holdout is None else split_by_query(frame, fraction=holdout, seed=seed)
        )
        status.update("Training")
        router = RouterTrainer(arguments, embedder=load_embedder(embedder)).train(training, candidates=chosen)
        report = None
        if held_out is not None:
            status.update("Evaluating")
            report = _evaluate(router, name=head, logs=held_out, train_logs=training, label=wanted)
        router = router.save_pretrained(out)
        document = {
            "saved_to": str(out),
            "digest": router.basis.artifact,
            "candidates": [each.id for each in router.candidates],
            "arguments": dict(router.arguments),
            "metrics": dict(router.metrics),
            "evaluation": None if report is None else report.to_json(),
        }
        texts: list[Table | str] = [_candidates_table(router), _margins_table(router.metrics)]
        if router.metrics["head_trials"]:
            texts.append(_trials_table(router.metrics["head_trials"]))
        texts += _remarks(router.metrics)
        if report is not None:
            from fusion_integrations.evaluation import render_table

            texts += render_table(report)
        place.show(document, *texts, f"Saved to '{out}', digest {router.basis.artifact}.")


def _remarks(metrics: Mapping[str, Any]) -> list[str]:
    """Say what training found out about its logs: how much is luck, and what they cannot tell."""
    noise = [noise_text(metrics["label_noise"])] if metrics["label_noise"] else []
    return noise + [f"Warning: {warning}" for warning in metrics["overlap"]["warnings"]]


def _margins_table(metrics: Mapping[str, Any]) -> Table:
    """Lay out the margins that training validated, from a router's metrics."""
    table = plain_table(
        "How sure it must be to leave the best single candidate, and what that gained in validation",
        text_columns=("cost weight",),
        number_columns=("standard errors", "reward gain", "risk of no gain", "queries that leave"),
    )
    for margin in metrics["validated_margins"]:
        z = margin["margin_z"]
        table.add_row(
            f"{margin['cost_weight']:g}",
            "never leaves" if z is None else f"{z:g}",
            f"{margin['gain']:+.3f}",
            f"{margin['risk']:.1%}",
            f"{margin['switch_share']:.1%}",
        )
    return table


def _trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out what each tried head reached, from a router's metrics."""
    from fusion_integrations.statistics import Interval

    table = plain_table(
        "Heads in cross-validation; the first is kept",
        text_columns=("head",),
        number_columns=("performance", "gain over the best single candidate", "squared error"),
    )
    for trial in trials:
        gain = Interval(**trial["gain"])
        table.add_row(trial["head"], f"{trial['performance']:.3f}", str(gain), f"{trial['mse']:.4f}")
    return table


def _choose_candidates(
    frame: pl.DataFrame, source: str | None, ids: Sequence[str] | None, *, label: AnyLabel
) -> Sequence[Candidate] | None:
    """Return the wanted candidates of a file or of the logs; None means all in the logs."""
    from fusion_integrations.cli.inputs import read_candidates
    from fusion_integrations.query_level.router_dataset import RouterDataset
    from fusion_integrations.types import find_candidate

    if source is None and ids is None:
        return None
    if source is None:
        known = RouterDataset.from_logs(frame, label=label).candidates
    else:
        known = read_candidates(source).candidates
    return known if ids is None else [find_candidate(known, each) for each in dict.fromkeys(ids)]


def _evaluate(
    router: RouterModel, *, name: str, logs: pl.DataFrame, train_logs: pl.DataFrame, label: AnyLabel
) -> EvaluationReport:
    from fusion_integrations.cli.evaluate import usable_policies
    from fusion_integrations.evaluation import evaluate_routers

    return evaluate_routers(
        {name: router}, logs=logs, train_logs=train_logs, policies=usable_policies(router), label=label
    )


def _candidates_table(router: RouterModel) -> Table:
    table = plain_table(
        f"Trained on {router.metrics['n_queries']} queries",
        text_columns=("candidate",),
        number_columns=("answers", "mean performance", "USD per 1000 calls"),
    )
    costs = router.basis.average.logged_cost_usd[0]
    for each, cost in zip(router.candidates, costs, strict=True):
        table.add_row(
            each.id,
            str(router.metrics["n_answers"][each.id]),
            f"{router.metrics['mean_performance'][each.id]:.3f}",
            usd_per_1000(None if math.isnan(cost) else float(cost)),
        )
    return table
