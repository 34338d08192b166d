import json

import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, *requests):
    return import_logs("otel", samples.lines(path, requests), store)


EVENTS_1_36 = [
    ("gen_ai.system.message", {"content": "Be brief."}),
    ("gen_ai.user.message", {"content": "Hi"}),
    (
        "gen_ai.choice",
        {"index": 0, "finish_reason": "stop", "message": '{"role": "assistant", "content": "Hello."}'},
    ),
]
OLD = {"gen_ai.system": "openai", "gen_ai.operation.name": "chat", "gen_ai.request.model": "small-1"}


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        (OLD | {"gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.completion_tokens": 1}, EVENTS_1_36),
        (
            {
                "gen_ai.system": "openai",
                "llm.request.type": "chat",
                "gen_ai.request.model": "small-1",
                "gen_ai.prompt.0.role": "system",
                "gen_ai.prompt.0.content": "Be brief.",
                "gen_ai.prompt.1.role": "user",
                "gen_ai.prompt.1.content": '[{"type": "text", "text": "Hi"}]',
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "Hello.",
                "gen_ai.completion.0.finish_reason": "stop",
                "gen_ai.usage.prompt_tokens": 3,
                "gen_ai.usage.completion_tokens": 1,
            },
            [],
        ),
        (
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "small-1",
                "llm.input_messages.0.message.role": "system",
                "llm.input_messages.0.message.content": "Be brief.",
                "llm.input_messages.1.message.role": "user",
                "llm.input_messages.1.message.contents.0.message_content.type": "text",
                "llm.input_messages.1.message.contents.0.message_content.text": "Hi",
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.content": "Hello.",
                "gen_ai.response.finish_reasons": ["stop"],
                "llm.token_count.prompt": 3,
                "llm.token_count.completion": 1,
            },
            [],
        ),
    ],
    ids=["events of 1.36", "OpenLLMetry", "OpenInference"],
)
def test_import_when_names_are_older_or_others_then_the_call_is_the_same(
    tmp_path, store, samples, attributes, events
):
    told = [{"name": name, "attributes": samples.otlp(body)} for name, body in events]
    span = samples.otel_span(samples.Fact(), attributes, events=told)

    load(store, samples, tmp_path / "spans.jsonl", samples.otel_request(span))

    (record,) = store.records()
    assert [(turn.role, turn.content) for turn in record.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    assert (record.model, record.response, record.finish_reason) == ("small-1", "Hello.", "stop")
    assert (record.input_tokens, record.output_tokens, record.latency_s) == (3, 1, 1.5)


def test_import_when_an_agent_span_and_a_second_chat_span_wrap_the_call_then_it_counts_once(
    tmp_path, store, samples
):
    agent = samples.otel_span(samples.Fact(number=1), {"gen_ai.operation.name": "invoke_agent"})
    fact = samples.Fact(number=2)
    wrapper = samples.otel_span(fact, traceId=agent["traceId"], parentSpanId=agent["spanId"])
    call = samples.otel_span(samples.Fact(number=3), traceId=agent["traceId"], parentSpanId=wrapper["spanId"])

    # A span is exported when it ends: the innermost first, and in requests of their own.
    report = load(
        store, samples, tmp_path / "spans.jsonl", *map(samples.otel_request, (call, wrapper, agent))
    )

    assert (report.n_added, report.n_dropped) == (1, {"wraps another call": 1, "not a model call": 1})
    (record,) = store.records()
    assert record.source_id == f"{agent['traceId']}:{call['spanId']}"


@pytest.mark.parametrize("place", ["span", "response id"])
def test_import_when_the_evaluation_is_a_log_record_then_the_call_is_scored(tmp_path, store, samples, place):
    fact = samples.Fact()
    span = samples.otel_span(fact, events=[])
    attributes = samples.otel_evaluation(fact)
    entry = {"eventName": "gen_ai.evaluation.result"}
    if place == "span":
        entry |= {"traceId": span["traceId"], "spanId": span["spanId"]}
    else:
        attributes |= {"gen_ai.response.id": "resp-1"}
    logs = {
        "resourceLogs": [{"scopeLogs": [{"logRecords": [entry | {"attributes": samples.otlp(attributes)}]}]}]
    }

    load(store, samples, tmp_path / "telemetry.jsonl", samples.otel_request(span), logs)

    assert [(score.kind, score.scorer, score.value, score.reason) for score in store.scores()] == [
        ("judge", "otel:Relevance", 0.75, "It names the city.")
    ]


def test_import_when_content_was_not_captured_then_the_span_is_dropped(tmp_path, store, samples):
    span = samples.otel_span(samples.Fact(), OLD)

    report = load(store, samples, tmp_path / "spans.jsonl", samples.otel_request(span))

    assert report.n_dropped == {"prompt not stored": 1}


def test_import_when_the_call_failed_then_the_record_has_its_error(tmp_path, store, samples):
    fact = samples.Fact()
    attributes = samples.genai_attributes(fact) | {"error.type": "timeout"}
    span = samples.otel_span(fact, attributes, status={"code": 2, "message": "no answer in 60 s"})

    load(store, samples, tmp_path / "spans.jsonl", samples.otel_request(span))

    (record,) = store.records()
    assert (record.error, record.response) == ("timeout: no answer in 60 s", None)


def test_import_when_the_file_is_one_indented_document_then_it_is_read(tmp_path, store, samples):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(samples.otel_request(samples.otel_span(samples.Fact())), indent=2))

    assert import_logs("otel", path, store).n_added == 1


def test_import_when_a_line_is_no_request_then_it_is_quarantined(tmp_path, store, samples):
    report = load(store, samples, tmp_path / "spans.jsonl", {"span": 1})

    assert report.n_quarantined == 1
    assert "no OTLP request" in report.quarantine.read_text()


def test_import_when_an_attribute_is_malformed_then_its_span_alone_is_quarantined(tmp_path, store, samples):
    broken, fine = samples.otel_span(samples.Fact()), samples.otel_span(samples.Fact(number=2))
    broken["attributes"] += [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "2[1"}}]

    report = load(store, samples, tmp_path / "spans.jsonl", samples.otel_request(broken, fine))

    assert (report.n_added, report.n_quarantined) == (1, 1)
    assert "input_tokens: not a number, got '2[1'" in report.quarantine.read_text()
