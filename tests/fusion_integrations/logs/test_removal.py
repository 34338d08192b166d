"""Filters, pruning and duplicates, on both kinds of database."""

from datetime import UTC, datetime, timedelta

import pytest

from fusion_integrations.errors import InvalidPolicyError, LogStoreError
from fusion_integrations.logs.duplicates import Duplicate
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Message

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def store(location):
    with LogStore.open(location) as opened:
        yield opened


def _ids(records):
    return [record.record_id for record in records]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["r0", "r1", "r2"]),
        ({"since": NOON + timedelta(hours=1)}, ["r1", "r2"]),
        ({"until": NOON + timedelta(hours=1)}, ["r0"]),
        ({"since": NOON + timedelta(minutes=1), "until": NOON + timedelta(hours=2)}, ["r1"]),
        ({"sources": ("app", "trace")}, ["r1", "r2"]),
        ({"tasks": ("math",)}, ["r0", "r1"]),
        ({"candidates": ("large",)}, ["r2"]),
        ({"sessions": ("s1",)}, ["r1"]),
        ({"outcome": "failed"}, ["r2"]),
        ({"outcome": "answered", "tasks": ("math",), "sources": ("app",)}, ["r1"]),
        ({"tasks": ("none",)}, []),
    ],
)
def test_filter_when_conditions_are_given_then_records_meet_all(store, make_record, conditions, expected):
    store.add(
        [
            make_record(0, task="math"),
            make_record(1, task="math", source="app", session_id="s1", created_at=NOON + timedelta(hours=1)),
            make_record(
                2,
                source="trace",
                candidate_id="large",
                response=None,
                error="no",
                created_at=NOON + timedelta(hours=2),
            ),
        ]
    )
    where = LogFilter(**conditions)

    assert _ids(store.records(where)) == expected
    assert store.to_frame(where)["record_id"].to_list() == expected
    assert store.count(where) == len(expected)
    assert where.is_empty == (not conditions)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ({"since": datetime(2026, 1, 2)}, "since needs a time zone"),
        ({"outcome": "fine"}, "outcome must be one of any, answered, failed, got 'fine'"),
        ({"sources": []}, "sources must be a list of 1 to 10000 texts, got 0 values"),
        ({"tasks": "math"}, "tasks must be a list of 1 to 10000 texts, got 'math'"),
        ({"sessions": [str(i) for i in range(10_001)]}, "got 10001 values"),
        ({"candidates": [7]}, "candidates must be texts that UTF-8 can hold, got 7"),
        ({"candidates": ["\ud800"]}, "must be texts that UTF-8 can hold"),
    ],
)
def test_filter_when_a_condition_is_unusable_then_says_why(conditions, reason):
    with pytest.raises(InvalidPolicyError, match=reason):
        LogFilter(**conditions)


def test_remove_when_records_match_then_they_go_with_their_scores_and_queries_others_need_stay(
    store, make_record, make_score
):
    shared = (Message(role="user", content="One question"),)
    store.add(
        [
            make_record(0, messages=shared, source="old"),
            make_record(1, messages=shared),
            make_record(2, source="old"),
        ],
        [make_score(f"r{i}") for i in range(3)],
    )

    assert store.remove(LogFilter(sources=("old",))) == 2

    assert _ids(store.records()) == ["r1"]
    assert [score.record_id for score in store.scores()] == ["r1"]
    with store._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM queries").scalar() == 1
    # What was removed may come again.
    assert store.add([make_record(2, source="old")]).n_added == 1


def test_remove_when_the_filter_is_empty_then_refuses(store, make_record):
    store.add([make_record(0)])

    with pytest.raises(InvalidPolicyError, match="would remove every record"):
        store.remove(LogFilter())

    assert store.count() == 1


def test_compact_when_records_were_removed_then_their_text_is_gone_from_the_file(tmp_path, make_record):
    path = tmp_path / "logs.sqlite"
    private = "the patient's name is Rumpelstiltskin"
    with LogStore.open(path) as store:
        store.add([make_record(i, response=private * 20, source="old" if i else "new") for i in range(500)])
        n_before = sum(file.read_bytes().count(b"Rumpelstiltskin") for file in tmp_path.iterdir())
        store.remove(LogFilter(sources=("old",)))
        store.remove(LogFilter(sources=("new",)))

        store.compact()

        assert n_before >= 500 * 20
        assert all(b"Rumpelstiltskin" not in file.read_bytes() for file in tmp_path.iterdir())
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 200_000
        assert store.add([make_record(0)]).n_added == 1


def test_compact_when_done_on_either_database_then_the_rest_is_whole(store, make_record, make_score):
    store.add([make_record(i, source=f"s{i % 2}") for i in range(50)], [make_score("r1")])
    store.remove(LogFilter(sources=("s0",)))

    store.compact()

    assert _ids(store.records()) == [f"r{i}" for i in range(1, 50, 2)]
    assert list(store.scores()) == [make_score("r1")]


def test_compact_when_others_are_reading_then_says_that_the_text_may_still_be_there(tmp_path, make_record):
    with LogStore.open(tmp_path / "logs.sqlite", busy_timeout_s=0.1) as store:
        store.add([make_record(i, source=f"s{i % 2}") for i in range(50)])
        with store._database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM records").scalar() == 50
            store.remove(LogFilter(sources=["s0"]))

            with pytest.raises(LogStoreError, match="may still be in its files: others are reading it"):
                store.compact()

        store.compact()
        assert store.count() == 25


def _report(make_record, record_id, source, *, seconds=0.0, **fields):
    fields = {"messages": (Message(role="user", content="Why?"),), "response": "Because."} | fields
    moment = NOON + timedelta(seconds=seconds)
    return make_record(record_id=record_id, source=source, created_at=moment, **fields)


def test_dedupe_when_two_sources_report_a_call_then_the_one_that_says_more_stays_with_all_scores(
    store, make_record, make_score
):
    store.add(
        [
            _report(make_record, "poor", "trace", cost_usd=0.1),
            _report(make_record, "rich", "app", seconds=2, propensity=0.5),
            _report(make_record, "other", "app", seconds=60),
        ],
        [make_score("poor", value=0.25, kind="feedback"), make_score("rich", value=1)],
    )
    expected = [Duplicate(kept="rich", removed="poor")]

    assert store.duplicates() == expected
    assert store.count() == 3
    assert store.dedupe() == expected

    assert _ids(store.records()) == ["rich", "other"]
    frame = store.to_frame()
    assert frame["feedback"].to_list() == [0.25, None]
    assert frame["performance"].to_list() == [1.0, None]
    assert store.dedupe() == []


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"source": "app"}, 0),  # one source tells repeats apart by its ids
        ({"response": "Just so."}, 0),
        ({"response": None, "error": "Because."}, 0),
        ({"candidate_id": "large"}, 0),
        ({"messages": (Message(role="user", content="Why not?"),)}, 0),
        ({"sample": 1}, 0),
        ({"candidate_revision": "v2"}, 0),
        ({"session_id": "s2"}, 0),
        ({}, 5.1),
    ],
)
def test_dedupe_when_calls_differ_then_both_stay(store, make_record, fields, seconds):
    store.add(
        [
            _report(make_record, "a", "app", candidate_revision="v1", session_id="s1"),
            _report(make_record, "b", seconds=seconds, **({"source": "trace"} | fields)),
        ]
    )

    assert store.dedupe() == []
    assert store.count() == 2


def test_dedupe_when_a_source_repeats_a_call_then_pairs_are_matched_in_order(store, make_record):
    store.add(
        [
            _report(make_record, "a1", "app", seconds=0),
            _report(make_record, "a2", "app", seconds=1),
            _report(make_record, "t1", "trace", seconds=0.1),
            _report(make_record, "t2", "trace", seconds=1.1),
            _report(make_record, "u1", "third", seconds=0.2),
        ]
    )

    assert store.dedupe(within_s=3) == [
        Duplicate(kept="a1", removed="t1"),
        Duplicate(kept="a1", removed="u1"),
        Duplicate(kept="a2", removed="t2"),
    ]
    assert _ids(store.records()) == ["a1", "a2"]


def test_dedupe_when_a_record_says_how_its_candidate_was_chosen_then_it_stays(store, make_record):
    store.add(
        [
            _report(make_record, "traced", "trace", cost_usd=0.1, latency_s=2.0, input_tokens=3, task="why"),
            _report(make_record, "collected", "app", assignment="factorial", eligible=("small", "large")),
        ]
    )

    assert store.dedupe() == [Duplicate(kept="collected", removed="traced")]


def test_dedupe_when_records_have_no_answer_then_both_stay(store, make_record):
    store.add([_report(make_record, name, name, response=None) for name in ("app", "trace")])

    assert store.dedupe() == []


@pytest.mark.parametrize("within_s", [-1, float("nan"), float("inf")])
def test_dedupe_when_the_seconds_are_none_then_raises(store, within_s):
    with pytest.raises(InvalidPolicyError, match="within_s must be a finite number >= 0"):
        store.dedupe(within_s=within_s)
