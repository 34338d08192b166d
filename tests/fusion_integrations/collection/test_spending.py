from __future__ import annotations

import threading

import pytest

from fusion_integrations.collection.spending import Spending, is_billed, most_cost_usd
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.types import Candidate, GenerationOptions, Message, Price, PriceTable

TINY = Candidate(id="tiny:direct", model="tiny")
ASKED = (Message(role="user", content="Größe?"),)


def table(**price) -> PriceTable:
    return PriceTable(prices={"tiny": Price(**price)})


def test_is_billed_when_nominal_or_unknown_is_false():
    assert is_billed(TINY, table(input_usd_per_mtok=1.0))
    assert not is_billed(TINY, table(input_usd_per_mtok=1.0, is_nominal=True))
    assert not is_billed(TINY, PriceTable())


def test_most_cost_bounds_prompt_by_bytes_and_answer_by_max_tokens():
    prices = table(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0, usd_per_call=0.5)
    # 8 bytes of text, 16 around the message and 16 for the beginning of the answer; 10 tokens at most.
    bound = most_cost_usd(TINY, ASKED, options=GenerationOptions(max_tokens=10), prices=prices)
    assert bound == pytest.approx(0.5 + 40e-6 + 20e-6)
    assert most_cost_usd(TINY, ASKED, options=None, prices=prices) is None
    assert most_cost_usd(TINY, ASKED, options=None, prices=table(input_usd_per_mtok=1.0)) == pytest.approx(
        40e-6
    )


def test_reserve_when_it_could_exceed_the_limit_refuses():
    spending = Spending(1.0, spent_usd=0.25)
    assert spending.reserve(0.5)
    spending.settle(0.5, actual_usd=0.5)
    assert not spending.reserve(0.3)
    assert spending.reserve(0.25)
    spending.settle(0.25, actual_usd=0.125)
    assert spending.spent_usd == 0.625


def test_reserve_when_calls_add_up_to_the_limit_has_room_for_all():
    spending = Spending(0.3)
    for _ in range(3):
        assert spending.reserve(0.1)
        spending.settle(0.1, actual_usd=0.1)
    assert not spending.reserve(0.1)


def test_reserve_when_calls_under_way_take_the_room_waits_for_them():
    spending, got = Spending(1.0), []
    assert spending.reserve(0.75)
    waiting = threading.Thread(target=lambda: got.append(spending.reserve(0.5)))
    waiting.start()
    waiting.join(timeout=0.05)
    assert waiting.is_alive()
    spending.settle(0.75, actual_usd=0.25)
    waiting.join()
    assert got == [True]


def test_reserve_when_calls_under_way_were_dear_refuses_after_waiting():
    spending, got = Spending(1.0), []
    spending.reserve(0.75)
    waiting = threading.Thread(target=lambda: got.append(spending.reserve(0.5)))
    waiting.start()
    spending.settle(0.75, actual_usd=0.75)
    waiting.join()
    assert got == [False]


def test_reserve_when_nobody_bills_always_has_room():
    spending = Spending(1.0, spent_usd=2.0)
    assert not spending.reserve(0.1)
    assert spending.reserve(0.0)


def test_settle_when_the_cost_is_unknown_counts_the_bound():
    spending = Spending(None)
    spending.reserve(0.5)
    spending.settle(0.5, actual_usd=None)
    assert spending.spent_usd == 0.5
    spending.reserve(None)
    spending.settle(None, actual_usd=None)
    assert spending.spent_usd is None


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_spending_when_the_limit_is_no_amount_is_refused(limit):
    with pytest.raises(InvalidPolicyError, match="finite amount"):
        Spending(limit)
