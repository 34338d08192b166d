"""Several processes on one store, and processes that die: what was acknowledged is there, once."""

import json
import signal

import pytest

from fusion_integrations.logs.store import LogStore

BATCH = 25
KILLED_BATCH = 5  # small: what 50 writers stored is read 50 times

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


def _start(start_python, location, prefix, n_batches):
    process = start_python(WRITER, location, prefix, n_batches, BATCH)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def _ids(prefix, batches):
    return {f"{prefix}-{batch}-{i}" for batch in batches for i in range(BATCH)}


def test_store_when_processes_make_and_fill_it_at_once_then_holds_exactly_the_union(location, start_python):
    # Two write the same records, one others, and all make the store.
    writers = [_start(start_python, location, prefix, 20) for prefix in ("same", "same", "other")]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()

    outputs = [writer.communicate() for writer in writers]

    assert [errors for _, errors in outputs] == ["", "", ""]
    added = [sum(int(line.split()[1]) for line in output.splitlines()) for output, _ in outputs]
    assert added[0] + added[1] == 20 * BATCH
    assert added[2] == 20 * BATCH
    with LogStore.open(location, create=False) as store:
        records = [record.record_id for record in store.records()]
        scores = [score.record_id for score in store.scores()]
    assert len(records) == len(scores) == 2 * 20 * BATCH
    assert set(records) == set(scores) == _ids("same", range(20)) | _ids("other", range(20))


# Forking from a process that has everything imported makes a writer in no time; the kills are as real.
KILLER = """
import json, os, random, signal, sys, time
from datetime import UTC, datetime
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore

location, n_rounds, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
now = datetime.now(UTC)


def write(round_number, acknowledge):
    with LogStore.open(location) as store:
        for batch in range(100_000):
            ids = [f"{round_number}-{batch}-{i}" for i in range(size)]
            records = [
                LogRecord(record_id=id, messages=[{"role": "user", "content": f"Question {i}"}],
                          candidate_id="m", response="an answer " * 20, created_at=now, source="test")
                for i, id in enumerate(ids)
            ]
            scores = [
                Score(record_id=id, kind="judge", scorer="s", version="", value=1, created_at=now)
                for id in ids
            ]
            store.add(records, scores)
            os.write(acknowledge, b".")


chance = random.Random(0)
nobody = LogFilter(sources=["nobody"])
with LogStore.open(location):
    pass
for round_number in range(n_rounds):
    reading, writing = os.pipe()
    writer = os.fork()
    if not writer:
        os.close(reading)
        try:
            write(round_number, writing)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    acknowledged = b""
    while part := os.read(reading, 65536):
        acknowledged += part
    os.close(reading)
    with LogStore.open(location, create=False) as store:
        # A server may still be committing what the dead writer sent; it is done when another may write.
        store.remove(nobody)
        found = {
            "signal": os.WTERMSIG(status),
            "n_acknowledged": len(acknowledged),
            "records": store.to_frame()["record_id"].to_list(),
            "n_unscored": store.to_frame()["judge_score"].null_count(),
            "n_scores": store.stats().n_scores,
        }
    print(json.dumps(found), flush=True)
"""


@pytest.mark.slow
def test_store_when_writers_are_killed_then_every_acknowledged_batch_is_there_once(location, start_python):
    killer = start_python(KILLER, location, 50, KILLED_BATCH)
    output, errors = killer.communicate()
    assert errors == ""
    rounds = [json.loads(line) for line in output.splitlines()]

    expected: list[str] = []
    for number, found in enumerate(rounds):
        assert found["signal"] == signal.SIGKILL
        n_whole, rest = divmod(len(found["records"]) - len(expected), KILLED_BATCH)
        # The batch in flight may be there without its acknowledgement, but whole.
        assert rest == 0
        assert n_whole in (found["n_acknowledged"], found["n_acknowledged"] + 1)
        expected += [f"{number}-{batch}-{i}" for batch in range(n_whole) for i in range(KILLED_BATCH)]
        assert found["records"] == expected
        assert (found["n_unscored"], found["n_scores"]) == (0, len(expected))
    assert len(rounds) == 50
    assert len(expected) > 50 * KILLED_BATCH  # they did write
