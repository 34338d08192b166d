"""How fast a candidate may be called: so many calls at once, so many a minute, and pauses when told to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fusion_integrations.errors import InvalidPolicyError

__all__ = ["CallLimits", "CallPace"]


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """How to call one candidate's model, call by call.

    Attributes:
        concurrency: Most calls at once.
        requests_per_minute: Most calls to start in a minute, evenly spread; None for no limit.
        n_tries: How often to make a call that fails for a passing reason.
        retry_wait_s: Seconds to wait before the second try where the server names none; twice as long before
            each further one, and a random part more.
        max_retry_wait_s: Longest wait; a server that asks for a longer one has refused the call.
    """

    concurrency: int = 4
    requests_per_minute: float | None = None
    n_tries: int = 5
    retry_wait_s: float = 1.0
    max_retry_wait_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidPolicyError: If one is out of range.
        """
        rate = self.requests_per_minute
        if self.concurrency < 1 or self.n_tries < 1 or (rate is not None and not rate > 0):
            raise InvalidPolicyError(f"CallLimits must be positive, got {self}.")
        for wait in (self.retry_wait_s, self.max_retry_wait_s):
            if not (math.isfinite(wait) and wait >= 0):
                raise InvalidPolicyError(f"The waits of CallLimits must be finite and >= 0, got {self}.")


class CallPace:
    """Spreads the calls of one candidate; threads share it.

    Args:
        requests_per_minute: Most calls to start in a minute; None for no limit.
        wait: Waits for so many seconds.
        now: Gives a time in seconds that never goes back.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        *,
        wait: Callable[[float], object],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._wait = wait
        self._now = now
        self._lock = threading.Lock()
        self._next_at = -math.inf

    def take_turn(self) -> None:
        """Wait until the next call may start."""
        with self._lock:
            now = self._now()
            turn_at = max(now, self._next_at)
            self._next_at = turn_at + self._interval_s
        if turn_at > now:
            self._wait(turn_at - now)

    def pause(self, seconds: float) -> None:
        """Start no call for so long: what a server asks of one caller holds for all."""
        with self._lock:
            self._next_at = max(self._next_at, self._now() + seconds)
