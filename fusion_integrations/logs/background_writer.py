"""Write log records in the background, so that recording a call costs its caller next to nothing.

An application that logs its calls must not wait for a database, let alone fail with it: records queue here,
and one thread writes what has come together in one transaction.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.schema import LogRecord, Score

__all__ = ["BackgroundWriter", "RecordStore", "WriterStats"]

logger = logging.getLogger(__name__)

_BATCH = 500  # records a transaction: past this, larger ones are hardly faster
_EXIT_TIMEOUT_S = 30.0
_FAILURES_OF_A_STORE = 3  # so many in a row are the store's fault, not the records'
_DROPS_A_WARNING = 1000


class RecordStore(Protocol):
    """What a writer asks of a store; `LogStore` is one."""

    def add(self, records: Iterable[LogRecord], scores: Iterable[Score] = ()) -> object:
        """Store records, all or nothing; see `LogStore.add`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WriterStats:
    """What became of the records handed to a writer.

    Attributes:
        n_written: Records that the store has.
        n_pending: Records not written yet.
        n_dropped: Records refused: too many were pending (`when_full="drop"`), or the writer was closed.
        n_failed: Records lost because the store failed, every time it was tried.
    """

    n_written: int = 0
    n_pending: int = 0
    n_dropped: int = 0
    n_failed: int = 0


class BackgroundWriter:
    """Writes records to a store from a thread of its own; threads may share a writer.

    What is pending when the process ends is written then. Only a process that is killed loses what was still
    pending, which is what came in since the last transaction began. A store that fails is tried again, then
    its records are counted as lost and an error is logged: the application goes on.

    After a fork the child has a queue and a thread of its own, and what was pending is the parent's to write.
    Database connections do not survive a fork: servers that fork their workers should open the store, and
    make the writer, in each worker.

    Args:
        store: Where records go. It stays open; close it after the writer.
        max_pending: Most records to hold in memory.
        when_full: What `add` does when as many are pending: `"wait"` until there is room, or `"drop"` the
            record, which is counted and warned about. On a thread that runs an event loop nothing may wait:
            there `"wait"` takes the record beyond the limit, and `aadd` is the way to wait.
        n_tries: How often to try to write a batch.
        retry_wait_s: Seconds before the second try; twice as long before each further one.
        wait: Waits for so many seconds.

    Raises:
        InvalidPolicyError: If a number is out of range.

    Example:
        >>> from datetime import UTC, datetime
        >>> from fusion_integrations.logs.store import LogStore
        >>> from fusion_integrations.types import Message
        >>> record = LogRecord(
        ...     record_id="run-1",
        ...     messages=(Message(role="user", content="What is 2 + 2?"),),
        ...     candidate_id="small",
        ...     response="4",
        ...     created_at=datetime.now(UTC),
        ...     source="docs",
        ... )
        >>> with LogStore.open(":memory:") as store:
        ...     with BackgroundWriter(store) as writer:
        ...         writer.add(record)
        ...     writer.stats().n_written
        True
        1
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        max_pending: int = 10_000,
        when_full: Literal["wait", "drop"] = "wait",
        n_tries: int = 3,
        retry_wait_s: float = 0.2,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if max_pending < 1 or n_tries < 1 or not (math.isfinite(retry_wait_s) and retry_wait_s >= 0):
            message = (
                "max_pending and n_tries must be at least 1 and retry_wait_s a finite number >= 0, got "
                f"{max_pending}, {n_tries} and {retry_wait_s}."
            )
            raise InvalidPolicyError(message)
        self._store = store
        self._max_pending = max_pending
        self._drops = when_full == "drop"
        self._n_tries = n_tries
        self._retry_wait_s = retry_wait_s
        self._wait = wait
        self._begin()
        _watch_forks()
        _WRITERS.add(self)

    def add(self, record: LogRecord) -> bool:
        """Take a record to write.

        Args:
            record: The record.

        Returns:
            Whether it was taken. If not, it is counted as dropped, and a warning is logged.
        """
        with self._changed:
            while self._is_full() and not self._drops and not _is_on_event_loop():
                self._changed.wait()
            return self._take(record)

    async def aadd(self, record: LogRecord) -> bool:
        """Take a record, waiting without blocking the event loop; otherwise as `add`."""
        with self._changed:
            if not self._is_full() or self._drops:
                return self._take(record)
        return await asyncio.to_thread(self.add, record)

    def flush(self, *, timeout_s: float | None = None) -> bool:
        """Wait until what was added before is written or lost.

        Args:
            timeout_s: Most seconds to wait; None waits as long as it takes.

        Returns:
            Whether that was reached in time.
        """
        with self._changed:
            goal = self._n_taken
            return self._changed.wait_for(lambda: self._n_settled >= goal, timeout=timeout_s)

    async def aflush(self, *, timeout_s: float | None = None) -> bool:
        """Wait without blocking the event loop; otherwise as `flush`."""
        return await asyncio.to_thread(self.flush, timeout_s=timeout_s)

    def close(self, *, timeout_s: float | None = None) -> bool:
        """Write what is pending and end the thread; closing twice does no harm.

        Args:
            timeout_s: Most seconds to wait; None waits as long as it takes.

        Returns:
            Whether everything was settled in time.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        is_settled = self.flush(timeout_s=timeout_s)
        atexit.unregister(self._finish)
        return is_settled

    def stats(self) -> WriterStats:
        """Count what became of the records so far."""
        with self._changed:
            return WriterStats(
                n_written=self._n_written,
                n_pending=self._n_taken - self._n_settled,
                n_dropped=self._n_dropped,
                n_failed=self._n_settled - self._n_written,
            )

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the writer."""
        self.close()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._pending: deque[LogRecord] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._n_taken = self._n_settled = self._n_written = self._n_dropped = 0

    def _is_full(self) -> bool:
        return len(self._pending) >= self._max_pending and not self._is_closed

    def _take(self, record: LogRecord) -> bool:
        if self._is_closed or (self._drops and self._is_full()):
            self._n_dropped += 1
            reason = "the writer is closed" if self._is_closed else f"{len(self._pending)} are pending"
            if self._n_dropped % _DROPS_A_WARNING == 1:
                logger.warning("Log records are dropped because %s: %d so far.", reason, self._n_dropped)
            return False
        if self._thread is None:
            # The process need not wait for the thread to end by itself: `_finish` has it write the rest.
            self._thread = threading.Thread(target=self._run, name="fusion-log-writer", daemon=True)
            self._thread.start()
            atexit.register(self._finish)
        self._pending.append(record)
        self._n_taken += 1
        self._changed.notify_all()
        return True

    def _finish(self) -> None:
        if not self.close(timeout_s=_EXIT_TIMEOUT_S):
            logger.error("%d log records are lost: the process ends.", self.stats().n_pending)

    def _run(self) -> None:
        while batch := self._next_batch():
            n_written = self._write(batch)
            with self._changed:
                self._n_written += n_written
                self._n_settled += len(batch)
                self._changed.notify_all()

    def _next_batch(self) -> list[LogRecord]:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closed)
            batch = [self._pending.popleft() for _ in range(min(_BATCH, len(self._pending)))]
            self._changed.notify_all()
            return batch

    def _write(self, batch: Sequence[LogRecord]) -> int:
        """Write a batch; return how many of its records the store has now."""
        error: Exception | None = None
        for i in range(self._n_tries):
            if i:
                self._wait(self._retry_wait_s * 2 ** (i - 1))
            error = self._attempt(batch)
            if error is None:
                return len(batch)
        n_written = self._write_singly(batch) if len(batch) > 1 else 0
        if n_written < len(batch):
            logger.error("%d log records could not be stored: %s", len(batch) - n_written, error)
        return n_written

    def _write_singly(self, batch: Sequence[LogRecord]) -> int:
        """Write what can be written, so that a record no store takes costs only itself."""
        n_written = n_failed_in_a_row = 0
        for record in batch:
            is_written = self._attempt([record]) is None
            n_written += is_written
            n_failed_in_a_row = 0 if is_written else n_failed_in_a_row + 1
            if n_failed_in_a_row == _FAILURES_OF_A_STORE:
                break
        return n_written

    def _attempt(self, batch: Sequence[LogRecord]) -> Exception | None:
        try:
            self._store.add(batch)
        except Exception as error:  # whatever a store raises, the thread and the application go on
            return error
        return None


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_WRITERS: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_begin_in_child)


def _begin_in_child() -> None:
    for writer in list(_WRITERS):
        atexit.unregister(writer._finish)
        writer._begin()
