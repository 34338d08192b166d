from __future__ import annotations

import pytest

from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.errors import InvalidPolicyError


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


def test_take_turn_when_limited_spreads_calls_evenly():
    clock = Clock()
    pace = CallPace(120, wait=clock.wait, now=clock.now)
    for _ in range(4):
        pace.take_turn()
    assert clock.waits == [0.5, 0.5, 0.5]


def test_take_turn_after_a_rest_lets_no_burst_through():
    clock = Clock()
    pace = CallPace(60, wait=clock.wait, now=clock.now)
    pace.take_turn()
    clock.now_s += 10
    for _ in range(3):
        pace.take_turn()
    assert clock.waits == [1.0, 1.0]


def test_take_turn_when_unlimited_never_waits():
    clock = Clock()
    pace = CallPace(None, wait=clock.wait, now=clock.now)
    for _ in range(5):
        pace.take_turn()
    assert clock.waits == []


def test_pause_holds_every_call_back_and_a_shorter_one_changes_nothing():
    clock = Clock()
    pace = CallPace(None, wait=clock.wait, now=clock.now)
    pace.pause(7)
    pace.pause(3)
    pace.take_turn()
    pace.take_turn()
    assert clock.waits == [7.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"requests_per_minute": 0},
        {"requests_per_minute": float("nan")},
        {"n_tries": 0},
        {"retry_wait_s": -1},
        {"max_retry_wait_s": float("inf")},
    ],
)
def test_limits_when_out_of_range_are_refused(settings):
    with pytest.raises(InvalidPolicyError, match="CallLimits"):
        CallLimits(**settings)
