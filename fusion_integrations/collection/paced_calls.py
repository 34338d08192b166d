"""Ask one model many conversations within its limits, so that a call that fails costs only its own answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.collection.call_retries import call_with_retries
from fusion_integrations.collection.worker_threads import run_on_threads
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.protocols import ChatClient
from fusion_integrations.types import Completion, GenerationOptions, Message

__all__ = ["PacedCalls"]


class PacedCalls:
    """Asks a model call by call: so many at once, so many a minute, and again where the reason will pass.

    The pace goes on from one use to the next. Use it from one thread at a time.

    Args:
        client: Runs the model.
        limits: How fast it may be called, and how often to try.
    """

    def __init__(self, client: ChatClient, *, limits: CallLimits) -> None:
        self._client = client
        self._limits = limits
        self._stop = threading.Event()
        self._pace = CallPace(limits.requests_per_minute, wait=self._wait)

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions
    ) -> list[Completion | CandidateCallError]:
        """Ask every conversation.

        Whatever ends this early, such as Ctrl-C: no further call is made, and those under way are left alone.

        Args:
            conversations: n conversations, each oldest message first.
            options: How to generate.

        Returns:
            n answers, in their order; the error where a call failed.
        """
        stop = self._stop = threading.Event()
        waiting = deque(enumerate(conversations))
        answers: dict[int, Completion | CandidateCallError] = {}

        def ask() -> None:
            while not stop.is_set():
                try:
                    number, messages = waiting.popleft()
                except IndexError:
                    return
                answers[number] = self._ask(messages, options, stop)

        n_threads = min(self._limits.concurrency, len(conversations))
        run_on_threads([ask] * n_threads, stop=stop, finishes=False)
        return [answers[number] for number in range(len(conversations))]

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)  # of the use that is under way

    def _ask(
        self, messages: Sequence[Message], options: GenerationOptions, stop: threading.Event
    ) -> Completion | CandidateCallError:
        def attempt() -> Completion:
            if stop.is_set():
                raise CandidateCallError("The run ended before the call.", may_be_billed=False)
            return self._client.complete(messages, options=options)

        try:
            return call_with_retries(attempt, limits=self._limits, pace=self._pace, stop=stop)
        except CandidateCallError as error:
            return error
