import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, **fields):
    return import_logs(
        "vllm-replay", samples.lines(path, [samples.replay_record(samples.Fact(), **fields)]), store
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"from_cache": True}, "answered from a cache"),
        ({"lifecycle_state": "in_progress"}, "not finished yet"),
        ({"response_body_truncated": True}, "prompt or answer cut off"),
        ({"request_body": ""}, "prompt not stored"),
    ],
)
def test_import_when_a_record_holds_no_call_to_learn_from_then_it_is_dropped(
    tmp_path, store, samples, fields, reason
):
    assert load(store, samples, tmp_path / "replay.jsonl", **fields).n_dropped == {reason: 1}


def test_import_when_reasoning_was_on_then_the_candidate_is_the_reasoning_one(tmp_path, store, samples):
    load(store, samples, tmp_path / "replay.jsonl", reasoning_mode="on")

    (record,) = store.records()
    assert (record.candidate_id, record.prompt_mode, record.assignment) == (
        "small-1:reasoning",
        "reasoning",
        "policy",
    )


def test_import_when_the_currency_is_another_then_the_cost_is_unknown(tmp_path, store, samples):
    load(store, samples, tmp_path / "replay.jsonl", currency="EUR")

    (record,) = store.records()
    assert record.cost_usd is None


def test_import_when_the_request_failed_then_the_record_says_why(tmp_path, store, samples):
    load(
        store,
        samples,
        tmp_path / "replay.jsonl",
        lifecycle_state="failed",
        response_status=503,
        response_body="",
        terminal_reason="upstream closed",
    )

    (record,) = store.records()
    assert record.error == "HTTP 503: upstream closed"


def test_import_when_an_outcome_has_a_verdict_but_no_score_then_it_is_none(tmp_path, store, samples):
    load(store, samples, tmp_path / "replay.jsonl", outcomes=[{"source": "user", "verdict": "good"}])

    assert not list(store.scores())
