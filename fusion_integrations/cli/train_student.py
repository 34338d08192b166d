"""`fusion train student`: teach a small base the best logged answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusion_integrations.cli.choices import GroundTruthName, TeachingCriterionName
from fusion_integrations.cli.progress import progress_bars
from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.table import Table

    from fusion_integrations.model_level.distillation_trainer import DistillationTrainer
    from fusion_integrations.model_level.student_model import StudentModel

__all__ = ["train_student"]

# Lines of progress where there is no terminal to draw a bar on.
_N_PROGRESS_LINES = 20

_Logs = Annotated[
    str,
    typer.Argument(
        help="Log store (file or URL), exported .parquet file, or the word demo for the answers that the "
        "demo's own student was taught."
    ),
]
_Base = Annotated[
    str, typer.Option(help="Folder of the base (safetensors), or the word demo for SmolLM2-135M-Instruct.")
]
_BaseName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the base.", show_default="name of its folder")
]
_Criterion = Annotated[
    TeachingCriterionName, typer.Option(help="Which answers teach; baseline teaches the references alone.")
]
_TopK = Annotated[int, typer.Option(help="Most different answers to one query.")]
_MinScore = Annotated[float, typer.Option(help="Score from 0 to 1 from which an answer teaches.")]
_GroundTruth = Annotated[GroundTruthName, typer.Option(help="Whether logged references teach too.")]
_Teacher = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Candidate that may teach; repeat for each.", show_default="all"),
]
_MaxPairs = Annotated[
    int | None, typer.Option(metavar="N", help="Most pairs of one task.", show_default="no limit")
]
_EvalLogs = Annotated[
    str | None,
    typer.Option(
        help="Logs of other queries to measure the loss on; demo for the demo's other training queries."
    ),
]


def train_student(
    logs: _Logs,
    *,
    out: Annotated[Path, typer.Option(help="Folder to save the student to.")],
    base: _Base,
    base_name: _BaseName = None,
    criterion: _Criterion = "performance",
    top_k: _TopK = 5,
    min_score: _MinScore = 0.5,
    ground_truth: _GroundTruth = "add",
    teacher: _Teacher = None,
    max_pairs_per_task: _MaxPairs = None,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA adapter.")] = 8,
    alpha: Annotated[float, typer.Option(help="The adapter counts alpha / rank times.")] = 16.0,
    epochs: Annotated[int, typer.Option(help="How often every pair is seen.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-4,
    batch_size: Annotated[int, typer.Option(help="Pairs a step.")] = 8,
    max_tokens: Annotated[int, typer.Option(help="Longer pairs of query and answer are left out.")] = 512,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    eval_logs: _EvalLogs = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a student and save it.

    Fine-tunes an adapter for a small base on the best logged answers. The base itself is not saved with it.
    """
    with terminal(as_json=as_json, debug=debug, if_interrupted="Interrupted. Nothing was saved.") as place:
        from fusion_integrations.cli.inputs import read_logs
        from fusion_integrations.cli.outputs import check_out
        from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
        from fusion_integrations.model_level.distillation_trainer import DistillationTrainer

        check_out(out, kind="student")
        arguments = DistillationTrainingArguments(
            criterion=criterion,
            top_k=top_k,
            min_score=min_score,
            ground_truth=ground_truth,
            teachers=None if teacher is None else tuple(teacher),
            max_pairs_per_task=max_pairs_per_task,
            lora_rank=rank,
            lora_alpha=alpha,
            n_epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_tokens=max_tokens,
            n_threads=threads,
            seed=seed,
        )
        frame = read_logs(logs, demo_part="teaching")
        eval_frame = None if eval_logs is None else read_logs(eval_logs, demo_part="routing")
        with place.progress.status("Loading"):
            folder, name = _find_base(base, base_name)
            trainer = DistillationTrainer(arguments, base=folder, base_name=name)
            chosen = _count_pairs(frame, trainer)
        student = _train(trainer, frame, eval_frame, console=place.progress).save_pretrained(out)
        document = _document(student, out, base=folder) | {"chosen_pairs": chosen}
        tables = [_pairs_table(each, chosen[each]) for each in chosen]
        place.show(document, *tables, "\n".join(_lines(document)))


def _find_base(base: str, name: str | None) -> tuple[Path, str]:
    """Return the folder of the base and the name to log it under."""
    from fusion_integrations.cli.inputs import DEMO
    from fusion_integrations.demo.models import SMOLLM2, smollm2_folder

    if base == DEMO:
        return smollm2_folder(), name or SMOLLM2
    return Path(base), name or Path(base).resolve().name


def _count_pairs(frame: pl.DataFrame, trainer: DistillationTrainer) -> dict[str, dict[str, int]]:
    """Count what training will choose, before what does not fit the base is left out."""
    from fusion_integrations.model_level.distillation_dataset import DistillationDataset

    pairs = DistillationDataset.from_logs(frame, trainer.arguments).pairs
    return {
        "teacher": dict(sorted(Counter(pair.teacher for pair in pairs).items())),
        "task": dict(sorted(Counter(pair.task or "" for pair in pairs).items())),
    }


def _train(
    trainer: DistillationTrainer, frame: pl.DataFrame, eval_frame: pl.DataFrame | None, *, console: Console
) -> StudentModel:
    with progress_bars(console) as show:

        def on_progress(step: int, n_steps: int, loss: float) -> None:
            n_between = 1 if console.is_terminal else max(1, n_steps // _N_PROGRESS_LINES)
            if step % n_between == 0 or step == n_steps:
                show("training steps", step, n_steps, f"loss {loss:.3f}")

        return trainer.train(frame, eval_logs=eval_frame, on_progress=on_progress)


def _document(student: StudentModel, out: Path, *, base: Path) -> dict[str, Any]:
    from fusion_integrations.artifacts import read_manifest

    return {
        "saved_to": str(out),
        "digest": read_manifest(out).digest,
        "revision": student.revision,
        "base": student.adapter.base.model_dump() | {"folder": str(base)},
        "adapter_bytes": len(student.adapter.weights),
        "arguments": dict(student.arguments),
        "metrics": dict(student.metrics),
    }


def _pairs_table(column: str, counts: Mapping[str, int]) -> Table:
    table = plain_table("Chosen pairs", text_columns=(column,), number_columns=("pairs",))
    for name, count in counts.items():
        table.add_row(name or "unknown", str(count))
    return table


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    metrics = document["metrics"]
    dropped = ", ".join(
        f"{count} {reason.replace('_', ' ')}" for reason, count in metrics["n_dropped"].items() if count
    )
    yield (
        f"Taught {metrics['n_pairs']} pairs of {metrics['n_queries']} queries, {metrics['n_solved']} of them "
        f"solved. Left out: {dropped or 'none'}."
    )
    yield (
        f"Loss {metrics['train_loss_first']:.3f} in the first and {metrics['train_loss_last']:.3f} in the "
        f"last tenth of {metrics['n_steps']} steps; {metrics['duration_s']:.0f} s."
    )
    if metrics["n_eval_pairs"]:
        yield (
            f"Loss on {metrics['n_eval_pairs']} pairs of other queries: base "
            f"{metrics['eval_loss_base']:.3f}, student {metrics['eval_loss_student']:.3f}."
        )
    base = document["base"]
    yield f"Adapter: {document['adapter_bytes'] / 1e6:.2f} MB, revision {document['revision']}."
    yield f"Saved to '{document['saved_to']}', digest {document['digest']}."
    yield f"It runs on its base '{base['name']}' in '{base['folder']}'."
