"""Collecting call by call from a real server: limits, retries, budget, samples, resuming."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta

import pytest

from fusion_integrations.clients.openai_client import OpenAIClient
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.collector import LogCollector
from fusion_integrations.errors import (
    CandidateCallError,
    InvalidPolicyError,
    LogSchemaError,
    UnknownCandidateError,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Candidate, GenerationOptions, Price, PriceTable, Query

FAST = CallLimits(concurrency=4, n_tries=3, retry_wait_s=0.001)
FIRST = Candidate(id="first", model="tiny", revision="direct-1")
SECOND = Candidate(id="second", model="tiny", prompt_mode="reasoning", revision="reasoning-1")
# One USD a call: budgets in these tests count calls.
A_DOLLAR = PriceTable(prices={"tiny": Price(usd_per_call=1.0)})


def queries(n: int) -> list[Query]:
    return [Query.from_text(f"question {i}") for i in range(n)]


@pytest.fixture
def store(tmp_path):
    with LogStore.open(tmp_path / "logs.sqlite") as opened:
        yield opened


@pytest.fixture
def reply(openai_server):
    """Make a reply of the server."""
    return type(openai_server).answer.__globals__["Reply"]


@pytest.fixture
def collector(openai_server, store):
    def make(**settings) -> LogCollector:
        ticks = itertools.count()
        lock = threading.Lock()

        def clock() -> datetime:
            with lock:
                return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks))

        candidates = settings.get("candidates", [FIRST])
        client = OpenAIClient("tiny", base_url=openai_server.url, timeout_s=settings.pop("timeout_s", 30))
        return LogCollector(
            {"tiny": client},
            **{
                "candidates": candidates,
                "store": store,
                "collection": "test",
                "prices": A_DOLLAR,
                "options": {candidate.id: GenerationOptions(max_tokens=50) for candidate in candidates},
                "limits": {candidate.id: FAST for candidate in candidates},
                "clock": clock,
                **settings,
            },
        )

    return make


def failing_at_first(reply, openai_server, *failures):
    """Fail every question as listed, then answer it."""
    seen: dict[str, int] = {}

    def script(body):
        text = body["messages"][-1]["content"]
        with openai_server.lock:
            seen[text] = seen.get(text, 0) + 1
        return failures[seen[text] - 1] if seen[text] <= len(failures) else reply()

    openai_server.reply = script


def test_collect_when_candidates_have_limits_asks_them_at_once_and_within_their_limits(
    collector, openai_server, store, reply
):
    barrier = threading.Barrier(2 * 2)  # opens only if both candidates have two calls under way

    def script(body):
        barrier.wait(timeout=30)
        return reply()

    openai_server.reply = script
    limits = CallLimits(concurrency=2)
    report = collector(candidates=[FIRST, SECOND], limits={"first": limits, "second": limits}).collect(
        queries(6)
    )
    assert (report.n_done, report.n_failed, report.cost_usd, report.billed_usd) == (12, 0, 12.0, 12.0)
    assert openai_server.most_at_once == 4
    assert store.stats().n_records_by_candidate == {"first": 6, "second": 6}
    records = list(store.records())
    assert {record.response for record in records if record.candidate_id == "first"} == {
        f"You asked: question {i}" for i in range(6)
    }
    assert all(record.messages[0].content.startswith("question") for record in records)
    assert all(record.latency_s > 0 for record in records)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_collect_when_the_server_is_busy_tries_again(collector, openai_server, store, reply, status):
    busy = reply(status=status)
    failing_at_first(reply, openai_server, busy, busy)
    report = collector().collect(queries(5))
    assert (report.n_done, report.n_failed, report.billed_usd) == (5, 0, 5.0)
    assert len(openai_server.requests) == 15
    # A refusal costs nothing and says little: the answers are on record.
    assert [record.error for record in store.records()] == [None] * 5


def test_collect_when_told_to_wait_holds_all_calls_of_the_candidate_back(collector, openai_server, reply):
    failing_at_first(reply, openai_server, reply(status=429, headers={"retry-after": "0.05"}))
    report = collector(limits={"first": CallLimits(concurrency=2, n_tries=2, retry_wait_s=30)}).collect(
        queries(4)
    )
    # With retry_wait_s of 30 this ends only because the server's word counts.
    assert (report.n_done, report.n_failed) == (4, 0)


def test_collect_when_told_to_wait_too_long_gives_up(collector, openai_server, store, reply):
    openai_server.reply = lambda _: reply(status=429, headers={"retry-after": "600"})
    report = collector().collect(queries(2))
    assert (report.n_done, report.n_failed) == (0, 2)
    assert len(openai_server.requests) == 2


def test_collect_when_it_fails_for_good_records_why_and_the_next_run_tries_again(
    collector, openai_server, store, reply
):
    def script(body):
        return reply(status=400, text="too hard") if body["messages"][0]["content"] == "question 1" else None

    openai_server.reply = script
    report = collector().collect(queries(3))
    assert (report.n_done, report.n_failed, report.cost_usd, report.billed_usd) == (2, 1, 2.0, 2.0)
    assert len(openai_server.requests) == 3
    (failed,) = [record for record in store.records() if record.error]
    assert "BadRequestError" in failed.error
    assert "too hard" in failed.error
    assert failed.cost_usd == 0.0  # refused, so nobody charges it

    openai_server.reply = lambda _: None
    report = collector(clock=lambda: datetime(2026, 2, 1, tzinfo=UTC)).collect(queries(3))
    assert (report.n_done, report.n_skipped) == (1, 2)


@pytest.mark.parametrize("body", ["{", '{"choices": []}'])
def test_collect_when_a_reply_is_broken_counts_it_as_billed_and_keeps_it_on_record(
    collector, openai_server, store, reply, body
):
    failing_at_first(reply, openai_server, reply(body=body))
    report = collector().collect(queries(2))
    assert (report.n_done, report.n_failed, report.cost_usd) == (2, 0, 2.0)
    assert report.billed_usd == 4.0  # the broken replies may have been charged
    failed = [record for record in store.records() if record.error]
    assert len(failed) == 2
    assert all("no chat completion" in record.error and record.cost_usd is None for record in failed)


def test_collect_when_the_server_is_silent_records_timeouts_as_possibly_billed(
    collector, openai_server, store, reply
):
    release = threading.Event()
    openai_server.reply = lambda _: release.wait(timeout=30) and None
    limits = CallLimits(concurrency=2, n_tries=2, retry_wait_s=0)
    try:
        report = collector(limits={"first": limits}, timeout_s=0.1).collect(queries(2))
    finally:
        release.set()
    assert (report.n_done, report.n_failed, report.cost_usd, report.billed_usd) == (0, 2, 0.0, 4.0)
    errors = [record.error for record in store.records()]
    assert len(errors) == 4
    assert all("APITimeoutError" in error for error in errors)


def test_collect_when_the_budget_ends_stops_before_exceeding_it_and_goes_on_with_more(
    collector, openai_server, store
):
    report = collector(budget_usd=3.5).collect(queries(10))
    assert (report.n_done, report.n_left, report.billed_usd) == (3, 7, 3.0)
    assert len(openai_server.requests) == 3

    # What was spent before counts: the same budget has no room, a larger one has for what it adds.
    assert collector(budget_usd=3.5).collect(queries(10)).n_left == 7
    report = collector(budget_usd=5.0).collect(queries(10))
    assert (report.n_done, report.n_skipped, report.n_left, report.billed_usd) == (2, 3, 5, 2.0)
    report = collector(budget_usd=None).collect(queries(10))
    assert (report.n_done, report.n_left) == (5, 0)
    assert len(openai_server.requests) == 10


def test_collect_when_a_candidate_was_renamed_what_it_spent_counts(collector, openai_server):
    collector(budget_usd=3.0).collect(queries(3))
    renamed = Candidate(id="other", model="tiny", revision="direct-1")
    report = collector(candidates=[renamed], budget_usd=4.0).collect(queries(3))
    assert (report.n_done, report.n_left) == (1, 2)
    assert len(openai_server.requests) == 4


def test_collect_when_a_text_is_none_that_a_log_can_hold_says_so_before_asking(collector, openai_server):
    broken = Query.from_text("What does \ud83d mean?")
    with pytest.raises(LogSchemaError, match="half of a surrogate pair"):
        collector().collect([*queries(1), broken])
    assert openai_server.requests == []


def test_collect_when_costs_are_below_their_bounds_uses_the_whole_budget(collector, openai_server):
    # A bound of 44 to 60 USD a call, by bytes and 10 answer tokens; they cost 2 + 4 tokens: 6 USD.
    prices = PriceTable(prices={"tiny": Price(input_usd_per_mtok=1e6, output_usd_per_mtok=1e6)})
    options = {"first": GenerationOptions(max_tokens=10)}
    report = collector(prices=prices, options=options, budget_usd=100.0).collect(queries(50))
    assert report.billed_usd == 6 * report.n_done
    # It stops when less than a bound (10 bytes + 32 + 10 tokens, for two digits 11) is left.
    assert 100 - 53 < report.billed_usd <= 100


def test_collect_when_failures_may_be_billed_they_count_towards_the_budget(
    collector, openai_server, store, reply
):
    openai_server.reply = lambda _: reply(body="{")
    limits = CallLimits(concurrency=1, n_tries=2, retry_wait_s=0)
    report = collector(limits={"first": limits}, budget_usd=3.0).collect(queries(5))
    # Two attempts for the first question, one for the second; then nothing fits.
    assert len(openai_server.requests) == 3
    assert (report.n_done, report.billed_usd) == (0, 3.0)
    assert (report.n_failed, report.n_left) == (2, 3)
    assert store.stats().n_failed == 3
    # The next run knows of them.
    openai_server.reply = lambda _: None
    assert collector(limits={"first": limits}, budget_usd=4.0).collect(queries(5)).n_done == 1


def test_collect_when_prices_are_nominal_no_budget_stops_it(collector):
    nominal = PriceTable(prices={"tiny": Price(usd_per_call=1.0, is_nominal=True)})
    report = collector(prices=nominal, budget_usd=0.0).collect(queries(3))
    assert (report.n_done, report.cost_usd, report.billed_usd, report.n_left) == (3, 3.0, 0.0, 0)


def test_collect_when_billed_without_limits_obeys_the_budget_too(collector, openai_server):
    report = collector(limits={}, budget_usd=2.0).collect(queries(5))
    assert (report.n_done, report.n_left) == (2, 3)
    assert len(openai_server.requests) == 2


def test_collect_when_samples_are_wanted_asks_each_with_a_seed_of_its_own(collector, openai_server, store):
    options = {"first": GenerationOptions(max_tokens=9, temperature=0.7, seed=5)}
    report = collector(options=options, samples={"first": 3}).collect(queries(2))
    assert report.n_done == 6
    records = list(store.records())
    assert len({record.record_id for record in records}) == 6
    assert sorted((record.messages[0].content, record.sample) for record in records) == [
        (f"question {i}", sample) for i in range(2) for sample in range(3)
    ]
    assert sorted(request["seed"] for request in openai_server.requests) == [5, 5, 6, 6, 7, 7]
    # More samples later: only those.
    report = collector(options=options, samples={"first": 4}).collect(queries(2))
    assert (report.n_done, report.n_skipped) == (2, 6)


def test_collect_when_the_store_fails_asks_no_more_and_says_why(collector, openai_server, store):
    store.close()
    opened = collector()
    opened._store = type("Broken", (), {"known": lambda *_: set(), "add": lambda *_: 1 / 0})()
    with pytest.raises(ZeroDivisionError):
        opened.collect(queries(200))
    assert len(openai_server.requests) < 20


def test_collect_when_interrupted_stores_what_is_under_way(collector, openai_server, store):
    def interrupt(news):
        if news.n_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collector(on_progress=interrupt).collect(queries(100))
    n_asked = len(openai_server.requests)
    assert 3 <= n_asked <= 3 + 2 * FAST.concurrency
    assert store.stats().n_records == n_asked
    assert collector().collect(queries(100)).n_skipped == n_asked


def test_estimate_says_what_a_collection_costs_without_asking(collector, openai_server, store):
    prices = PriceTable(prices={"tiny": Price(input_usd_per_mtok=4.0, output_usd_per_mtok=10.0)})
    (estimate,) = collector(prices=prices).estimate(queries(10))
    # 10 characters a question are 2.5 tokens; nothing is known of answers but their bound of 50.
    assert (estimate.n_calls, estimate.n_known) == (10, 0)
    assert (estimate.input_tokens, estimate.output_tokens) == (25.0, 500.0)
    assert estimate.cost_usd == pytest.approx(25 * 4e-6 + 500 * 10e-6)
    assert estimate.most_cost_usd == pytest.approx(10 * (42 * 4e-6 + 50 * 10e-6))
    assert estimate.is_billed
    assert openai_server.requests == []

    collector(prices=prices).collect(queries(4))
    (estimate,) = collector(prices=prices).estimate(queries(10))
    assert (estimate.n_calls, estimate.n_known) == (6, 4)
    assert estimate.output_tokens == 6 * 4  # as the answers were: "You asked: question 1"


def test_estimate_when_priced_by_the_call_counts_every_call(collector):
    estimates = collector(candidates=[FIRST, SECOND], options={}).estimate(queries(3))
    assert [(each.cost_usd, each.most_cost_usd, each.output_tokens) for each in estimates] == [
        (3.0, 3.0, None)
    ] * 2
    (nothing,) = collector().estimate([])
    assert (nothing.n_calls, nothing.cost_usd, nothing.most_cost_usd) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"prices": PriceTable(), "budget_usd": 1.0}, InvalidPolicyError, "needs the price of model 'tiny'"),
        (
            {
                "prices": PriceTable(prices={"tiny": Price(output_usd_per_mtok=1.0)}),
                "options": {},
                "budget_usd": 1.0,
            },
            InvalidPolicyError,
            "needs a bound on the answers of 'first'",
        ),
        ({"samples": {"first": 2}}, InvalidPolicyError, "2 samples of 'first' would all be the same"),
        ({"samples": {"first": 0}}, InvalidPolicyError, "must be at least 1, got 0"),
        ({"samples": {"nobody": 1}}, UnknownCandidateError, "Samples are given for"),
        ({"limits": {"nobody": FAST}}, UnknownCandidateError, "Limits are given for"),
        ({"budget_usd": -1.0}, InvalidPolicyError, "finite amount in USD"),
    ],
)
def test_collector_when_a_setting_does_not_fit_fails_before_any_call(
    collector, openai_server, settings, error, says
):
    with pytest.raises(error, match=says):
        collector(**settings).collect(queries(1))
    assert openai_server.requests == []


def test_candidate_call_error_may_be_billed_unless_somebody_knows_better():
    assert CandidateCallError("x").may_be_billed
    assert not CandidateCallError("x").is_transient
