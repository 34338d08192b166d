from __future__ import annotations

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
    opened.writer.close()


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


def test_open_calls_when_never_heard_of_again_do_not_fill_the_memory(log, store, monkeypatch):
    monkeypatch.setattr(live_calls, "_MAX_OPEN", 3)
    for i in range(10):
        log.begin(f"run-{i}", call())
    for i in range(10):
        log.end(f"run-{i}", answer())
    assert [each.record_id for each in logged(log, store)] == ["run-7", "run-8", "run-9"]
