"""What a collection spends, and the cap on it: counted on what providers bill, before it is spent."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.types import Candidate, GenerationOptions, Message, PriceTable

__all__ = ["Spending", "is_billed", "most_cost_usd"]

# What chat templates put around a message: role, separators, and at the end the beginning of the answer.
_TOKENS_A_MESSAGE = 16


def is_billed(candidate: Candidate, prices: PriceTable) -> bool:
    """Tell whether a candidate's calls are billed: it has a price, and somebody charges it."""
    price = prices.prices.get(candidate.price_key)
    return price is not None and not price.is_nominal


def most_cost_usd(
    candidate: Candidate,
    messages: Sequence[Message],
    *,
    options: GenerationOptions | None,
    prices: PriceTable,
) -> float | None:
    """Bound what a call can cost before it is made.

    A token is at least one byte of text, so the bytes of the prompt bound its tokens, about four times over
    in English; `max_tokens` bounds the answer's.

    Args:
        candidate: Who would answer.
        messages: What it would be sent.
        options: How it would generate. None leaves the length of the answer open.
        prices: What it charges.

    Returns:
        USD, or None if nothing bounds it, or the price is unknown.
    """
    n_bytes = sum(len(message.content.encode(errors="replace")) + _TOKENS_A_MESSAGE for message in messages)
    return prices.cost_usd(
        candidate,
        input_tokens=n_bytes + _TOKENS_A_MESSAGE,
        output_tokens=None if options is None else options.max_tokens,
    )


class Spending:
    """Counts what a collection is billed, and lets no call begin that could exceed the cap; threads share it.

    Args:
        limit_usd: The cap. None for none.
        spent_usd: What earlier runs of the collection have spent of it.

    Raises:
        InvalidPolicyError: If the cap is negative or not finite.
    """

    def __init__(self, limit_usd: float | None, *, spent_usd: float = 0.0) -> None:
        if limit_usd is not None and not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise InvalidPolicyError(f"The budget must be a finite amount in USD >= 0, got {limit_usd}.")
        self._limit_usd = math.inf if limit_usd is None else limit_usd
        self._earlier_usd = spent_usd
        self._spent_usd = 0.0
        self._reserved_usd: list[float] = []
        self._is_known = True
        self._changed = threading.Condition()

    @property
    def spent_usd(self) -> float | None:
        """What this run was billed, calls of unknown cost at their bound; None if one had no bound."""
        with self._changed:
            return self._spent_usd if self._is_known else None

    def reserve(self, most_usd: float | None) -> bool:
        """Set aside what a call can cost, and wait for calls under way if it does not fit beside theirs.

        Args:
            most_usd: The bound; 0 where nobody bills, None where there is none.

        Returns:
            Whether the call may begin. If not, it could exceed the cap.
        """
        amount = most_usd or 0.0
        with self._changed:
            while amount and not self._fits([amount, *self._reserved_usd]):
                if not self._reserved_usd or not self._fits([amount]):
                    return False
                self._changed.wait()
            self._reserved_usd.append(amount)
            return True

    def settle(self, most_usd: float | None, *, actual_usd: float | None) -> None:
        """Replace what was set aside by what a call did cost.

        Args:
            most_usd: What was reserved.
            actual_usd: The cost; None if unknown: then the bound counts.
        """
        with self._changed:
            self._reserved_usd.remove(most_usd or 0.0)
            amount = most_usd if actual_usd is None else actual_usd
            if amount is None:
                self._is_known = False
            else:
                self._spent_usd += amount
            self._changed.notify_all()

    def _fits(self, wanted_usd: Sequence[float]) -> bool:
        # A cap of 0.3 has room for three calls of 0.1: allow for what binary fractions lose.
        total = math.fsum([self._earlier_usd, self._spent_usd, *wanted_usd])
        return total <= self._limit_usd or math.isclose(total, self._limit_usd, rel_tol=1e-9)
