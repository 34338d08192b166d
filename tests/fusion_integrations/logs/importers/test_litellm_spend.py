import json

import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, row):
    return import_logs("litellm-spend", samples.table(path, [row]), store)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": "{}"}, "prompt not stored"),
        ({"response": "{}"}, "answer not stored"),
        ({"cache_hit": "True"}, "answered from a cache"),
        ({"call_type": "aembedding"}, "not a model call"),
    ],
)
def test_import_when_a_row_holds_no_call_to_learn_from_then_it_is_dropped(
    tmp_path, store, samples, fields, reason
):
    report = load(store, samples, tmp_path / "spend.csv", samples.litellm_spend_row(samples.Fact(), **fields))

    assert (report.n_added, report.n_dropped) == (0, {reason: 1})


@pytest.mark.parametrize(
    "asked",
    [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]},
        {"instructions": "Be brief.", "input": "Where?"},  # OpenAI Responses
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": "Where?"}],
        },
    ],
)
def test_import_when_the_prompt_stands_in_the_request_then_it_is_found(tmp_path, store, samples, asked):
    request = json.dumps({"model": "chat", **asked})
    row = samples.litellm_spend_row(samples.Fact(), messages="{}", proxy_server_request=request)

    load(store, samples, tmp_path / "spend.csv", row)

    (record,) = store.records()
    turns = [(turn.role, turn.content) for turn in record.messages]
    assert turns == [("system", "Be brief."), ("user", "Where?")]


def test_import_when_the_metadata_is_json_text_then_the_routing_decision_is_read(tmp_path, store, samples):
    decision = {"routed_model": "chat", "classifier_probabilities": {"chat": 0.5, "smart": 0.5}}
    metadata = json.dumps({"routing_decision": decision, "status": "success"})

    load(store, samples, tmp_path / "spend.csv", samples.litellm_spend_row(samples.Fact(), metadata=metadata))

    (record,) = store.records()
    assert (record.assignment, record.propensity) == ("policy", 0.5)
