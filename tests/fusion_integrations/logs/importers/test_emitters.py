"""What the tracers really emit, imported: not what their documentation says they do."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from unittest.mock import MagicMock

import pytest

from fusion_integrations.logs.importers import import_logs

QUESTION, ANSWER = "Capital of Norway?", "Oslo."


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


LITELLM = """
import json, time
import litellm
from litellm.integrations.custom_logger import CustomLogger

emitted = []

class Keep(CustomLogger):
    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        emitted.append(kwargs["standard_logging_object"])

    log_failure_event = log_success_event

litellm.callbacks = [Keep()]
asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Norway?"}]
litellm.completion(model="openai/gpt-4o-mini", messages=asked, mock_response="Oslo.")
try:
    litellm.completion(model="openai/gpt-4o-mini", messages=asked, mock_response="litellm.RateLimitError")
except litellm.exceptions.RateLimitError:
    pass
while len(emitted) < 2:
    time.sleep(0.01)  # callbacks run in a thread of LiteLLM's
for payload in emitted:
    print(json.dumps(payload, default=str))
"""


@pytest.mark.slow
def test_import_when_litellm_logged_then_the_calls_arrive(tmp_path, store):
    pytest.importorskip("litellm", reason="LiteLLM does not install beside chromadb")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LITELLM],
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    path = tmp_path / "payloads.jsonl"
    path.write_text(done.stdout)

    report = import_logs("litellm", path, store)

    assert (report.n_added, report.n_quarantined) == (2, 0)
    assert check(store).model == "gpt-4o-mini"
    (failed,) = [record for record in store.records() if record.error is not None]
    assert failed.error.startswith("RateLimitError")
