from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from fusion_integrations.errors import InvalidPolicyError, LogStoreError
from fusion_integrations.logs.background_writer import BackgroundWriter, WriterStats
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Message


def record(number: int | str) -> LogRecord:
    return LogRecord(
        record_id=f"run-{number}",
        messages=(Message(role="user", content=f"What is {number}?"),),
        candidate_id="small",
        response="a number",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        source="tests",
    )


class Gate:
    """A store that takes nothing until it is opened, and fails as often as it is told."""

    def __init__(self, *, n_failures: int = 0, poison: str = "") -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.ids: list[str] = []
        self.sizes: list[int] = []
        self._n_failures = n_failures
        self._poison = poison

    def add(self, records, scores=()):
        self.entered.set()
        assert self.opened.wait(timeout=30)
        given = [each.record_id for each in records]
        self.sizes.append(len(given))
        if self._n_failures:
            self._n_failures -= 1
            raise LogStoreError("disk full")
        if self._poison in given:
            raise LogStoreError("this text cannot be stored")
        self.ids += given


def busy(**settings) -> tuple[Gate, BackgroundWriter]:
    """A writer whose thread waits for the gate, one record in its hands."""
    gate = Gate()
    writer = BackgroundWriter(gate, **settings)
    writer.add(record("first"))
    assert gate.entered.wait(timeout=30)
    return gate, writer


def test_add_when_closed_after_has_written_everything_in_order(tmp_path):
    with LogStore.open(tmp_path / "logs.sqlite") as store:
        with BackgroundWriter(store) as writer:
            assert all(writer.add(record(i)) for i in range(1200))
        assert [each.record_id for each in store.records()] == [f"run-{i}" for i in range(1200)]
    assert writer.stats() == WriterStats(n_written=1200)


def test_add_when_many_threads_add_then_loses_and_doubles_none(tmp_path):
    with LogStore.open(tmp_path / "logs.sqlite") as store:
        writer = BackgroundWriter(store, max_pending=7)
        threads = [
            threading.Thread(target=lambda i=i: [writer.add(record(f"{i}-{j}")) for j in range(50)])
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
        ids = [each.record_id for each in store.records()]
    assert sorted(ids) == sorted(f"run-{i}-{j}" for i in range(8) for j in range(50))


def test_add_when_full_waits_until_there_is_room():
    gate, writer = busy(max_pending=2)
    writer.add(record(1))
    writer.add(record(2))
    waiting = threading.Thread(target=writer.add, args=[record(3)])
    waiting.start()
    waiting.join(timeout=0.05)
    assert waiting.is_alive()
    assert writer.stats() == WriterStats(n_pending=3)

    gate.opened.set()
    waiting.join()
    writer.close()
    assert gate.ids == ["run-first", "run-1", "run-2", "run-3"]


def test_add_when_full_and_dropping_is_chosen_counts_and_warns_once(caplog):
    gate, writer = busy(max_pending=2, when_full="drop")
    taken = [writer.add(record(i)) for i in range(5)]

    assert taken == [True, True, False, False, False]
    assert [each.message for each in caplog.records] == [
        "Log records are dropped because 2 are pending: 1 so far."
    ]
    gate.opened.set()
    writer.close()
    assert writer.stats() == WriterStats(n_written=3, n_dropped=3)


async def test_add_when_full_on_an_event_loop_takes_the_record_beyond_the_limit():
    gate, writer = busy(max_pending=1)
    assert [writer.add(record(i)) for i in range(3)] == [True] * 3
    assert writer.stats().n_pending == 4
    gate.opened.set()
    assert await writer.aflush()
    assert writer.stats() == WriterStats(n_written=4)


async def test_aadd_when_full_waits_and_lets_the_loop_run():
    gate, writer = busy(max_pending=1)
    await writer.aadd(record(1))
    waiting = asyncio.create_task(writer.aadd(record(2)))
    for _ in range(5):
        await asyncio.sleep(0.01)  # the loop goes on
    assert not waiting.done()
    gate.opened.set()
    assert await waiting
    await writer.aflush()
    assert gate.ids == ["run-first", "run-1", "run-2"]


def test_write_when_the_store_fails_for_a_while_tries_again_with_growing_waits():
    gate, waits = Gate(n_failures=2), []
    gate.opened.set()
    with BackgroundWriter(gate, retry_wait_s=0.5, wait=waits.append) as writer:
        writer.add(record(1))
    assert gate.ids == ["run-1"]
    assert waits == [0.5, 1.0]
    assert writer.stats() == WriterStats(n_written=1)


def test_write_when_the_store_always_fails_counts_and_logs_and_goes_on(caplog):
    gate = Gate(n_failures=10**6)
    writer = BackgroundWriter(gate, wait=lambda _: None)
    writer.add(record("first"))
    assert gate.entered.wait(timeout=30)
    for i in range(20):
        writer.add(record(i))
    gate.opened.set()
    writer.close()

    assert writer.stats() == WriterStats(n_failed=21)
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2
    assert caplog.records[0].message == "1 log records could not be stored: disk full"
    # A batch of 20 is tried three times, then the store is given three more chances, not twenty.
    assert gate.sizes == [1, 1, 1, 20, 20, 20, 1, 1, 1]


def test_write_when_one_record_cannot_be_stored_loses_only_that(caplog):
    gate = Gate(poison="run-3")
    writer = BackgroundWriter(gate, wait=lambda _: None)
    writer.add(record("first"))
    assert gate.entered.wait(timeout=30)
    for i in range(10):
        writer.add(record(i))
    gate.opened.set()
    writer.close()
    assert gate.ids == ["run-first", *(f"run-{i}" for i in range(10) if i != 3)]
    assert writer.stats() == WriterStats(n_written=10, n_failed=1)
    assert "1 log records could not be stored: this text" in caplog.text


def test_flush_when_not_in_time_says_so():
    gate, writer = busy()
    assert writer.flush(timeout_s=0) is False
    gate.opened.set()
    assert writer.flush() is True
    assert writer.close() is True
    assert writer.close() is True


def test_add_when_closed_drops_and_counts(caplog):
    writer = BackgroundWriter(Gate())
    writer.close()
    assert writer.add(record(1)) is False
    assert writer.stats() == WriterStats(n_dropped=1)
    assert "the writer is closed" in caplog.text


@pytest.mark.parametrize(
    "settings", [{"max_pending": 0}, {"n_tries": 0}, {"retry_wait_s": -1}, {"retry_wait_s": float("nan")}]
)
def test_writer_when_a_setting_is_out_of_range_is_refused(settings):
    with pytest.raises(InvalidPolicyError, match="must be at least 1"):
        BackgroundWriter(Gate(), **settings)


_APPLICATION = """
import sys
from test_background_writer import record
from fusion_integrations.logs.background_writer import BackgroundWriter
from fusion_integrations.logs.store import LogStore

writer = BackgroundWriter(LogStore.open(sys.argv[1]))
for i in range(2000):
    writer.add(record(i))
if sys.argv[2] == "error":
    raise ValueError("the application ends here")
"""


@pytest.mark.parametrize("ending", ["end", "error"])
def test_process_when_it_ends_without_closing_has_written_everything(tmp_path, ending):
    path = tmp_path / "logs.sqlite"
    folders = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])  # noqa: PTH109, PTH120
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _APPLICATION, path, ending],
        env=os.environ | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ("ends here" in result.stderr) == (ending == "error")
    assert "lost" not in result.stderr
    with LogStore.open(path, create=False) as store:
        assert store.stats().n_records == 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_when_records_are_pending_leaves_them_to_the_parent_and_gives_the_child_a_queue():
    gate, writer = busy()
    writer.add(record(1))
    child = os.fork()
    if child == 0:  # what fails here must not run the rest of the suite
        is_right = writer.stats() == WriterStats()
        gate.opened.set()
        is_right = is_right and writer.add(record(2)) and writer.flush(timeout_s=30)
        os._exit(0 if is_right and gate.ids[-1] == "run-2" else 1)
    _, status = os.waitpid(child, 0)
    gate.opened.set()
    writer.close()
    assert status == 0
    assert gate.ids == ["run-first", "run-1"]
