"""Make the calls of several candidates at the same time, each candidate at its own pace."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fusion_integrations.collection.asking import Asker, NotAskedError, Outcome
from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.collection.planned_calls import CandidatePlan, PlannedCall
from fusion_integrations.collection.worker_threads import run_workers

__all__ = ["call_concurrently"]


def call_concurrently(
    plans: Sequence[CandidatePlan],
    *,
    asker: Asker,
    limits: Mapping[str, CallLimits],
    stop: threading.Event,
    on_outcome: Callable[[Outcome], None],
) -> int:
    """Make all calls, and hand over every outcome before its thread makes another.

    Whatever ends this early, Ctrl-C or a failing `on_outcome`: no further call is made, and what the calls
    under way bring is handed over first.

    Args:
        plans: The calls, by candidate.
        asker: Makes them.
        limits: By candidate id.
        stop: Is set to end early.
        on_outcome: Told of every outcome, on the thread that made the call.

    Returns:
        How many calls were not made, for lack of budget.
    """
    work = _Work(asker=asker, stop=stop, on_outcome=on_outcome)
    waiting = [deque(plan.missing) for plan in plans]
    workers: list[threading.Thread] = []
    for plan, calls in zip(plans, waiting, strict=True):
        own = limits[plan.candidate.id]
        pace = CallPace(own.requests_per_minute, wait=stop.wait)
        workers += [
            # Not waited for when the process is told to end a second time.
            threading.Thread(target=work.run, args=[calls, own, pace], daemon=True)
            for _ in range(min(own.concurrency, len(calls)))
        ]
    run_workers(workers, stop=stop, finishes=True)
    if work.failure is not None:
        raise work.failure
    return sum(len(calls) for calls in waiting)


@dataclass(kw_only=True)
class _Work:
    """What the threads share."""

    asker: Asker
    stop: threading.Event
    on_outcome: Callable[[Outcome], None]
    failure: BaseException | None = None

    def run(self, calls: deque[PlannedCall], limits: CallLimits, pace: CallPace) -> None:
        """Make calls until there are none, or no more may be made."""
        try:
            while calls and not self.stop.is_set():
                try:
                    call = calls.popleft()
                except IndexError:
                    return  # another thread took the last
                try:
                    outcome = self.asker.ask_one(call, limits=limits, pace=pace)
                except NotAskedError:
                    calls.append(call)
                    return
                self.on_outcome(outcome)
        except BaseException as error:  # it belongs to the thread that waits for this one
            self.failure = self.failure or error
            self.stop.set()
