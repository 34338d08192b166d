from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from fusion_integrations.errors import CandidateCallError, InvalidPolicyError
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.store import LogStore
from fusion_integrations.scoring.llm_judge import LLMJudge
from fusion_integrations.scoring.log_scorer import JudgeScorer, LogScorer, MetricScorer
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import ABANDONED, Message

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(record_id, response="The answer is 7.", **fields):
    given = {"metric": "numeric_match", "reference": "7", "text": "What is 3 + 4?", **fields}
    text = given.pop("text")
    return LogRecord(
        record_id=record_id,
        messages=(Message(role="user", content=text),),
        candidate_id="small",
        response=response,
        created_at=NOW,
        source="test",
        **given,
    )


def stored(*records, scores=()):
    store = LogStore.open(":memory:")
    store.add(records, scores)
    return store


def old_score(record_id, *, kind="performance", scorer="export", version="", value=0.0):
    return Score(record_id=record_id, kind=kind, scorer=scorer, version=version, value=value, created_at=NOW)


def judge_giving(value=0.5, *, fails_on="\0", babbles_on="\0"):
    def answer(messages):
        if fails_on in messages[1].content:
            raise CandidateCallError("no connection")
        mark = re.search(r'"check": "(\w+)"', messages[0].content)[1]
        if babbles_on in messages[1].content:
            return "Nice!"
        return json.dumps({"check": mark, "reason": "Because.", "score": value})

    return LLMJudge(ScriptedChatClient("judge-model", answer=answer))


def test_score_when_metrics_differ_scores_each_record_by_its_own():
    prompt = "def triple(x):\n    '''Three times x.'''\n"
    check = "def check(candidate):\n    assert candidate(2) == 6\n"
    store = stored(
        record("number"),
        record("letter", "(B)", metric="em_mc", reference="B"),
        record("formula", r"\boxed{\frac{1}{2}}", metric="MATH", reference=r"so \boxed{0.5}"),
        record("code", "    return 3 * x", metric="code_eval", reference=check, text=prompt),
        record("wrong", "It is 8."),
    )
    report = LogScorer(store, MetricScorer(), clock=lambda: NOW).score()
    assert (report.n_scored, report.n_known, report.n_failed) == (5, 0, 0)
    assert report.n_unscored == {}
    scores = {score.record_id: score for score in store.scores()}
    assert {name: score.value for name, score in scores.items()} == {
        "number": 1,
        "letter": 1,
        "formula": 1,
        "code": 1,
        "wrong": 0,
    }
    assert (scores["code"].kind, scores["code"].scorer) == ("performance", "code_pass")


def test_score_when_run_again_adds_nothing_and_keeps_imported_labels():
    store = stored(record("one"), record("two"), scores=[old_score("two", value=0.25)])
    first, second = (LogScorer(store, MetricScorer()).score() for _ in range(2))
    assert (first.n_scored, first.n_known) == (1, 1)
    assert (second.n_scored, second.n_known) == (0, 2)
    assert dict(store.to_frame().select("record_id", "performance").iter_rows()) == {"one": 1.0, "two": 0.25}


def test_score_when_outdated_scores_are_asked_for_replaces_them_as_the_latest():
    store = stored(record("one"), scores=[old_score("one", scorer="numeric_match", version="0")])
    scorer = LogScorer(store, MetricScorer(), rescore="outdated", clock=lambda: NOW + timedelta(days=1))
    assert scorer.score().n_scored == 1
    assert scorer.score().n_known == 1
    assert store.to_frame()["performance"].to_list() == [1.0]
    assert len(list(store.scores())) == 2


def test_score_when_records_cannot_be_scored_counts_them_by_reason():
    store = stored(
        record("failed", None, error="timeout"),
        record("empty", None),
        record("left", "The ans", finish_reason=ABANDONED),
        record("no metric", metric=None),
        record("no reference", reference=None),
        record("unknown", metric="bleu"),
        record("unreadable", reference="seven or eight"),
        record("fine"),
    )
    report = LogScorer(store, MetricScorer()).score()
    assert (report.n_scored, report.n_failed) == (1, 1)
    assert report.n_unscored == {
        "failed call": 1,
        "no response": 1,
        "abandoned before its end": 1,
        "no metric": 1,
        "no reference": 1,
        "unknown metric 'bleu'": 1,
        "numeric_match: LogSchemaError": 1,
    }
    assert set(report.last_failures) == {"unknown metric 'bleu'", "numeric_match: LogSchemaError"}
    assert "record 'unreadable'" in report.last_failures["numeric_match: LogSchemaError"]


def test_score_when_ended_in_between_goes_on_where_it_ended():
    class EndedError(Exception):
        pass

    def end(n_done, n_total):
        if n_done == 4:
            raise EndedError

    store = stored(*(record(f"r{i}") for i in range(5)))
    with pytest.raises(EndedError):
        LogScorer(store, MetricScorer(), batch_size=2, on_progress=end).score()
    assert len(list(store.scores())) == 4
    seen = []
    report = LogScorer(store, MetricScorer(), on_progress=lambda *counts: seen.append(counts)).score()
    assert (report.n_scored, report.n_known, seen) == (1, 4, [(5, 5)])


def test_score_when_limited_tries_that_many():
    store = stored(*(record(f"r{i}") for i in range(5)))
    assert LogScorer(store, MetricScorer(), batch_size=2).score(limit=3).n_scored == 3
    assert LogScorer(store, MetricScorer(), batch_size=2).score(limit=3).n_scored == 2


def test_score_by_a_judge_stores_who_judged_in_which_version_and_why():
    store = stored(record("one"), record("two", metric=None, reference=None))
    judge = judge_giving(0.5)
    report = LogScorer(store, JudgeScorer(judge)).score()
    assert report.n_scored == 2
    for score in store.scores():
        assert (score.kind, score.value, score.reason) == ("judge", 0.5, "Because.")
        assert (score.scorer, score.version) == (judge.scorer, judge.version)


def test_score_by_a_judge_when_some_fail_scores_the_others_and_says_why():
    store = stored(record("good"), record("bad", "crash"), record("odd", "babble"))
    judge = judge_giving(fails_on="crash", babbles_on="babble")
    report = LogScorer(store, JudgeScorer(judge)).score()
    assert (report.n_scored, report.n_failed) == (1, 2)
    assert report.n_unscored == {"CandidateCallError": 1, "JudgeOutputError": 1}
    assert "no connection" in report.last_failures["CandidateCallError"]
    assert "no readable verdict" in report.last_failures["JudgeOutputError"]


def test_score_by_a_judge_when_calls_are_made_one_by_one_pays_for_every_verdict_once():
    class Remote(ScriptedChatClient):
        def complete_batch(self, conversations, *, options=None):
            raise AssertionError

    def ask(messages, options):
        try:
            return client.complete(messages, options=options)
        except CandidateCallError as error:
            return error

    def ask_each(conversations, *, options):
        return [ask(messages, options) for messages in conversations]

    def answer(messages):
        if "crash" in messages[1].content:
            raise CandidateCallError("no connection")
        mark = re.search(r'"check": "(\w+)"', messages[0].content)[1]
        return json.dumps({"check": mark, "reason": "Because.", "score": 0.5})

    client = Remote("judge-model", answer=answer)
    store = stored(record("good"), record("bad", "crash"), record("fine"))
    report = LogScorer(store, JudgeScorer(LLMJudge(client, ask_each=ask_each))).score()
    assert (report.n_scored, report.n_unscored) == (2, {"CandidateCallError": 1})
    assert len(client.calls) == 3


def test_score_by_a_judge_when_another_judged_before_judges_again_if_asked_to():
    store = stored(record("one"), scores=[old_score("one", kind="judge", scorer="llm-judge:other")])
    assert LogScorer(store, JudgeScorer(judge_giving())).score().n_known == 1
    assert LogScorer(store, JudgeScorer(judge_giving()), rescore="outdated").score().n_scored == 1


def test_scorer_when_the_batch_size_is_below_one_is_refused():
    with pytest.raises(InvalidPolicyError, match="batch_size"):
        LogScorer(stored(), MetricScorer(), batch_size=0)
