"""Make one call within its candidate's limits, and again where it failed for a passing reason."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.errors import CandidateCallError

__all__ = ["call_with_retries"]

_T = TypeVar("_T")


def call_with_retries(
    attempt: Callable[[], _T], *, limits: CallLimits, pace: CallPace, stop: threading.Event
) -> _T:
    """Make a call when its turn comes, and again if it fails for a passing reason.

    Args:
        attempt: Makes the call once; what it raises besides `CandidateCallError` ends this.
        limits: How often to try and how long to wait.
        pace: When the candidate may be called; shared by all its calls.
        stop: When set, waits end at once; `attempt` has to look.

    Returns:
        What `attempt` returns.

    Raises:
        CandidateCallError: If the last attempt failed, or one for a reason that does not pass.
    """

    def take_turn() -> _T:
        pace.take_turn()
        try:
            return attempt()
        except CandidateCallError as error:
            if error.retry_after_s is not None and _is_worth_another_try(error, limits):
                pace.pause(error.retry_after_s)
            raise

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _is_worth_another_try(error, limits)),
        stop=tenacity.stop_after_attempt(limits.n_tries),
        wait=_Wait(limits),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )
    return retrying(take_turn)


def _is_worth_another_try(error: BaseException, limits: CallLimits) -> bool:
    if not isinstance(error, CandidateCallError) or not error.is_transient:
        return False
    return error.retry_after_s is None or error.retry_after_s <= limits.max_retry_wait_s


class _Wait(tenacity.wait.wait_base):
    """Waits as long as the server asks, or twice as long each time with a random part."""

    def __init__(self, limits: CallLimits) -> None:
        self._by_itself = tenacity.wait_exponential(
            multiplier=limits.retry_wait_s, max=limits.max_retry_wait_s
        ) + tenacity.wait_random(0, limits.retry_wait_s)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, CandidateCallError) and error.retry_after_s is not None:
            return error.retry_after_s
        return self._by_itself(retry_state)
