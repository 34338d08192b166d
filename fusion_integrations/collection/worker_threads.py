"""Run threads to their end, such that Ctrl-C gets through."""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["run_workers"]

_LOOK_UP_S = 0.1


def run_workers(workers: Sequence[threading.Thread], *, stop: threading.Event, finishes: bool) -> None:
    """Start threads and wait for them.

    Args:
        workers: Threads that have not started and end soon after `stop` is set.
        stop: Is set if anything, such as Ctrl-C, ends the wait early.
        finishes: Whether even then to wait for the threads' ends.
    """
    started: list[threading.Thread] = []
    try:
        for worker in workers:
            worker.start()
            started.append(worker)
        _wait_for(started)
    except BaseException:
        stop.set()
        if finishes:
            _wait_for(started)
        raise


def _wait_for(workers: Sequence[threading.Thread]) -> None:
    # Looks up now and then: where a library has system calls go on after a signal, as polars does, Ctrl-C
    # would not end a wait that has no end of its own.
    for worker in workers:
        while worker.is_alive():
            worker.join(timeout=_LOOK_UP_S)
