from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.store_counts import AddResult, LogStats
from fusion_integrations.types import Message, query_text


@pytest.fixture
def store(location):
    with LogStore.open(location) as opened:
        yield opened


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_records_when_stored_then_come_back_equal_and_in_order(new_location, any_record, data):
    records = data.draw(st.lists(any_record, max_size=5, unique_by=lambda record: record.record_id))
    with LogStore.open(new_location()) as store:
        store.add(records)

        assert list(store.records()) == records
        assert store.get(record.record_id for record in records) == {r.record_id: r for r in records}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_frame_when_records_are_stored_then_holds_their_fields(new_location, any_record, data):
    records = data.draw(st.lists(any_record, max_size=5, unique_by=lambda record: record.record_id))
    with LogStore.open(new_location()) as store:
        store.add(records)
        frame = store.to_frame()

    assert frame.schema == LOG_SCHEMA
    fields = [name for name in LOG_SCHEMA if name not in ("messages", "eligible", "query_text")]
    for record, row in zip(records, frame.iter_rows(named=True), strict=True):
        assert [row[name] for name in fields] == [getattr(record, name, None) for name in fields]
        assert tuple(row["eligible"]) == record.eligible
        assert row["query_text"] == query_text(record.messages)


def test_records_when_there_are_more_than_a_page_then_all_come_once(store, make_record):
    question = (Message(role="user", content="One question"),)
    records = [make_record(i, messages=question) for i in range(5_001)]
    store.add(records)

    assert [record.record_id for record in store.records()] == [f"r{i}" for i in range(5_001)]
    assert store.known(f"r{i}" for i in range(6_000)) == {f"r{i}" for i in range(5_001)}
    assert store.to_frame()["record_id"].to_list() == [f"r{i}" for i in range(5_001)]


def test_records_when_the_store_is_written_to_while_reading_then_both_work(store, make_record):
    store.add([make_record(0)])

    results = [store.add([make_record(1)]) for _ in store.records()]

    assert results == [AddResult(n_added=1, n_known=0)]


def test_add_when_repeated_then_changes_nothing(store, make_record, make_score):
    records, scores = [make_record(0), make_record(1)], [make_score("r0"), make_score("r1")]

    first = store.add(records, scores)
    second = store.add(records, scores)

    assert first == AddResult(n_added=2, n_known=0)
    assert second == AddResult(n_added=0, n_known=2)
    assert list(store.records()) == records
    assert list(store.scores()) == scores


def test_add_when_some_records_are_known_then_stores_the_others_with_their_scores(
    store, make_record, make_score
):
    store.add([make_record(0)])

    result = store.add([make_record(0), make_record(1)], [make_score("r0", value=0.0), make_score("r1")])

    assert result == AddResult(n_added=1, n_known=1)
    assert list(store.scores()) == [make_score("r1")]


def test_add_when_an_id_repeats_in_one_call_then_the_first_counts(store, make_record):
    result = store.add([make_record(0), make_record(0, response="other")])

    assert result == AddResult(n_added=1, n_known=1)
    assert list(store.records()) == [make_record(0)]


def test_add_when_a_known_id_comes_with_other_content_then_the_record_stays(store, make_record):
    store.add([make_record(0)])

    store.add([make_record(0, messages=[{"role": "user", "content": "Something else"}])])

    assert list(store.records()) == [make_record(0)]


def test_add_when_a_score_is_of_no_record_in_the_call_then_stores_nothing(store, make_record, make_score):
    store.add([make_record(0)])

    with pytest.raises(LogSchemaError, match=r"not in this call; use add_scores: 'r0'"):
        store.add([make_record(1)], [make_score("r0")])

    assert store.known(["r1"]) == set()


def test_add_when_nothing_is_given_then_adds_nothing(store):
    assert store.add([]) == AddResult(n_added=0, n_known=0)


def test_add_when_a_call_failed_then_the_record_keeps_the_error(store, make_record):
    failed = make_record(0, response=None, error="timeout")
    store.add([failed])

    assert list(store.records()) == [failed]


def test_add_scores_when_scored_again_then_appends_and_the_latest_counts(store, make_record, make_score):
    early = make_score(value=0.25)
    late = make_score(value=0.75, created_at=early.created_at + timedelta(seconds=1))
    opinion = make_score(kind="judge", value=0.5)
    liked = make_score(kind="feedback", value=1.0)
    store.add([make_record(0), make_record(1)])

    n_stored = store.add_scores([late, early, opinion, liked])

    assert n_stored == 4
    assert list(store.scores()) == [late, early, opinion, liked]
    frame = store.to_frame().select("performance", "judge_score", "feedback")
    assert frame.rows() == [(0.75, 0.5, 1.0), (None, None, None)]


def test_add_scores_when_moments_are_equal_then_the_last_stored_counts(store, make_record, make_score):
    store.add([make_record(0)], [make_score(value=0.25)])

    store.add_scores([make_score(value=0.75), make_score(value=0.5)])

    assert store.to_frame()["performance"].to_list() == [0.5]


def test_add_scores_when_a_record_is_unknown_then_stores_none_and_names_it(store, make_record, make_score):
    store.add([make_record(0)])

    with pytest.raises(LogSchemaError, match=r"not in log store '.*': 'a', 'b', 'c' and 1 more"):
        store.add_scores([make_score(name) for name in ("r0", "a", "b", "c", "d")])

    assert list(store.scores()) == []


def test_stats_when_filled_then_count_records_queries_failures_and_scores(store, make_record, make_score):
    question = (Message(role="user", content="One question"),)
    store.add(
        [
            make_record(0, messages=question),
            make_record(1, messages=question, candidate_id="large", response=None, error="timeout"),
            make_record(2, candidate_id="large"),
        ],
        [make_score("r0"), make_score("r0", kind="judge")],
    )

    assert store.stats() == LogStats(
        n_records=3,
        n_failed=1,
        n_queries=2,
        n_scores=2,
        n_records_by_candidate={"large": 2, "small": 1},
    )


def test_store_when_empty_then_frame_and_stats_are_empty(store):
    assert store.to_frame().is_empty()
    assert store.to_frame().schema == LOG_SCHEMA
    assert store.stats().n_records == 0
    assert store.known([]) == set()


def test_store_when_closed_and_opened_again_then_holds_what_was_added(location, make_record, make_score):
    with LogStore.open(location) as store:
        store.add([make_record(0)], [make_score()])

    with LogStore.open(location, create=False) as store:
        assert list(store.records()) == [make_record(0)]
        assert list(store.scores()) == [make_score()]


def test_store_when_closed_then_is_one_file(tmp_path, make_record):
    with LogStore.open(tmp_path / "logs.sqlite") as store:
        store.add([make_record(0)])

    assert [file.name for file in tmp_path.iterdir()] == ["logs.sqlite"]


def test_store_when_opened_by_url_then_is_the_store_at_that_path(tmp_path, make_record):
    with LogStore.open(f"sqlite:///{tmp_path}/logs.sqlite") as store:
        store.add([make_record(0)])

    with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
        assert store.known(["r0"]) == {"r0"}


def test_store_when_the_path_has_special_characters_then_works(tmp_path, make_record):
    path = tmp_path / "häß? #1%20.sqlite"

    with LogStore.open(path) as store:
        store.add([make_record(0)])

    assert path.is_file()


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_store_when_used_by_threads_then_keeps_every_record(make_record, location, is_in_memory):
    with LogStore.open(":memory:" if is_in_memory else location) as store, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: store.add([make_record(i % 20)]), range(40)))

        assert sum(result.n_added for result in results) == 20
        assert store.stats().n_records == 20


def test_store_when_closed_then_says_so(make_record):
    store = LogStore.open(":memory:")
    store.close()
    store.close()

    with pytest.raises(LogStoreError, match=r"':memory:' is closed. Open it again"):
        store.add([make_record(0)])
