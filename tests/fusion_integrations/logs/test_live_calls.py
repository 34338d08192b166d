from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from fusion_integrations.logs import live_calls
from fusion_integrations.logs.live_calls import LiveCall, LiveCallLog
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Completion, Message


def call(model: str = "tiny", text: str = "What is 3 plus 4?", **fields) -> LiveCall:
    return LiveCall(messages=(Message(role="user", content=text),), model=model, **fields)


def answer(text: str = "seven") -> Completion:
    return Completion(text=text, model="tiny")


@pytest.fixture
def store():
    with LogStore.open(":memory:") as opened:
        yield opened


@pytest.fixture
def log(store):
    opened = LiveCallLog(store, source="tests", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    yield opened
    opened.close()


def logged(log, store):
    log.writer.flush()
    return list(store.records())


def test_end_when_the_run_is_unknown_or_ended_records_nothing(log, store):
    log.end("never-begun", answer())
    log.begin("a", call())
    log.end("a", answer())
    log.end("a", answer("again"))
    log.fail("a", RuntimeError("late"))
    assert [(each.record_id, each.response) for each in logged(log, store)] == [("a", "seven")]


def test_record_when_text_has_a_lone_surrogate_escapes_it(log, store):
    log.begin("a", call(text="odd \ud800"))
    log.end("a", answer("odd \udfff"))
    (record,) = logged(log, store)
    assert (record.messages[0].content, record.response) == ("odd \\ud800", "odd \\udfff")


def test_begin_when_deep_inside_another_call_makes_every_outer_one_a_wrapper(log, store):
    for run_id, parent_id in (("a", None), ("a1", "a"), ("b", "a1"), ("b1", "b"), ("b2", "b1"), ("c", "b2")):
        log.enter(run_id, parent_id=parent_id)
        if run_id in "abc":
            log.begin(run_id, call(model=run_id, session_id="s" if run_id == "a" else None))
    for run_id in ("c", "b2", "b1", "b", "a1", "a"):
        log.leave(run_id)
        log.end(run_id, answer())
    (record,) = logged(log, store)
    assert (record.record_id, record.model, record.session_id) == ("c", "c", "s")


def test_begin_when_inside_a_recorded_call_is_recorded_too(log, store):
    log.begin("a", call(is_recorded=True))
    log.enter("b", parent_id="a")
    log.begin("b", call())
    log.end("b", answer())
    log.end("a", answer())
    assert logged(log, store) == []


def test_leave_when_cancelled_records_what_had_come_of_the_calls_inside(log, store):
    log.enter("a", parent_id=None)
    for run_id, parent_id in (("b", "a"), ("c", "b"), ("d", "a"), ("e", "other")):
        log.enter(run_id, parent_id=parent_id)
        log.begin(run_id, call(model=run_id), parent_id=parent_id)
    log.add_text("d", "sev")
    log.leave("a", error=asyncio.CancelledError())
    log.end("c", answer("late"))
    assert [(each.model, each.response, each.finish_reason) for each in logged(log, store)] == [
        ("c", None, None),
        ("d", "sev", "abandoned"),
    ]


def test_leave_when_a_run_fails_by_itself_lets_its_calls_go_on(log, store):
    log.begin("b", call(), parent_id="a")
    log.begin("c", call(), parent_id="a")
    log.leave("a", error=TimeoutError())
    log.end("b", answer())
    log.close()
    assert [(each.response, each.error) for each in logged(log, store)] == [
        ("seven", None),
        (None, "CancelledError: The run around the call ended before it."),
    ]


def test_close_when_calls_are_open_counts_them_or_records_what_had_come(log, store, caplog):
    log.begin("silent", call())
    log.begin("begun", call())
    log.add_text("begun", "sev")
    log.begin("somebody else's", call(is_recorded=True))
    log.begin("outer", call())
    log.enter("inner", parent_id="outer")
    log.begin("inner", call())
    log.end("inner", answer())
    log.close()
    log.close()
    assert {each.record_id: each.response for each in logged(log, store)} == {
        "begun": "sev",
        "inner": "seven",
    }
    assert log.n_unrecorded == 1
    assert caplog.text.count("nothing was heard of its end") == 1


def test_open_calls_when_never_heard_of_again_are_counted_and_do_not_fill_the_memory(log, store, monkeypatch):
    monkeypatch.setattr(live_calls, "_MAX_OPEN", 3)
    for i in range(10):
        log.begin(f"run-{i}", call())
    for i in range(10):
        log.end(f"run-{i}", answer())
    assert [each.record_id for each in logged(log, store)] == ["run-7", "run-8", "run-9"]
    assert log.n_unrecorded == 7
