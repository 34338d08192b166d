"""Estimate what a collection will cost before its first call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion_integrations.collection.planned_calls import CandidatePlan
from fusion_integrations.collection.spending import is_billed, most_cost_usd
from fusion_integrations.types import GenerationOptions, Message, PriceTable

__all__ = ["CandidateEstimate", "estimate_calls"]

# English text in the tokenizers of today; other languages and code have fewer characters a token.
_CHARACTERS_A_TOKEN = 4.0


@dataclass(frozen=True, kw_only=True)
class CandidateEstimate:
    """What the missing answers of one candidate will take.

    Attributes:
        candidate_id: Who answers.
        n_calls: Calls to make.
        n_known: Answers that the store has.
        input_tokens: Prompt tokens, about: a token is taken to be four characters.
        output_tokens: Answer tokens, about: as many a call as in the candidate's stored answers, or as
            `max_tokens` allows where there are none. None if nothing says.
        cost_usd: Cost of that; None if unknown.
        most_cost_usd: What it cannot exceed, retries aside; None if nothing bounds it.
        is_billed: Whether anybody charges it; False for nominal and unknown prices.
    """

    candidate_id: str
    n_calls: int
    n_known: int
    input_tokens: float
    output_tokens: float | None
    cost_usd: float | None
    most_cost_usd: float | None
    is_billed: bool


def estimate_calls(
    plan: CandidatePlan,
    conversations: Sequence[Sequence[Message]],
    *,
    options: Mapping[str, GenerationOptions],
    prices: PriceTable,
    mean_output_tokens: Mapping[str, float],
) -> CandidateEstimate:
    """Estimate the calls of one candidate.

    Args:
        plan: The calls.
        conversations: What each of the missing ones sends, in their order.
        options: How to generate, by candidate id.
        prices: What the models charge.
        mean_output_tokens: Length of stored answers, by candidate id.

    Returns:
        The estimate.
    """
    candidate, n_calls = plan.candidate, len(plan.missing)
    own = options.get(candidate.id)
    n_characters = sum(len(message.content) for messages in conversations for message in messages)
    input_tokens = n_characters / _CHARACTERS_A_TOKEN
    a_call = mean_output_tokens.get(candidate.id, None if own is None else float(own.max_tokens))
    output_tokens = 0.0 if not n_calls else None if a_call is None else a_call * n_calls
    price = prices.prices.get(candidate.price_key)
    cost = prices.cost_usd(candidate, input_tokens=input_tokens, output_tokens=output_tokens)
    if cost is not None and price is not None:
        cost += price.usd_per_call * (n_calls - 1)  # the table prices one call
    bounds = [most_cost_usd(candidate, messages, options=own, prices=prices) for messages in conversations]
    known = [bound for bound in bounds if bound is not None]
    return CandidateEstimate(
        candidate_id=candidate.id,
        n_calls=n_calls,
        n_known=plan.n_known,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost,
        most_cost_usd=sum(known) if len(known) == len(bounds) else None,
        is_billed=is_billed(candidate, prices),
    )
