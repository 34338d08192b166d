"""Import rate, size, and time and memory of reading, of a log store of a million records.

    python benchmarks/log_store.py --json benchmarks/results/log_store.json
    python benchmarks/log_store.py --postgres postgresql://USER@HOST/DATABASE

The table it imports is made up: 250,000 questions of 30 words, each answered by four of ten candidates in 40
words and scored. Each step runs in a process of its own, so that peak memory is that of the step.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine

from fusion_integrations.logs import ColumnMapping, LogRecord, LogStore, Score, export_logs, import_logs
from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.types import Message

N_ANSWERS = 4  # of each question
N_WRITERS = 4
BATCH = 100  # records of a writer's transaction
COLUMNS = ColumnMapping(
    query="prompt",
    model="llm",
    response="reply",
    performance="score",
    cost_usd="usd",
    output_tokens="tokens",
    created_at="at",
)
WORDS = [
    "of",
    "and",
    "to",
    "in",
    "is",
    "for",
    "with",
    "as",
    "by",
    "at",
    "from",
    "that",
    "this",
    "are",
    "was",
    "model",
    "answer",
    "question",
    "city",
    "river",
]


def write_table(path: Path, *, n_rows: int) -> None:
    """Write the table to import; equal row counts give equal files."""
    chance = random.Random(0)  # noqa: S311 - made-up text
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "llm", "reply", "score", "usd", "tokens", "at"])
        for i in range(n_rows):
            if i % N_ANSWERS == 0:
                question = f"Question {i}: {' '.join(chance.choices(WORDS, k=30))}"
            answer = " ".join(chance.choices(WORDS, k=40))
            moment = f"2026-01-{1 + i % 28:02d}T{i % 24:02d}:00:00Z"
            cost_usd = round(chance.random() / 1000, 7)
            score, tokens = chance.randint(0, 1), chance.randint(1, 400)
            rows.writerow([question, f"model-{i % 10}", answer, score, cost_usd, tokens, moment])


def import_table(location: str, *, folder: Path, n_records: int) -> int:
    """Import the table into a new store."""
    with LogStore.open(location) as store:
        report = import_logs("table", folder / "table.csv", store, columns=COLUMNS)
    _expect(report.n_added, n_records)
    return report.n_added


def import_again(location: str, *, folder: Path, n_records: int) -> int:
    """Import the table once more, which adds nothing."""
    with LogStore.open(location, create=False) as store:
        report = import_logs("table", folder / "table.csv", store, columns=COLUMNS)
    _expect(report.n_known, n_records)
    return report.n_known


def read_training_matrix(location: str, *, folder: Path, n_records: int) -> int:
    """Read what a router trains on: the table in memory, pivoted to queries by candidates."""
    del folder
    with LogStore.open(location, create=False) as store:
        frame = store.to_frame()
    _expect(frame.height, n_records)
    dataset = RouterDataset.from_logs(frame)
    _expect(len(dataset.texts), n_records // N_ANSWERS)
    return frame.height


def read_records(location: str, *, folder: Path, n_records: int) -> int:
    """Iterate over all records as objects."""
    del folder
    with LogStore.open(location, create=False) as store:
        n = sum(1 for _ in store.records())
    _expect(n, n_records)
    return n


def export_lines(location: str, *, folder: Path, n_records: int) -> int:
    """Export all records and scores as JSON lines."""
    with LogStore.open(location, create=False) as store:
        n = export_logs(store, folder / "export.jsonl")
    (folder / "export.jsonl").unlink()
    _expect(n, n_records)
    return n


def find_duplicates(location: str, *, folder: Path, n_records: int) -> int:
    """Look for calls that several sources reported; there are none."""
    del folder
    with LogStore.open(location, create=False) as store:
        _expect(len(store.duplicates()), 0)
    return n_records


def write_live(location: str, *, folder: Path, n_records: int) -> int:
    """Add records from four processes at once, a hundred a transaction, as applications do."""
    del folder
    n_each = min(n_records, 40_000) // N_WRITERS
    children = []
    for number in range(N_WRITERS):
        child = os.fork()
        if not child:
            status = 1
            try:
                _write(location, number=number, n_records=n_each)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    for child in children:
        _expect(os.waitpid(child, 0)[1], 0)
    with LogStore.open(location, create=False) as store:
        _expect(store.count(), n_records + N_WRITERS * n_each)
    return N_WRITERS * n_each


def _write(location: str, *, number: int, n_records: int) -> None:
    now = datetime.now(UTC)
    with LogStore.open(location, create=False) as store:
        for start in range(0, n_records, BATCH):
            records = [
                LogRecord(
                    record_id=f"live-{number}-{i}",
                    messages=(Message(role="user", content=f"Live question {i} of {number}"),),
                    candidate_id="model-0",
                    response="an answer " * 20,
                    created_at=now,
                    source="live",
                )
                for i in range(start, min(start + BATCH, n_records))
            ]
            scores = [
                Score(record_id=each.record_id, kind="judge", scorer="s", version="", value=1, created_at=now)
                for each in records
            ]
            store.add(records, scores)


def _expect(found: int, expected: int) -> None:
    if found != expected:
        raise SystemExit(f"Expected {expected}, found {found}: this run measures something else.")


STEPS: dict[str, Callable[..., int]] = {
    step.__name__: step
    for step in (
        import_table,
        import_again,
        read_training_matrix,
        read_records,
        export_lines,
        find_duplicates,
        write_live,
    )
}


def main() -> None:
    """Run every step on every store and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    parser.add_argument("--records", type=int, default=1_000_000, help="records; a multiple of 4")
    parser.add_argument("--postgres", metavar="URL", help="an empty database or schema to measure too")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a child process measures, as JSON
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "table.csv", n_rows=arguments.records)
        locations = {"sqlite": str(folder / "logs.sqlite")}
        if arguments.postgres:
            locations["postgresql"] = arguments.postgres
        else:
            print("PostgreSQL is left out: pass --postgres URL.", file=sys.stderr)
        rows = []
        for kind, location in locations.items():
            for step in STEPS:
                job = {"step": step, "location": location, "folder": name, "n_records": arguments.records}
                rows.append({"store": kind, **_run_alone(job), "size_mb": _size_mb(location)})
                Console(stderr=True).print(rows[-1], highlight=False)
    show(rows)
    if arguments.json:
        command = f"python benchmarks/log_store.py --records {arguments.records}"
        command += " --postgres URL" if arguments.postgres else ""
        arguments.json.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")


def _run_alone(job: dict[str, object]) -> dict[str, object]:
    output = subprocess.run(  # noqa: S603
        [sys.executable, __file__, "--one", json.dumps(job)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "2"),
    ).stdout
    found: dict[str, object] = json.loads(output)
    return found


def measure(*, step: str, location: str, folder: str, n_records: int) -> dict[str, object]:
    """Run one step.

    Args:
        step: One of `STEPS`.
        location: The store.
        folder: Where the table lies.
        n_records: Rows of the table.

    Returns:
        Its name, records, seconds, records a second, and the process's peak memory in MiB.
    """
    start = time.perf_counter()
    n_done = STEPS[step](location, folder=Path(folder), n_records=n_records)
    seconds = time.perf_counter() - start
    return {
        "step": step,
        "n_records": n_done,
        "seconds": round(seconds, 1),
        "records_per_s": round(n_done / seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _size_mb(location: str) -> float:
    """Size of a store in 10^6 bytes: of its files, or of its tables with their indexes."""
    if "://" not in location:
        path = Path(location)
        return round(sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6, 1)
    engine = create_engine(location.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.connect() as connection:
        size = connection.exec_driver_sql(
            "SELECT sum(pg_total_relation_size(name))"
            " FROM unnest(ARRAY['records', 'scores', 'queries']) AS name"
        ).scalar()
    engine.dispose()
    return round(int(size or 0) / 1e6, 1)


def show(rows: list[dict[str, object]]) -> None:
    """Print the rows as a table."""
    table = Table(title="A log store")
    for heading in ("store", "step", "records", "seconds", "records a second", "peak MiB", "size MB"):
        table.add_column(heading, justify="left" if heading in ("store", "step") else "right", no_wrap=True)
    for row in rows:
        numbers = (row[key] for key in ("n_records", "seconds", "records_per_s", "peak_mib", "size_mb"))
        table.add_row(str(row["store"]), str(row["step"]).replace("_", " "), *(f"{n:,}" for n in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
