"""Make the calls of a collection: in batches or one by one, with retries, never beyond the budget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fusion_integrations.collection.call_limits import CallLimits, CallPace
from fusion_integrations.collection.call_retries import call_with_retries
from fusion_integrations.collection.planned_calls import PlannedCall, conversations
from fusion_integrations.collection.spending import Spending, is_billed, most_cost_usd
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, Completion, GenerationOptions, Message, PriceTable

__all__ = ["Asker", "NotAskedError", "Outcome", "may_be_billed"]

logger = logging.getLogger(__name__)


class NotAskedError(Exception):
    """A call was not made: it could exceed the budget, or the run is ending. The next run makes it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a planned call.

    Attributes:
        call: The call.
        answer: The answer, or why there is none.
        n_together: How many calls were made at once with it.
        failed_attempts: Earlier attempts that gave no answer but may be billed.
    """

    call: PlannedCall
    answer: Completion | Exception
    n_together: int = 1
    failed_attempts: tuple[Exception, ...] = ()


class Asker:
    """Calls candidates and counts what that costs; threads share it.

    Args:
        clients: Who runs each model, by `Candidate.model`.
        options: How to generate, by candidate id.
        prices: What the models charge.
        thoughts: Finds the guidance of candidates of prompt mode `thought`.
        spending: Keeps the budget.
        stop: Set when the run ends: waits end, and nothing more is asked.
    """

    def __init__(
        self,
        clients: Mapping[str, ChatClient],
        *,
        options: Mapping[str, GenerationOptions],
        prices: PriceTable,
        thoughts: ThoughtPrompter | None,
        spending: Spending,
        stop: threading.Event,
    ) -> None:
        self._clients = clients
        self._options = options
        self._prices = prices
        self._thoughts = thoughts
        self._spending = spending
        self._stop = stop
        self._prompting = threading.Lock()

    def ask_together(self, calls: Sequence[PlannedCall]) -> list[Outcome]:
        """Make calls of one candidate and sample at once; nobody else's, and without a budget.

        A batch that fails is made again one by one, so that one impossible query costs only itself.

        Args:
            calls: The calls.

        Returns:
            Their outcomes, in order.
        """
        prompted = self._prompted(calls)
        together = self._outcome_of(calls, prompted)
        if not isinstance(together, Exception):
            return [
                Outcome(call=call, answer=answer, n_together=len(calls))
                for call, answer in zip(calls, together, strict=True)
            ]
        if len(calls) == 1:
            return [Outcome(call=calls[0], answer=together)]
        logger.warning(
            "A batch of %d failed for candidate %s (%s); asking one by one.",
            len(calls),
            calls[0].candidate.id,
            type(together).__name__,
        )
        outcomes = []
        for call, messages in zip(calls, prompted, strict=True):
            alone = self._outcome_of([call], [messages])
            outcomes.append(Outcome(call=call, answer=alone if isinstance(alone, Exception) else alone[0]))
        return outcomes

    def ask_one(self, call: PlannedCall, *, limits: CallLimits, pace: CallPace) -> Outcome:
        """Make one call, again if it fails for a passing reason.

        Args:
            call: The call.
            limits: How often to try and how long to wait.
            pace: When the candidate may be called; shared by all its calls.

        Returns:
            Its outcome.

        Raises:
            NotAskedError: If the call could exceed the budget, or the run ends before it is made.
        """
        prompted = self._prompted([call])
        billed_failures: list[Exception] = []

        def attempt() -> Completion:
            if self._stop.is_set():
                raise NotAskedError
            try:
                return self._attempt([call], prompted)[0]
            except CandidateCallError as error:
                if may_be_billed(error):
                    billed_failures.append(error)
                raise

        answer: Completion | Exception
        try:
            answer = call_with_retries(attempt, limits=limits, pace=pace, stop=self._stop)
        except NotAskedError as error:
            if not billed_failures:
                raise
            answer = billed_failures.pop()  # it was asked, and what was paid for has to be on record
            logger.debug("Gave up on %s: %r", call.record_id, error)
        except Exception as error:  # clients wrap anything; whatever one raises must not end the run
            answer = error
            billed_failures = [failure for failure in billed_failures if failure is not error]
        return Outcome(call=call, answer=answer, failed_attempts=tuple(billed_failures))

    def _prompted(self, calls: Sequence[PlannedCall]) -> list[tuple[Message, ...]]:
        with self._prompting:  # embedders and indexes need not be made for several threads
            return conversations(calls[0].candidate, [call.query for call in calls], self._thoughts)

    def _outcome_of(
        self, calls: Sequence[PlannedCall], prompted: Sequence[Sequence[Message]]
    ) -> list[Completion] | Exception:
        try:
            return self._attempt(calls, prompted)
        except Exception as error:  # clients wrap anything; whatever one raises must not end the run
            return error

    def _attempt(
        self, calls: Sequence[PlannedCall], prompted: Sequence[Sequence[Message]]
    ) -> list[Completion]:
        """Call the client once, with what that may cost set aside before and settled after."""
        candidate, options = calls[0].candidate, self._options_of(calls[0])
        most_usd = self._most_usd(candidate, prompted, options)
        if not self._spending.reserve(most_usd):
            raise NotAskedError
        actual_usd: float | None = None
        try:
            completions = self._clients[candidate.model].complete_batch(prompted, options=options)
            if len(completions) != len(prompted):
                message = f"The client gave {len(completions)} answers to {len(prompted)} conversations."
                raise CandidateCallError(message)
            actual_usd = self._actual_usd(candidate, completions)
        except BaseException as error:
            actual_usd = None if may_be_billed(error) and is_billed(candidate, self._prices) else 0.0
            raise
        else:
            return completions
        finally:
            self._spending.settle(most_usd, actual_usd=actual_usd)

    def _options_of(self, call: PlannedCall) -> GenerationOptions | None:
        """Return how to generate; every sample has a seed of its own, or all would be the same."""
        options = self._options.get(call.candidate.id)
        if options is None or options.seed is None:
            return options
        return replace(options, seed=options.seed + call.sample)

    def _most_usd(
        self,
        candidate: Candidate,
        prompted: Sequence[Sequence[Message]],
        options: GenerationOptions | None,
    ) -> float | None:
        if not is_billed(candidate, self._prices):
            return 0.0
        bounds = [
            most_cost_usd(candidate, messages, options=options, prices=self._prices) for messages in prompted
        ]
        known = [bound for bound in bounds if bound is not None]
        return sum(known) if len(known) == len(bounds) else None

    def _actual_usd(self, candidate: Candidate, completions: Sequence[Completion]) -> float | None:
        if not is_billed(candidate, self._prices):
            return 0.0
        costs = [
            self._prices.cost_usd(candidate, input_tokens=each.input_tokens, output_tokens=each.output_tokens)
            for each in completions
        ]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def may_be_billed(error: BaseException) -> bool:
    """Tell whether a call that failed may cost something; only who knows better says no."""
    return error.may_be_billed if isinstance(error, CandidateCallError) else True
