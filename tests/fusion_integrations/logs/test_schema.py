from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion_integrations.logs.schema import LogRecord, collection_record_id, import_record_id
from fusion_integrations.types import Message, Query


@given(data=st.data())
def test_record_when_written_as_json_and_read_back_then_is_equal(any_record, data):
    record = data.draw(any_record)

    assert LogRecord.model_validate_json(record.model_dump_json()) == record


def test_query_id_when_left_out_then_is_the_hash_of_the_messages(make_record):
    record = make_record(messages=[{"role": "user", "content": "Hello"}])

    assert record.query_id == Query.from_text("Hello").query_id


def test_query_id_when_right_then_is_accepted(make_record):
    assert make_record(query_id=Query.from_text("What is 0 + 1?").query_id) == make_record()


def test_query_id_when_of_other_messages_then_is_refused(make_record):
    with pytest.raises(ValidationError, match="query_id is 'q1' but the messages hash to"):
        make_record(query_id="q1")


def test_created_at_when_in_another_zone_then_is_kept_in_utc(make_record):
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))

    record = make_record(created_at=moment)

    assert record.created_at == moment
    assert record.created_at.tzinfo is UTC
    assert record.created_at.hour == 23  # 01:00 at +02:00 is 23:00 the day before


def test_record_when_changed_then_raises(make_record):
    with pytest.raises(ValidationError, match="frozen"):
        make_record().response = "other"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"error": "timeout"}, "both an error and a response"),
        ({"record_id": ""}, "record_id"),
        ({"candidate_id": "  "}, "candidate_id"),
        ({"source": ""}, "source"),
        ({"messages": ()}, "no text"),
        ({"messages": [{"role": "user", "content": " "}]}, "no text"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "no text"),
        ({"messages": [{"role": "human", "content": "Hi"}]}, "role"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "name"),
        ({"messages": (Message(role="user", content="\ud800"),)}, "surrogates"),
        ({"messages": (Message(role="user", content=7),)}, "content"),
        ({"response": "\ud800"}, "surrogates"),
        ({"created_at": datetime(2026, 1, 1)}, "timezone"),
        ({"created_at": "0001-01-01T00:00:00+05:00"}, "outside the years"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"input_tokens": 2**63}, "input_tokens"),
        ({"cost_usd": -0.1}, "cost_usd"),
        ({"cost_usd": float("nan")}, "cost_usd"),
        ({"latency_s": float("inf")}, "latency_s"),
        ({"propensity": 0.0}, "propensity"),
        ({"propensity": 1.1}, "propensity"),
        ({"assignment": "random"}, "assignment"),
        ({"prompt_mode": "think"}, "prompt_mode"),
        ({"sample": -1}, "sample"),
        ({"eligible": ("",)}, "eligible"),
        ({"modle": "x"}, "modle"),
    ],
)
def test_record_when_a_field_is_wrong_then_the_error_says_which(make_record, fields, reason):
    with pytest.raises(ValidationError, match=reason):
        make_record(**fields)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), None])
def test_score_when_value_is_outside_0_and_1_then_raises(make_score, value):
    with pytest.raises(ValidationError, match="value"):
        make_score(value=value)


def test_collection_record_id_when_any_part_differs_then_differs():
    call = {"collection": "c", "query_id": "q", "candidate_id": "m", "revision": "", "sample": 0}
    others = [call | {name: 1 if name == "sample" else "other"} for name in call]

    ids = {collection_record_id(**arguments) for arguments in [call, *others]}

    assert collection_record_id(**call) in ids
    assert len(ids) == 6


def test_import_record_id_when_parts_could_run_together_then_differs():
    assert import_record_id(source="a", source_id="bc") != import_record_id(source="ab", source_id="c")


def test_record_ids_when_made_by_another_release_then_are_the_same():
    # Stores hold these ids: a release that hashed otherwise would import and collect everything twice.
    # printf '["import","a.csv","1"]' | sha256sum, and '["collection","c","q","m","",0]'; 16 digits of each.
    assert import_record_id(source="a.csv", source_id="1") == "2a8c4420dec4608a"
    ids = collection_record_id(collection="c", query_id="q", candidate_id="m", revision="", sample=0)
    assert ids == "583d3c485b3354a0"
