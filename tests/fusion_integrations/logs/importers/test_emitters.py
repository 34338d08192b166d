"""What the tracers really emit, imported: not what their documentation says they do."""

import json
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from fusion_integrations.logs import LogStore
from fusion_integrations.logs.importers import import_logs

QUESTION, ANSWER = "Capital of Norway?", "Oslo."
RECORDED = Path(__file__).parents[3] / "data"  # what libraries emit, each made by the record.py beside it


def check(store):
    (record,) = [record for record in store.records() if record.error is None]
    assert [(turn.role, turn.content) for turn in record.messages] == [
        ("system", "Be brief."),
        ("user", QUESTION),
    ]
    assert record.response == ANSWER
    return record


def test_import_when_langchain_traced_to_langsmith_then_the_call_arrives(tmp_path, store, samples):
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.tracers.langchain import LangChainTracer
    from langsmith import Client

    client = MagicMock(spec=Client)
    client.tracing_queue = None
    answer = AIMessage(
        ANSWER,
        usage_metadata={"input_tokens": 21, "output_tokens": 3, "total_tokens": 24},
        response_metadata={"model_name": "small-1", "finish_reason": "stop"},
    )
    model = GenericFakeChatModel(messages=iter([answer]))
    model.invoke(
        [("system", "Be brief."), ("user", QUESTION)],
        config={"callbacks": [LangChainTracer(client=client)], "metadata": {"ls_model_name": "small-1"}},
    )
    # The server keeps what the last update of a run says.
    run = {**client.create_run.call_args.kwargs, **client.update_run.call_args.kwargs}
    run["id"] = run.pop("run_id")
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(run, default=str) + "\n")

    report = import_logs("langsmith", path, store)

    assert (report.n_added, report.n_quarantined) == (1, 0)
    record = check(store)
    assert (record.model, record.finish_reason) == ("small-1", "stop")
    assert (record.input_tokens, record.output_tokens) == (21, 3)
    assert record.latency_s is not None


def test_import_when_the_opentelemetry_sdk_exported_then_the_call_arrives(tmp_path, store, samples):
    from google.protobuf.json_format import MessageToJson
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    fact = samples.Fact(query=QUESTION, answer=ANSWER)
    tracer = provider.get_tracer("test")
    with (
        tracer.start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
        tracer.start_as_current_span("chat", attributes=samples.genai_attributes(fact)) as span,
    ):
        span.add_event("gen_ai.evaluation.result", samples.otel_evaluation(fact))
    path = tmp_path / "spans.json"
    path.write_text(MessageToJson(encode_spans(kept.get_finished_spans())))

    report = import_logs("otel", path, store)

    assert (report.n_added, report.n_dropped) == (1, {"not a model call": 1})
    record = check(store)
    assert (record.input_tokens, record.output_tokens, record.session_id) == (21, 3, "thread-1")
    assert [score.value for score in store.scores()] == [0.75]


@pytest.mark.parametrize(
    ("name", "n_calls", "n_uncounted", "dropped"),
    [
        ("genai_google", 1, 0, {}),
        ("genai_openai", 2, 0, {}),  # texts stand in log records, as up to conventions 1.36
        ("openllmetry_0_40", 2, 1, {}),  # texts stand in numbered attributes
        ("openllmetry_openai", 2, 0, {}),
        ("openllmetry_langchain", 2, 0, {"not a model call": 6}),
        ("openinference_openai", 2, 0, {}),
        ("openinference_langchain", 2, 0, {"not a model call": 6}),
    ],
)
def test_import_when_an_instrumentation_traced_then_each_call_arrives_once(
    store, name, n_calls, n_uncounted, dropped
):
    report = import_logs("otel", RECORDED / "otel" / f"{name}.jsonl", store)

    assert (report.n_added, report.n_dropped, report.n_quarantined) == (n_calls, dropped, 0)
    for record in store.records():
        turns = [(turn.role, turn.content) for turn in record.messages]
        assert turns == [("system", "Be brief."), ("user", QUESTION)]
        assert (record.candidate_id, record.response, record.error) == ("small-1", ANSWER, None)
        assert record.latency_s > 0
    # The old OpenLLMetry counts no tokens of a stream.
    counts = [(record.input_tokens, record.output_tokens) for record in store.records()]
    assert sorted(counts, key=str) == [(21, 3)] * (n_calls - n_uncounted) + [(None, None)] * n_uncounted


def test_import_when_langfuse_models_were_dumped_then_the_call_arrives(tmp_path, store, samples):
    api = pytest.importorskip("langfuse.api")
    observation = api.ObservationV2(
        id="obs-1",
        trace_id="trace-1",
        project_id="project",
        type="GENERATION",
        start_time=datetime(2026, 1, 2, 12, tzinfo=UTC),
        end_time=datetime(2026, 1, 2, 12, 0, 2, tzinfo=UTC),
        level="DEFAULT",
        provided_model_name="small-1",
        input=json.dumps(samples.Fact(query=QUESTION).messages),
        output=ANSWER,
        usage_details={"input": 21, "output": 3, "total": 24},
        total_cost=0.25,
    )
    page = tmp_path / "observations.json"
    page.write_text(json.dumps({"data": [json.loads(observation.model_dump_json(by_alias=True))]}))
    score = {"observationId": "obs-1", "traceId": "trace-1", "name": "ok", "value": 1, "source": "ANNOTATION"}

    report = import_logs("langfuse", page, store, join=samples.lines(tmp_path / "scores.jsonl", [score]))

    assert (report.n_added, report.n_quarantined) == (1, 0)
    record = check(store)
    assert (record.model, record.cost_usd, record.latency_s) == ("small-1", 0.25, 2.0)
    assert [(score.kind, score.value) for score in store.scores()] == [("feedback", 1.0)]


def test_import_when_openai_types_were_dumped_then_the_call_arrives(tmp_path, store, samples):
    chat = pytest.importorskip("openai.types.chat")
    fact = samples.Fact(query=QUESTION, answer=ANSWER)
    completion = chat.ChatCompletion.model_validate(fact.completion)
    row = json.loads(completion.model_dump_json()) | {"messages": fact.messages}

    import_logs("openai-stored", samples.lines(tmp_path / "stored.jsonl", [row]), store)

    record = check(store)
    assert (record.finish_reason, record.input_tokens, record.output_tokens) == ("stop", 21, 3)


def test_import_when_litellm_logged_then_the_calls_arrive_under_one_name(store):
    report = import_logs("litellm", RECORDED / "litellm" / "payloads.jsonl", store)

    assert (report.n_added, report.n_dropped) == (6, {"answered from a cache": 1})
    assert report.n_quarantined == 0
    # LiteLLM names the model with its provider where a router of its own called it, and without otherwise.
    assert {record.candidate_id for record in store.records()} == {"gpt-4o-mini"}
    (failed,) = [record for record in store.records() if record.error is not None]
    assert failed.error.startswith("RateLimitError: ")
    (routed,) = [record for record in store.records() if record.assignment == "policy"]
    assert (routed.planned_candidate_id, routed.propensity) == (None, None)
    answers = [record.response for record in store.records() if record.error is None]
    assert sorted(answers) == [ANSWER] * 4 + ["This is a mock request"]  # what stood beside the tool call
    assert all(record.cost_usd > 0 and record.latency_s > 0 for record in store.records() if not record.error)


def test_import_when_litellm_wrote_spend_logs_then_the_routed_call_arrives_as_its_payload_says(store):
    import_logs("litellm", RECORDED / "litellm" / "payloads.jsonl", store)
    (routed,) = [record for record in store.records() if record.assignment == "policy"]

    report = import_logs("litellm-spend", RECORDED / "litellm" / "spend_logs.jsonl", store)

    assert (report.n_rows, report.n_known) == (1, 1)
    with LogStore.open(":memory:") as other:
        import_logs("litellm-spend", RECORDED / "litellm" / "spend_logs.jsonl", other)
        (spent,) = other.records()
    exact = {
        "latency_s",
        "created_at",
        "session_id",
    }  # milliseconds there; the proxy makes sessions of its own
    assert spent.model_dump(exclude=exact) == routed.model_dump(exclude=exact)
    assert spent.latency_s == pytest.approx(routed.latency_s, abs=1e-3)
