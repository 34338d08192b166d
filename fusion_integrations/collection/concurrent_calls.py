"""Make the calls of several candidates at the same time, each candidate at its own pace."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from fusion_integrations.collection.asking import Asker, NotAskedError, Outcome
from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.collection.planned_calls import CandidatePlan, PlannedCall

__all__ = ["call_concurrently"]

# Outcomes, and behind its last one how a worker ended: None, or the error.
_Result = Outcome | BaseException | None


def call_concurrently(
    plans: Sequence[CandidatePlan],
    *,
    asker: Asker,
    limits: Mapping[str, CallLimits],
    stop: threading.Event,
    on_outcome: Callable[[Outcome], None],
) -> int:
    """Make all calls, and hand over every outcome as it comes, on the calling thread.

    Whatever ends this early, Ctrl-C or a failing `on_outcome`: no further call is made, and what the calls
    under way bring is handed over first.

    Args:
        plans: The calls, by candidate.
        asker: Makes them.
        limits: By candidate id.
        stop: Is set to end early.
        on_outcome: Told of every outcome.

    Returns:
        How many calls were not made, for lack of budget.
    """
    results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    waiting = [deque(plan.missing) for plan in plans]
    workers: list[threading.Thread] = []
    for plan, calls in zip(plans, waiting, strict=True):
        own = limits[plan.candidate.id]
        pace = CallPace(own.requests_per_minute, wait=stop.wait)
        workers += [
            # Not waited for when the process is told to end a second time.
            threading.Thread(target=_work, args=[calls, asker, own, pace, results], daemon=True)
            for _ in range(min(own.concurrency, len(calls)))
        ]
    for worker in workers:
        worker.start()
    failure: BaseException | None = None
    n_running = len(workers)
    while n_running:
        try:
            result = results.get()
            if isinstance(result, Outcome):
                on_outcome(result)
                continue
        except BaseException as error:
            if isinstance(failure, KeyboardInterrupt) and isinstance(error, KeyboardInterrupt):
                raise  # told twice
            failure = failure or error
            stop.set()
            continue
        n_running -= 1
        if result is not None:
            failure = failure or result
            stop.set()
    if failure is not None:
        raise failure
    return sum(len(calls) for calls in waiting)


def _work(
    calls: deque[PlannedCall],
    asker: Asker,
    limits: CallLimits,
    pace: CallPace,
    results: queue.SimpleQueue[_Result],
) -> None:
    """Make calls until there are none, and put in how that ended: None, or the error."""
    while True:
        try:
            call = calls.popleft()
        except IndexError:
            results.put(None)
            return
        try:
            results.put(asker.ask_one(call, limits=limits, pace=pace))
        except NotAskedError:
            calls.append(call)
            results.put(None)
            return
        except BaseException as error:  # it belongs to the thread that waits
            results.put(error)
            return
