import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, *payloads):
    return import_logs("litellm", samples.lines(path, payloads), store)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (None, ("unknown", None, (), None)),
        # Probabilities of tiers say how sure the classifier was, not how likely the model was.
        (
            {"routed_model": "chat", "tier": "SIMPLE", "classifier_probabilities": {"SIMPLE": 0.9}},
            ("policy", None, (), None),
        ),
        (
            {"routed_model": "chat", "classifier_probabilities": {"chat": 0.25, "smart": 0.75}},
            ("policy", 0.25, (), None),
        ),
        (
            {"routed_model": "small-1", "classifier_probabilities": {"small-1": 0.25, "large-1": 0.75}},
            ("policy", 0.25, ("small-1", "large-1"), None),
        ),
        # Models may be named with their provider, in the decision and in the row.
        (
            {
                "routed_model": "openai/small-1",
                "classifier_probabilities": {"openai/small-1": 0.25, "openai/large-1": 0.75},
            },
            ("policy", 0.25, ("small-1", "large-1"), None),
        ),
        # An alias of the model: what else the router could have chosen cannot be told.
        (
            {"routed_model": "smart", "classifier_probabilities": {"chat": 0.25, "smart": 0.75}},
            ("policy", None, (), None),
        ),
    ],
)
def test_import_when_a_router_chose_then_the_record_says_how(tmp_path, store, samples, decision, expected):
    payload = samples.litellm_payload(samples.Fact(), metadata={"routing_decision": decision})

    load(store, samples, tmp_path / "log.jsonl", payload)

    (record,) = store.records()
    found = (record.assignment, record.propensity, record.eligible, record.planned_candidate_id)
    assert found == expected


def test_import_when_rows_are_cached_or_no_chat_then_they_are_dropped_and_counted(tmp_path, store, samples):
    facts = [samples.Fact(number=number) for number in range(1, 5)]
    payloads = [
        samples.litellm_payload(facts[0]),
        samples.litellm_payload(facts[1], cache_hit=True),
        samples.litellm_payload(facts[2], call_type="aembedding"),
        samples.litellm_payload(facts[3], messages=[{"role": "user", "content": "redacted-by-litellm"}]),
        samples.litellm_payload(facts[0]),
    ]

    report = load(store, samples, tmp_path / "log.jsonl", *payloads)

    assert report.n_added == 1
    assert report.n_dropped == {
        "answered from a cache": 1,
        "not a model call": 1,
        "prompt not stored": 1,
        "duplicate row": 1,
    }


def test_import_when_a_call_failed_then_its_zeros_are_unknown(tmp_path, store, samples):
    payload = samples.litellm_payload(
        samples.Fact(),
        status="failure",
        response=None,
        response_cost=0.0,
        prompt_tokens=0,
        completion_tokens=0,
        error_information={"error_class": "RateLimitError", "error_message": "slow down"},
    )

    load(store, samples, tmp_path / "log.jsonl", payload)

    (record,) = store.records()
    assert (record.error, record.response) == ("RateLimitError: slow down", None)
    assert (record.cost_usd, record.input_tokens, record.output_tokens) == (None, None, None)


def test_import_when_litellm_knew_no_price_then_the_cost_is_unknown(tmp_path, store, samples):
    payload = samples.litellm_payload(
        samples.Fact(), response_cost=0.0, response_cost_failure_debug_info={"error_str": "unmapped model"}
    )

    load(store, samples, tmp_path / "log.jsonl", payload)

    (record,) = store.records()
    assert record.cost_usd is None


def test_import_when_spend_logs_follow_payloads_then_a_request_is_one_record(tmp_path, store, samples):
    fact = samples.Fact()
    load(store, samples, tmp_path / "log.jsonl", samples.litellm_payload(fact))
    path = samples.table(tmp_path / "spend.csv", [samples.litellm_spend_row(fact)])

    report = import_logs("litellm-spend", path, store)

    assert (report.n_added, report.n_known) == (0, 1)
