"""Run work on threads to its end, such that Ctrl-C gets through and no failure is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

__all__ = ["run_on_threads"]

_LOOK_UP_S = 0.1


def run_on_threads(jobs: Sequence[Callable[[], None]], *, stop: threading.Event, finishes: bool) -> None:
    """Run jobs, each on a thread of its own, and wait for them.

    Args:
        jobs: What to run; each ends soon after `stop` is set.
        stop: Is set if a job fails, or anything, such as Ctrl-C, ends the wait early.
        finishes: Whether to wait for the jobs' ends even if the wait was ended early.

    Errors of a job, the first of several, are raised when all have ended.
    """
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # it belongs to the thread that waits for this one
            failures.append(error)
            stop.set()

    started: list[threading.Thread] = []
    try:
        for job in jobs:
            # Not waited for when the process is told to end a second time.
            worker = threading.Thread(target=run, args=[job], daemon=True)
            worker.start()
            started.append(worker)
        _wait_for(started)
    except BaseException:
        stop.set()
        if finishes:
            _wait_for(started)
        raise
    if failures:
        raise failures[0]


def _wait_for(workers: Sequence[threading.Thread]) -> None:
    # Looks up now and then: where a library has system calls go on after a signal, as polars does, Ctrl-C
    # would not end a wait that has no end of its own.
    for worker in workers:
        while worker.is_alive():
            worker.join(timeout=_LOOK_UP_S)
