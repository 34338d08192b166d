"""Several processes on one store, and processes that die: what was acknowledged is there, once."""

import random
import subprocess
from contextlib import suppress

import pytest

from fusion_integrations.logs.store import LogStore

BATCH = 25

WRITER = """
import sys
from datetime import UTC, datetime
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore

path, prefix, n_batches, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
now = datetime.now(UTC)
print("ready", flush=True)
sys.stdin.readline()
with LogStore.open(path) as store:
    for batch in range(n_batches):
        ids = [f"{prefix}-{batch}-{i}" for i in range(size)]
        records = [
            LogRecord(record_id=id, messages=[{"role": "user", "content": f"Question {i}"}], candidate_id="m",
                      response="an answer " * 20, created_at=now, source="test")
            for i, id in enumerate(ids)
        ]
        scores = [
            Score(record_id=id, kind="judge", scorer="s", version="", value=1, created_at=now) for id in ids
        ]
        result = store.add(records, scores)
        print(batch, result.n_added, flush=True)
"""


def _start(start_python, path, prefix, n_batches):
    process = start_python(WRITER, path, prefix, n_batches, BATCH)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def _ids(prefix, batches):
    return {f"{prefix}-{batch}-{i}" for batch in batches for i in range(BATCH)}


def test_store_when_processes_make_and_fill_it_at_once_then_holds_exactly_the_union(tmp_path, start_python):
    path = tmp_path / "logs.sqlite"
    # Two write the same records, one others, and all make the store.
    writers = [_start(start_python, path, prefix, 20) for prefix in ("same", "same", "other")]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()

    outputs = [writer.communicate() for writer in writers]

    assert [errors for _, errors in outputs] == ["", "", ""]
    added = [sum(int(line.split()[1]) for line in output.splitlines()) for output, _ in outputs]
    assert added[0] + added[1] == 20 * BATCH
    assert added[2] == 20 * BATCH
    with LogStore.open(path, create=False) as store:
        records = [record.record_id for record in store.records()]
        scores = [score.record_id for score in store.scores()]
    assert len(records) == len(scores) == 2 * 20 * BATCH
    assert set(records) == set(scores) == _ids("same", range(20)) | _ids("other", range(20))


@pytest.mark.slow
def test_store_when_writers_are_killed_then_every_acknowledged_batch_is_there_once(tmp_path, start_python):
    path = tmp_path / "logs.sqlite"
    chance = random.Random(0)  # noqa: S311
    expected: set[str] = set()
    for round_number in range(10):
        prefix = f"round{round_number}"
        writer = _start(start_python, path, prefix, 100_000)
        writer.stdin.write("go\n")
        writer.stdin.flush()
        lines = [writer.stdout.readline() for _ in range(chance.randrange(12))]
        with suppress(subprocess.TimeoutExpired):
            writer.wait(timeout=chance.uniform(0, 0.02))
        writer.kill()
        rest, errors = writer.communicate()
        acknowledged = [line for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith("\n")]
        assert errors == ""

        with LogStore.open(path) as store:
            records = [record.record_id for record in store.records()]
            scores = [score.record_id for score in store.scores()]

        # The batch in flight may be there without its acknowledgement, but whole.
        complete, in_flight = _ids(prefix, range(len(acknowledged))), _ids(prefix, [len(acknowledged)])
        expected |= complete
        if in_flight & set(records):
            expected |= in_flight
        assert set(records) == expected
        assert len(records) == len(expected)
        assert records == scores
