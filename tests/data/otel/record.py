"""Record the spans that instrumentation libraries emit, as the OpenTelemetry collector writes them.

In an environment of their own, which need not agree with this project's:

    pip install openai langchain-openai 'google-genai<3' 'wrapt<2' \\
        opentelemetry-sdk opentelemetry-exporter-otlp-proto-common \\
        openinference-instrumentation-{openai,langchain} opentelemetry-instrumentation-{openai,langchain} \\
        opentelemetry-instrumentation-google-genai opentelemetry-instrumentation-openai-v2==2.3b0
    python record.py
    pip install 'opentelemetry-instrumentation-openai==0.40.*'
    python record.py openllmetry_0_40
"""

import json
import os
import subprocess
import sys
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

from google.protobuf.json_format import MessageToJson
from openai import OpenAI
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SYSTEM, QUESTION, ANSWER = "Be brief.", "Capital of Norway?", "Oslo."
OLD = "openllmetry_0_40"  # names its attributes as conventions before 1.37 did
INSTRUMENTATIONS = {  # file written: module, class, what is called
    "openinference_openai": ("openinference.instrumentation.openai", "OpenAIInstrumentor", "openai"),
    "openinference_langchain": (
        "openinference.instrumentation.langchain",
        "LangChainInstrumentor",
        "langchain",
    ),
    "genai_google": ("opentelemetry.instrumentation.google_genai", "GoogleGenAiSdkInstrumentor", "google"),
    "genai_openai": ("opentelemetry.instrumentation.openai_v2", "OpenAIInstrumentor", "openai"),
    OLD: ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor", "openai"),
    "openllmetry_openai": ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor", "openai"),
    "openllmetry_langchain": (
        "opentelemetry.instrumentation.langchain",
        "LangchainInstrumentor",
        "langchain",
    ),
}


CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LATEST = {"OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental", CONTENT: "SPAN_ONLY"}


class Server(BaseHTTPRequestHandler):
    """Answers as OpenAI's chat completions do, whole or as a stream, and as Gemini does, whole."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "generateContent" in self.path:
            content = {"role": "model", "parts": [{"text": ANSWER}]}
            counts = {"promptTokenCount": 21, "candidatesTokenCount": 3, "totalTokenCount": 24}
            candidate = {"content": content, "finishReason": "STOP", "index": 0}
            answer = {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "small-1"}
            self.reply(json.dumps(answer), kind="application/json")
            return
        base = {"id": "chatcmpl-1", "created": 1767355200, "model": "small-1"}
        usage = {"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}
        if asked.get("stream"):
            base["object"] = "chat.completion.chunk"
            delta = {"index": 0, "delta": {"role": "assistant", "content": ANSWER}, "finish_reason": None}
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunks = [base | {"choices": [part]} for part in (delta, end)]
            chunks.append(base | {"choices": [], "usage": usage})
            body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
            kind = "text/event-stream"
        else:
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps(base | {"object": "chat.completion", "choices": [choice], "usage": usage})
            kind = "application/json"
        self.reply(body, kind=kind)

    def reply(self, body, *, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Say nothing."""


def ask_openai(url):
    client = OpenAI(base_url=url, api_key="none")
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    client.chat.completions.create(model="small-1", messages=messages)
    list(
        client.chat.completions.create(
            model="small-1", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )


def ask_langchain(url):
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="small-1", base_url=url, api_key="none", stream_usage=True)
    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("human", "{question}")])
    chain = prompt | model | StrOutputParser()
    chain.invoke({"question": QUESTION})
    list(chain.stream({"question": QUESTION}))


def ask_google(url):
    from google import genai

    client = genai.Client(api_key="none", http_options={"base_url": url})
    config = {"system_instruction": SYSTEM}
    client.models.generate_content(model="small-1", contents=QUESTION, config=config)


ASK = {"openai": ask_openai, "langchain": ask_langchain, "google": ask_google}


def record(name):
    module, instrumentor, called = INSTRUMENTATIONS[name]
    os.environ |= LATEST if name == "genai_google" else {CONTENT: "true"}
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    logged = InMemoryLogRecordExporter()
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logged))
    getattr(import_module(module), instrumentor)().instrument(
        tracer_provider=provider, logger_provider=loggers
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    ASK[called](f"http://127.0.0.1:{server.server_port}/v1")
    server.shutdown()
    requests = [encode_spans(kept.get_finished_spans())]
    if logged.get_finished_logs():
        requests.append(encode_logs(logged.get_finished_logs()))
    lines = [json.dumps(with_hex_ids(json.loads(MessageToJson(request)))) for request in requests]
    Path(__file__).with_name(f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def with_hex_ids(part):
    """Write ids as OTLP JSON has them; Protobuf's own JSON has them in base64."""
    if isinstance(part, list):
        return [with_hex_ids(each) for each in part]
    if not isinstance(part, dict):
        return part
    ids = {key: b64decode(part[key]).hex() for key in ("traceId", "spanId", "parentSpanId") if key in part}
    return {key: with_hex_ids(value) for key, value in part.items()} | ids


if __name__ == "__main__":
    if len(sys.argv) > 1:
        record(sys.argv[1])
    else:
        for each in INSTRUMENTATIONS.keys() - {OLD}:  # a process each: they patch the same libraries
            subprocess.run([sys.executable, __file__, each], check=True)
