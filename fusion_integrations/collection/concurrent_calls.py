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

# What a worker puts behind its last outcome: why it ended.
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
    n_running = len(workers)
    try:
        while n_running:
            n_running -= _hand_over(results.get(), on_outcome)
    except BaseException:
        stop.set()
        while n_running:
            n_running -= _hand_over(results.get(), on_outcome)
        raise
    return sum(len(calls) for calls in waiting)


def _work(
    calls: deque[PlannedCall],
    asker: Asker,
    limits: CallLimits,
    pace: CallPace,
    results: queue.SimpleQueue[_Result],
) -> None:
    end: BaseException | None = None
    try:
        while True:
            try:
                call = calls.popleft()
            except IndexError:
                break
            try:
                results.put(asker.ask_one(call, limits=limits, pace=pace))
            except NotAskedError:
                calls.append(call)
                break
    except BaseException as error:  # it belongs to the thread that waits
        end = error
    results.put(end)


def _hand_over(result: _Result, on_outcome: Callable[[Outcome], None]) -> bool:
    """Hand over an outcome, or raise a worker's error; return whether a worker ended."""
    if isinstance(result, Outcome):
        on_outcome(result)
        return False
    if result is not None:
        raise result
    return True
