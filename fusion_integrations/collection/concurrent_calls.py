"""Make the calls of several candidates at the same time, each candidate at its own pace."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fusion_integrations.collection.asking import Asker, NotAskedError, Outcome
from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.collection.planned_calls import CandidatePlan, PlannedCall
from fusion_integrations.collection.worker_threads import run_on_threads

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
    waiting = [deque(plan.missing) for plan in plans]
    jobs: list[Callable[[], None]] = []
    for plan, calls in zip(plans, waiting, strict=True):
        own = limits[plan.candidate.id]
        pace = CallPace(own.requests_per_minute, wait=stop.wait)
        job = partial(
            _make_calls, calls, asker=asker, limits=own, pace=pace, stop=stop, on_outcome=on_outcome
        )
        jobs += [job] * min(own.concurrency, len(calls))
    run_on_threads(jobs, stop=stop, finishes=True)
    return sum(len(calls) for calls in waiting)


def _make_calls(
    calls: deque[PlannedCall],
    *,
    asker: Asker,
    limits: CallLimits,
    pace: CallPace,
    stop: threading.Event,
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Make calls until there are none, or no more may be made."""
    while calls and not stop.is_set():
        try:
            call = calls.popleft()
        except IndexError:
            return  # another thread took the last
        try:
            outcome = asker.ask_one(call, limits=limits, pace=pace)
        except NotAskedError:
            calls.append(call)
            return
        on_outcome(outcome)
