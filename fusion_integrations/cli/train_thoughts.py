"""`fusion train thoughts`: let an LLM write from logs how queries like the logged ones are solved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusion_integrations.cli.choices import CriterionName, EmbedderName
from fusion_integrations.cli.progress import progress_bars
from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal
from fusion_integrations.errors import UnknownCandidateError

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.protocols import ChatClient

__all__ = ["train_thoughts"]


_Logs = Annotated[
    str,
    typer.Argument(
        help="Log store (file or URL), exported .parquet file, or the word demo for the answers that the "
        "demo's own templates were written from."
    ),
]
_Candidates = Annotated[
    str, typer.Option(help="Candidates file (.yaml) that names the summariser, or the word demo.")
]
_Summariser = Annotated[
    str, typer.Option(metavar="MODEL", help="The model of the candidates file that writes the templates.")
]


def train_thoughts(
    logs: _Logs,
    *,
    out: Annotated[Path, typer.Option(help="Folder to save the template library to.")],
    candidates: _Candidates,
    summariser: _Summariser,
    criterion: Annotated[CriterionName, typer.Option(help="What makes an answer good.")] = "hybrid",
    top_k: Annotated[int, typer.Option(help="Most answers to write a template from.")] = 3,
    min_score: Annotated[float, typer.Option(help="Score from 0 to 1 from which a query is solved.")] = 0.5,
    attempts: Annotated[int, typer.Option(help="How often to try before a query is dropped.")] = 3,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a template.")] = 160,
    batch_size: Annotated[int, typer.Option(help="Queries handed to the summariser at once.")] = 32,
    embedder: Annotated[EmbedderName, typer.Option(help="What turns queries into vectors.")] = "minilm",
    seed: Annotated[int, typer.Option(min=0, help="Seed of further attempts.")] = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write thought templates and save them.

    For every solved query the summariser writes how queries of its kind are solved. A template that gives
    its own query's answer away, or is too short or long, is tried again and then dropped.

    The library holds the text of the logged queries: share it like the logs.
    """
    with terminal(as_json=as_json, debug=debug, if_interrupted="Interrupted. Nothing was saved.") as place:
        from fusion_integrations.artifacts import read_manifest
        from fusion_integrations.cli.inputs import read_logs
        from fusion_integrations.cli.outputs import check_out
        from fusion_integrations.embedders import load_embedder
        from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments
        from fusion_integrations.thought_level.template_trainer import ThoughtTemplateTrainer

        check_out(out, kind="template_library")
        arguments = ThoughtTemplateTrainingArguments(
            criterion=criterion,
            top_k=top_k,
            min_score=min_score,
            n_attempts=attempts,
            max_tokens=max_tokens,
            batch_size=batch_size,
            seed=seed,
        )
        frame = read_logs(logs, demo_part="teaching")
        with place.progress.status("Loading"):
            trainer = ThoughtTemplateTrainer(
                arguments, summariser=_summariser(candidates, summariser), embedder=load_embedder(embedder)
            )
        with progress_bars(place.progress) as show:
            library = trainer.train(frame, on_progress=lambda n_done, n: show("solved queries", n_done, n))
        library.save_pretrained(out)
        digest = read_manifest(out).digest
        document = {
            "saved_to": str(out),
            "digest": digest,
            "fingerprint": library.fingerprint,
            "arguments": library.arguments,
            "metrics": library.metrics,
        }
        counts = library.metrics
        place.show(
            document,
            f"Kept {counts['n_kept']} templates for {counts['n_solved']} solved of {counts['n_queries']} "
            f"logged queries; {counts['n_kept_at_once']} of them at the first attempt.",
            *([_rejections_table(counts)] if counts["n_attempts_rejected"] else []),
            f"Saved to '{out}', digest {digest}.\nTo read them: fusion thoughts list '{out}'",
        )


def _summariser(candidates: str, model: str) -> ChatClient:
    from fusion_integrations.cli.inputs import read_candidates

    clients = read_candidates(candidates).clients
    if model not in clients:
        known = ", ".join(f"'{name}'" for name in clients)
        message = f"--summariser '{model}' is no model of --candidates {candidates}. It has: {known}."
        raise UnknownCandidateError(message)
    return clients[model]


def _rejections_table(metrics: Mapping[str, Any]) -> Table:
    table = plain_table(
        "What was wrong with the others",
        text_columns=("reason",),
        number_columns=("attempts rejected", "queries dropped after their last attempt"),
    )
    for reason, n_attempts in metrics["n_attempts_rejected"].items():
        words = {"leaked": "gives the answer away"}.get(reason, reason.replace("_", " "))
        table.add_row(words, str(n_attempts), str(metrics["n_dropped"].get(reason, 0)))
    return table
