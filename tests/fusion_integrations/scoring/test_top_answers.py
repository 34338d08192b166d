"""Which answers of a log are the best of their query, by hand-worked rows."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import InvalidPolicyError, LogSchemaError
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.scoring.top_answers import top_answers
from fusion_integrations.types import ABANDONED


def logs(*rows, **shared):
    """Make a log frame; a row is its record id and what differs from a right, free, one-word answer."""
    defaults = {
        "query_id": "q",
        "query_text": "What is it?",
        "candidate_id": "c",
        "response": "it",
        "performance": 1.0,
        "cost_usd": 0.0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "source": "tests",
    }
    return pl.DataFrame(
        [defaults | shared | values | {"record_id": record_id} for record_id, values in rows],
        schema=LOG_SCHEMA,
    )


def best(frame, *, criterion="performance", k=3, min_score=0.5):
    return top_answers(frame, criterion=criterion, k=k, min_score=min_score)["record_id"].to_list()


def test_top_answers_when_k_is_reached_keeps_the_best_of_every_query_in_order():
    frame = logs(
        ("b1", {"query_id": "b", "performance": 0.6}),
        ("a1", {"query_id": "a", "performance": 0.7}),
        ("a2", {"query_id": "a", "performance": 0.9}),
        ("a3", {"query_id": "a", "performance": 0.8}),
    )
    found = top_answers(frame, criterion="performance", k=2)
    assert found["record_id"].to_list() == ["a2", "a3", "b1"]
    assert found["rank"].to_list() == [1, 2, 1]
    assert found.schema == pl.Schema({**LOG_SCHEMA, "rank": pl.Int64})


def test_top_answers_when_a_score_equals_the_minimum_counts_it():
    frame = logs(("below", {"performance": 0.49}), ("at", {"performance": 0.5}))
    assert best(frame) == ["at"]


@pytest.mark.parametrize(
    "unusable",
    [
        {"response": None, "error": "Timeout"},
        {"error": "Timeout"},
        {"finish_reason": ABANDONED},
        {"response": None},
        {"response": " \n\t"},
        {"performance": None},
        {"performance": float("nan")},
    ],
)
def test_top_answers_when_an_answer_failed_or_is_unscored_leaves_it_out(unusable):
    assert best(logs(("bad", unusable), ("good", {"performance": 0.6}))) == ["good"]
    assert top_answers(logs(("bad", unusable)), criterion="performance", k=1).is_empty()


def test_top_answers_when_cut_short_by_a_limit_or_a_provider_word_counts():
    assert best(logs(("cut", {"finish_reason": "length"}), ("none", {"finish_reason": None}))) == [
        "cut",
        "none",
    ]


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        # Right but ill-judged, right and liked, wrong but liked, right and unjudged.
        ("performance", ["right", "right-liked", "right-unjudged"]),
        ("judge", ["wrong-liked", "right-liked"]),
        ("hybrid", ["right-liked", "right", "right-unjudged"]),
    ],
)
def test_top_answers_by_criterion(criterion, expected):
    frame = logs(
        ("right", {"judge_score": 0.1}),
        ("right-liked", {"judge_score": 0.8}),
        ("wrong-liked", {"performance": 0.0, "judge_score": 0.9}),
        ("right-unjudged", {"judge_score": float("nan")}),
    )
    assert best(frame, criterion=criterion) == expected


def test_top_answers_when_hybrid_never_ranks_the_judge_above_the_performance():
    frame = logs(
        ("better", {"performance": 0.9, "judge_score": None}),
        ("nicer", {"performance": 0.8, "judge_score": 1.0}),
    )
    assert best(frame, criterion="hybrid") == ["better", "nicer"]


def test_top_answers_when_nothing_is_judged_hybrid_equals_performance():
    frame = logs(
        ("x", {"performance": 0.7}), ("y", {"performance": 0.9, "cost_usd": 2.0}), ("z", {"performance": 0.9})
    )
    assert best(frame, criterion="hybrid") == best(frame) == ["z", "y", "x"]
    assert best(frame, criterion="judge", min_score=0.0) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"cost_usd": 0.1, "response": "much longer"}, {"cost_usd": 0.2}),
        ({"cost_usd": 0.2, "response": "much longer"}, {"cost_usd": None}),
        ({"cost_usd": 0.2, "response": "much longer"}, {"cost_usd": float("nan")}),
        ({"cost_usd": None, "response": "é" * 3}, {"cost_usd": None, "response": "abcd"}),
        ({"candidate_id": "a"}, {"candidate_id": "b"}),
        ({"candidate_revision": "2"}, {"candidate_revision": "1"}),  # the record id is all that is left
    ],
)
def test_top_answers_when_equally_good_prefers_the_cheaper_then_the_shorter(first, second):
    # The record ids favour the second, except where they decide.
    ids = ("1", "2") if "candidate_revision" in first else ("2", "1")
    for rows in ([(ids[0], first), (ids[1], second)], [(ids[1], second), (ids[0], first)]):
        assert best(logs(*rows)) == list(ids)


def test_top_answers_when_performance_ranks_ignores_the_judge_in_ties():
    frame = logs(("a", {"judge_score": 0.1}), ("b", {"judge_score": 0.9}))
    assert best(frame) == ["a", "b"]


def test_top_answers_when_other_scores_are_not_numbers_gives_them_as_unknown():
    found = top_answers(logs(("a", {"judge_score": float("nan")})), criterion="performance", k=1)
    assert found["judge_score"].to_list() == [None]


def test_top_answers_when_a_candidate_answered_several_times_keeps_all_of_them():
    frame = logs(
        ("old", {"candidate_revision": "1"}), ("new", {"candidate_revision": "2"}), ("again", {"sample": 1})
    )
    assert best(frame) == ["again", "new", "old"]


def test_top_answers_when_the_log_is_empty_gives_the_same_columns():
    found = top_answers(logs(), criterion="hybrid", k=1)
    assert found.is_empty()
    assert found.schema == pl.Schema({**LOG_SCHEMA, "rank": pl.Int64})


@settings(max_examples=30)
@given(data=st.data())
def test_top_answers_when_rows_are_shuffled_stays_the_same(data):
    scores = st.sampled_from([None, 0.0, 0.5, 1.0])
    rows = [
        (
            f"r{i}",
            {
                "query_id": data.draw(st.sampled_from("ab")),
                "candidate_id": data.draw(st.sampled_from("xy")),
                "performance": data.draw(scores),
                "judge_score": data.draw(scores),
                "cost_usd": data.draw(st.sampled_from([None, 0.0, 0.1])),
                "response": data.draw(st.sampled_from(["a", "bb", " "])),
            },
        )
        for i in range(data.draw(st.integers(1, 12)))
    ]
    shuffled = data.draw(st.permutations(rows))
    criterion = data.draw(st.sampled_from(["performance", "judge", "hybrid"]))
    found = top_answers(logs(*rows), criterion=criterion, k=2)
    assert found.equals(top_answers(logs(*shuffled), criterion=criterion, k=2))
    for ranks in found.partition_by("query_id"):
        assert ranks["rank"].to_list() == list(range(1, ranks.height + 1))
        assert ranks.height <= 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"criterion": "beauty"}, "no criterion 'beauty'. Use one of 'performance', 'judge', 'hybrid'"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"min_score": 1.1}, r"min_score must lie in \[0, 1\], got 1.1"),
        ({"min_score": float("nan")}, "got nan"),
    ],
)
def test_top_answers_when_an_argument_is_out_of_range_raises(arguments, problem):
    with pytest.raises(InvalidPolicyError, match=problem):
        best(logs(("a", {})), **arguments)


def test_top_answers_when_columns_are_missing_names_them():
    with pytest.raises(LogSchemaError, match=r"lack the columns \['candidate_id', 'performance'\]"):
        best(logs(("a", {})).drop("candidate_id", "performance"))
