from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.paced_calls import PacedCalls
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import GenerationOptions, Message

OPTIONS = GenerationOptions(max_tokens=50)


def conversations(n):
    return [[Message(role="user", content=f"question {i}")] for i in range(n)]


def failing_once(error):
    """A client whose every call fails, then answers."""
    seen = set()

    def answer(messages):
        if messages[0].content not in seen:
            seen.add(messages[0].content)
            raise error
        return "yes"

    return ScriptedChatClient("tiny", answer=answer)


def test_calls_when_concurrency_is_limited_asks_so_many_at_once_in_order():
    barrier = threading.Barrier(2)  # opens only if two calls are under way
    threads = set()

    def answer(messages):
        threads.add(threading.get_ident())
        barrier.wait(timeout=30)
        return messages[0].content

    calls = PacedCalls(ScriptedChatClient("tiny", answer=answer), limits=CallLimits(concurrency=2))
    answers = calls(conversations(6), options=OPTIONS)
    assert [answer.text for answer in answers] == [f"question {i}" for i in range(6)]
    assert len(threads) == 2


def test_calls_when_the_rate_is_limited_keeps_the_pace_from_one_use_to_the_next():
    started = []
    client = ScriptedChatClient("tiny", answer=lambda _: started.append(time.monotonic()) or "yes")
    calls = PacedCalls(client, limits=CallLimits(requests_per_minute=3_000))
    calls(conversations(3), options=OPTIONS)
    calls(conversations(3), options=OPTIONS)
    # Six calls, 20 ms apart; clocks and waits differ by a little.
    assert started[-1] - started[0] > 0.09


def test_calls_when_the_reason_passes_tries_again_only_what_failed():
    client = failing_once(CandidateCallError("busy", is_transient=True))
    calls = PacedCalls(client, limits=CallLimits(n_tries=2, retry_wait_s=0))
    assert [answer.text for answer in calls(conversations(3), options=OPTIONS)] == ["yes"] * 3
    assert len(client.calls) == 6


@pytest.mark.parametrize("is_transient", [True, False])
def test_calls_when_one_fails_for_good_gives_its_error_beside_the_other_answers(is_transient):
    def answer(messages):
        if messages[0].content == "question 1":
            raise CandidateCallError("out of order", is_transient=is_transient)
        return "yes"

    client = ScriptedChatClient("tiny", answer=answer)
    calls = PacedCalls(client, limits=CallLimits(n_tries=3, retry_wait_s=0))
    first, second, third = calls(conversations(3), options=OPTIONS)
    assert (first.text, str(second), third.text) == ("yes", "out of order", "yes")
    assert len(client.calls) == 2 + (3 if is_transient else 1)


class EndedError(Exception):
    pass


def test_calls_when_something_ends_them_makes_none_that_waits():
    def answer(_):
        raise EndedError

    client = ScriptedChatClient("tiny", answer=answer)
    # One at a time in an hour: this ends only because the others are given up.
    calls = PacedCalls(client, limits=CallLimits(concurrency=3, requests_per_minute=1 / 60))
    with pytest.raises(EndedError):
        calls(conversations(3), options=OPTIONS)
    assert len(client.calls) == 1


def test_calls_when_used_after_something_ended_them_asks_again():
    client = failing_once(EndedError())
    calls = PacedCalls(client, limits=CallLimits(concurrency=1))
    with pytest.raises(EndedError):
        calls(conversations(1), options=OPTIONS)
    assert [answer.text for answer in calls(conversations(1), options=OPTIONS)] == ["yes"]


# The call under way never ends: neither does this where Ctrl-C waits for it.
INTERRUPTED = """
import os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have this process ignore it
import polars  # makes system calls go on after a signal
from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.paced_calls import PacedCalls
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import GenerationOptions, Message

def answer(_):
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()  # the main thread waits by then
    threading.Event().wait()

client = ScriptedChatClient("tiny", answer=answer)
calls = PacedCalls(client, limits=CallLimits(concurrency=1))
try:
    calls([[Message(role="user", content="Why?")]] * 2, options=GenerationOptions())
except KeyboardInterrupt:
    print("interrupted after", len(client.calls))
"""


def test_calls_when_interrupted_under_way_then_end_at_once():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "interrupted after 1"
