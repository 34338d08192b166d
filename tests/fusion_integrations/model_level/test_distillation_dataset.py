from __future__ import annotations

import polars as pl
import pytest

from fusion_integrations.errors import LogSchemaError, NotEnoughLogsError, UnknownCandidateError
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
from fusion_integrations.model_level.distillation_dataset import DistillationDataset
from fusion_integrations.types import Message


def pairs_of(frame, **arguments):
    return DistillationDataset.from_logs(frame, DistillationTrainingArguments(**arguments))


def taught(dataset):
    return [(pair.messages[-1].content, pair.teacher, pair.answer) for pair in dataset.pairs]


def capital(**fields):
    return {"query": "Capital of France?", "reference": "Paris", "task": "facts"} | fields


def answer(candidate, response, performance, judge=None, **fields):
    return {
        "candidate_id": candidate,
        "response": response,
        "performance": performance,
        "judge_score": judge,
    } | fields


def test_pairs_hold_the_best_answers_first_and_the_reference_last(logs_of):
    frame = logs_of(
        [
            capital(**answer("small", "Paris it is", 0.6)),
            capital(**answer("big", " It is Paris.\n", 1.0)),
            capital(**answer("bad", "Lyon", 0.0)),
        ]
    )
    dataset = pairs_of(frame)
    assert taught(dataset) == [
        ("Capital of France?", "big", "It is Paris."),
        ("Capital of France?", "small", "Paris it is"),
        ("Capital of France?", "reference", "Paris"),
    ]
    assert [(pair.score, pair.record_id, pair.task) for pair in dataset.pairs] == [
        (1.0, "r1", "facts"),
        (0.6, "r0", "facts"),
        (None, None, "facts"),
    ]
    assert (dataset.n_queries, dataset.n_solved, len(dataset)) == (1, 1, 3)


def test_pairs_keep_the_whole_conversation_as_logged(logs_of):
    messages = (
        Message(role="system", content="Be kind."),
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello!"),
        Message(role="user", content="Capital of France?"),
    )
    frame = logs_of([answer("big", "Paris", 1.0, query=messages, prompt_mode="reasoning")])
    assert pairs_of(frame).pairs[0].messages == messages


def test_pairs_when_nobody_solved_a_query_teach_its_reference_only_if_added(logs_of):
    frame = logs_of(
        [
            capital(**answer("big", "Paris!", 1.0)),
            answer("big", "Rome?", 0.0, query="Capital of Spain?", reference="Madrid"),
            answer("big", None, None, query="Capital of Peru?", error="timeout", reference="Lima"),
        ]
    )
    added = pairs_of(frame)
    assert sorted((teacher, text) for _, teacher, text in taught(added)) == [
        ("big", "Paris!"),
        ("reference", "Lima"),
        ("reference", "Madrid"),
        ("reference", "Paris"),
    ]
    assert (added.n_queries, added.n_solved) == (3, 1)
    assert [text for *_, text in taught(pairs_of(frame, ground_truth="leave_out"))] == ["Paris!"]


def test_pairs_when_teachers_agree_teach_the_answer_once_and_count(logs_of):
    frame = logs_of(
        [
            capital(**answer("a", "It is Paris.", 1.0)),
            capital(**answer("b", "It is Paris.", 1.0)),
            capital(**answer("c", "Paris ", 1.0)),
            {"query": "Another?"} | answer("a", "It is Paris.", 1.0),
        ]
    )
    dataset = pairs_of(frame)
    # Shorter answers come first among equals: c's, then a's; b's repeats a's, the reference repeats c's.
    assert sorted(taught(dataset)) == [
        ("Another?", "a", "It is Paris."),
        ("Capital of France?", "a", "It is Paris."),
        ("Capital of France?", "c", "Paris"),
    ]
    assert dataset.n_dropped == {"duplicate": 2, "beyond_top_k": 0, "over_balance": 0}


def test_pairs_when_top_k_is_reached_count_different_answers(logs_of):
    rows = [capital(**answer(f"same{i}", "Paris", 1.0)) for i in range(4)]
    rows += [capital(**answer(f"other{i}", f"Paris, number {i}.", 0.9)) for i in range(3)]
    dataset = pairs_of(logs_of(rows), top_k=2, ground_truth="leave_out")
    assert [text for *_, text in taught(dataset)] == ["Paris", "Paris, number 0."]
    assert dataset.n_dropped == {"duplicate": 3, "beyond_top_k": 2, "over_balance": 0}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("performance", [("cheap", 1.0), ("liked", 1.0)]),
        ("judge", [("charming", 0.9), ("liked", 0.8)]),
        ("hybrid", [("liked", 1.0), ("cheap", 1.0)]),
    ],
)
def test_pairs_follow_the_criterion(logs_of, criterion, expected):
    frame = logs_of(
        [
            capital(**answer("liked", "Paris, of course", 1.0, 0.8, cost_usd=2.0)),
            capital(**answer("cheap", "Paris", 1.0, 0.1, cost_usd=1.0)),
            capital(**answer("charming", "Oh, London!", 0.0, 0.9, cost_usd=1.0)),
        ]
    )
    dataset = pairs_of(frame, criterion=criterion, ground_truth="leave_out")
    assert [(pair.teacher, pair.score) for pair in dataset.pairs] == expected


def test_pairs_of_the_baseline_are_the_references_alone(logs_of):
    frame = logs_of([capital(**answer("big", "It is Paris.", 1.0)), answer("big", "Yes", 1.0, query="Sure?")])
    dataset = pairs_of(frame, criterion="baseline")
    assert taught(dataset) == [("Capital of France?", "reference", "Paris")]
    assert (dataset.n_queries, dataset.n_solved) == (2, 0)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cover_match", "New York"),
        ("exact_match", "New York"),
        ("my_code_metric", "New York | NYC"),
        (None, "New York | NYC"),
    ],
)
def test_reference_with_accepted_forms_teaches_the_first_where_the_metric_reads_forms(
    logs_of, metric, expected
):
    frame = logs_of([{"query": "Which city?", "reference": "New York | NYC", "metric": metric}])
    assert pairs_of(frame, criterion="baseline").pairs[0].answer == expected


def test_pairs_when_teachers_are_named_come_from_them_and_the_reference(logs_of):
    frame = logs_of(
        [capital(**answer("big", "It is Paris.", 1.0)), capital(**answer("small", "Paris!", 1.0))]
    )
    assert [teacher for _, teacher, _ in taught(pairs_of(frame, teachers=("small",)))] == [
        "small",
        "reference",
    ]
    with pytest.raises(UnknownCandidateError, match=r"\['tiny'\] answered no query.*big, small"):
        pairs_of(frame, teachers=("small", "tiny"))


def test_pairs_when_a_task_is_large_are_balanced_over_its_queries(logs_of):
    rows = [
        answer(name, f"{name} {i}", 1.0, query=f"Sum {i}?", task="sums")
        for i in range(5)
        for name in ("aa", "b")
    ]
    rows += [answer("aa", "x", 1.0, query="Fact?", task="facts"), answer("aa", "y", 1.0, query="Free?")]
    dataset = pairs_of(logs_of(rows), max_pairs_per_task=5)
    of_sums = [pair for pair in dataset.pairs if pair.task == "sums"]
    assert {pair.teacher for pair in of_sums} == {"b"}  # the best answer of each query, not all of some
    assert len({pair.query_id for pair in of_sums}) == 5
    assert len(dataset) == 7
    assert dataset.n_dropped["over_balance"] == 5
    other = pairs_of(logs_of(rows), max_pairs_per_task=3, seed=1)
    assert len(other) == 5


def test_pairs_do_not_depend_on_the_order_of_the_rows(logs_of):
    rows = [
        answer(name, f"{name} {i % 3}", score, query=f"Sum {i}?", task="sums", reference=f"{i}")
        for i in range(6)
        for name, score in (("a", 1.0), ("b", 0.7), ("c", 1.0))
    ]
    frame = logs_of(rows)
    settings = {"max_pairs_per_task": 11, "seed": 4}
    expected = pairs_of(frame, **settings)
    for seed in range(3):
        assert pairs_of(frame.sample(fraction=1.0, shuffle=True, seed=seed), **settings) == expected


def test_pairs_when_no_answer_is_good_enough_say_what_was_found(logs_of):
    frame = logs_of([capital(**answer("big", "Paris", 1.0)), capital(**answer("small", "Lyon", 0.0))])
    with pytest.raises(
        NotEnoughLogsError, match=r"None of 2 logged answers.*'judge' \(0 have a judge_score\)"
    ):
        pairs_of(frame, criterion="judge")


def test_pairs_when_there_is_no_reference_refuse_the_baseline(logs_of):
    frame = logs_of([answer("big", "Paris", 1.0, query="Capital of France?")])
    with pytest.raises(NotEnoughLogsError, match="1 queries, none with a reference"):
        pairs_of(frame, criterion="baseline")


@pytest.mark.parametrize("criterion", ["performance", "baseline"])
def test_pairs_when_columns_lack_say_which(criterion):
    with pytest.raises(LogSchemaError, match="lack the columns"):
        pairs_of(pl.DataFrame({"query_id": ["a"]}), criterion=criterion)


@pytest.mark.parametrize("messages", ["no json", '[{"role": "user"}]', '{"role": 1}', None])
def test_pairs_when_a_conversation_is_unreadable_say_which(logs_of, messages):
    frame = logs_of([capital(**answer("big", "Paris", 1.0))]).with_columns(
        pl.lit(messages, dtype=pl.String).alias("messages")
    )
    with pytest.raises(LogSchemaError, match="messages of query"):
        pairs_of(frame)
