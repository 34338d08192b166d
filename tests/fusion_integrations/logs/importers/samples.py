"""Small logs in every format, written from the documented schemas: the same facts, told in fifteen ways.

Loaded by path, here and by `benchmarks/fuzz_importers.py`; nothing in it comes from a real log.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One call; what a format cannot tell is left out there."""

    number: int = 1
    query: str = "What is the capital of Norway?"
    system: str = "Be brief."
    answer: str = "Oslo."
    model: str = "small-1"
    input_tokens: int = 21
    output_tokens: int = 3
    cost_usd: float = 0.0005
    latency_s: float = 1.5
    score: float = 0.75

    @property
    def id(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012d}"

    @property
    def start(self) -> datetime:
        return NOON + timedelta(minutes=self.number)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=self.latency_s)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.query}]

    @property
    def question(self) -> list[dict[str, str]]:
        return self.messages[1:]

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    @property
    def completion(self) -> dict[str, object]:
        """What a chat completions API answers."""
        message = {"role": "assistant", "content": self.answer}
        return {
            "id": f"chatcmpl-{self.number}",
            "object": "chat.completion",
            "created": int(self.start.timestamp()),
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": self.usage,
        }


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How to write facts in a format, and what of them it keeps.

    Attributes:
        write: Writes the facts into a folder; gives back what to import.
        keeps: Fields that arrive: of `Fact`, besides query, answer and model, which always do.
        join: Name of the second file in the folder; empty if there is none.
    """

    write: Callable[[Path, Sequence[Fact]], Path]
    keeps: frozenset[str]
    join: str = ""


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def langsmith_run(fact: Fact, **fields: object) -> dict[str, object]:
    def message(name: str, content: str) -> dict[str, object]:
        place = ["langchain", "schema", "messages", name]
        return {"lc": 1, "type": "constructor", "id": place, "kwargs": {"content": content}}

    answer = message("AIMessage", fact.answer)
    answer["kwargs"] |= {
        "response_metadata": {"finish_reason": "stop", "model_name": fact.model},
        "usage_metadata": {"input_tokens": fact.input_tokens, "output_tokens": fact.output_tokens},
    }
    generation = {"text": fact.answer, "type": "ChatGeneration", "message": answer}
    stamp = fact.start.strftime("%Y%m%dT%H%M%S%f")
    run: dict[str, object] = {
        "id": fact.id,
        "trace_id": fact.id,
        "dotted_order": f"{stamp}Z{fact.id}",
        "parent_run_id": None,
        "name": "ChatOpenAI",
        "run_type": "llm",
        "status": "success",
        "start_time": fact.start.isoformat(),
        "end_time": fact.end.isoformat(),
        "error": None,
        "extra": {
            "invocation_params": {"model": fact.model},
            "metadata": {"ls_provider": "openai", "ls_model_name": fact.model, "thread_id": "thread-1"},
        },
        "inputs": {
            "messages": [[message("SystemMessage", fact.system), message("HumanMessage", fact.query)]]
        },
        "outputs": {"generations": [[generation]], "llm_output": None},
        "prompt_tokens": fact.input_tokens,
        "completion_tokens": fact.output_tokens,
        "total_cost": str(fact.cost_usd),
        "feedback_stats": {"thumbs": {"n": 2, "avg": fact.score}},
    }
    return run | fields


def langfuse_observation(fact: Fact, **fields: object) -> dict[str, object]:
    observation: dict[str, object] = {
        "id": fact.id,
        "trace_id": f"trace-{fact.number}",
        "type": "GENERATION",
        "parent_observation_id": None,
        "start_time": fact.start.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "end_time": fact.end.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "level": "DEFAULT",
        "status_message": None,
        "provided_model_name": fact.model,
        "input": json.dumps(fact.messages),
        "output": json.dumps({"role": "assistant", "content": fact.answer}),
        "usage_details": {"input": fact.input_tokens, "output": fact.output_tokens},
        "cost_details": {"total": fact.cost_usd},
        "total_cost": fact.cost_usd,
        "latency": fact.latency_s,
        "session_id": "thread-1",
    }
    return observation | fields


def langfuse_score(fact: Fact, **fields: object) -> dict[str, object]:
    score: dict[str, object] = {
        "id": f"score-{fact.number}",
        "trace_id": f"trace-{fact.number}",
        "observation_id": fact.id,
        "name": "helpful",
        "value": fact.score,
        "source": "EVAL",
        "data_type": "NUMERIC",
        "comment": "It names the city.",
    }
    return score | fields


def litellm_payload(fact: Fact, **fields: object) -> dict[str, object]:
    payload: dict[str, object] = {
        "id": fact.id,
        "trace_id": f"trace-{fact.number}",
        "call_type": "acompletion",
        "status": "success",
        "model": fact.model,
        "model_group": "chat",
        "custom_llm_provider": "openai",
        "messages": fact.messages,
        "response": fact.completion,
        "response_cost": fact.cost_usd,
        "response_cost_failure_debug_info": None,
        "startTime": fact.start.timestamp(),
        "endTime": fact.end.timestamp(),
        "response_time": fact.latency_s,
        "cache_hit": None,
        "metadata": {"user_api_key_hash": "0" * 64, "routing_decision": None},
        "hidden_params": {"litellm_model_name": f"openai/{fact.model}"},
    }
    return payload | fact.usage | fields


def litellm_spend_row(fact: Fact, **fields: object) -> dict[str, object]:
    row: dict[str, object] = {
        "request_id": fact.id,
        "call_type": "acompletion",
        "api_key": "0" * 64,
        "spend": fact.cost_usd,
        "startTime": fact.start.isoformat(),
        "endTime": fact.end.isoformat(),
        "request_duration_ms": int(fact.latency_s * 1000),
        "model": fact.model,
        "model_group": "chat",
        "metadata": json.dumps({"status": "success"}),
        "cache_hit": "False",
        "messages": json.dumps(fact.messages),
        "response": json.dumps(fact.completion),
        "proxy_server_request": "{}",
        "session_id": "thread-1",
        "status": "success",
    }
    return row | fact.usage | fields


def otlp(attributes: dict[str, object]) -> list[dict[str, object]]:
    def value(found: object) -> dict[str, object]:
        if isinstance(found, bool):
            return {"boolValue": found}
        if isinstance(found, int):
            return {"intValue": str(found)}
        if isinstance(found, float):
            return {"doubleValue": found}
        if isinstance(found, list):
            return {"arrayValue": {"values": [value(each) for each in found]}}
        return {"stringValue": found}

    return [{"key": key, "value": value(found)} for key, found in attributes.items()]


def genai_attributes(fact: Fact) -> dict[str, object]:
    def message(role: str, content: str) -> dict[str, object]:
        return {"role": role, "parts": [{"type": "text", "content": content}]}

    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": fact.model,
        "gen_ai.response.id": f"resp-{fact.number}",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.conversation.id": "thread-1",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": fact.system}]),
        "gen_ai.input.messages": json.dumps([message("user", fact.query)]),
        "gen_ai.output.messages": json.dumps([message("assistant", fact.answer) | {"finish_reason": "stop"}]),
        "gen_ai.usage.input_tokens": fact.input_tokens,
        "gen_ai.usage.output_tokens": fact.output_tokens,
    }


def otel_evaluation(fact: Fact) -> dict[str, object]:
    return {
        "gen_ai.evaluation.name": "Relevance",
        "gen_ai.evaluation.score.value": fact.score,
        "gen_ai.evaluation.explanation": "It names the city.",
    }


def otel_span(fact: Fact, attributes: dict[str, object] | None = None, **fields: object) -> dict[str, object]:
    def nanoseconds(moment: datetime) -> str:
        return str(int(moment.timestamp() * 1_000_000) * 1000)

    span: dict[str, object] = {
        "traceId": f"{fact.number:032x}",
        "spanId": f"{fact.number:016x}",
        "parentSpanId": "",
        "name": f"chat {fact.model}",
        "kind": 3,
        "startTimeUnixNano": nanoseconds(fact.start),
        "endTimeUnixNano": nanoseconds(fact.end),
        "attributes": otlp(genai_attributes(fact) if attributes is None else attributes),
        "events": [{"name": "gen_ai.evaluation.result", "attributes": otlp(otel_evaluation(fact))}],
        "status": {},
    }
    return span | fields


def otel_request(*spans: dict[str, object]) -> dict[str, object]:
    scope = {"scope": {"name": "test"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]}


def helicone_request(fact: Fact, **fields: object) -> dict[str, object]:
    request: dict[str, object] = {
        "request_id": fact.id,
        "request_created_at": fact.start.isoformat(),
        "response_status": 200,
        "request_model": "small",
        "response_model": fact.model,
        "request_body": {"model": "small", "messages": fact.messages},
        "response_body": fact.completion,
        "delay_ms": int(fact.latency_s * 1000),
        "costUSD": fact.cost_usd,
        "cache_reference_id": None,
        "properties": {"Helicone-Session-Id": "thread-1"},
        "scores": {"relevance": fact.score},
        "feedback_rating": None,
    }
    return request | fact.usage | fields


def replay_record(fact: Fact, **fields: object) -> dict[str, object]:
    record: dict[str, object] = {
        "id": fact.id,
        "timestamp": fact.start.isoformat(),
        "session_id": "thread-1",
        "turn_index": 0,
        "decision": "cheap_first",
        "category": "geography",
        "original_model": "auto",
        "selected_model": fact.model,
        "reasoning_mode": "off",
        "selection_method": "static",
        "request_body": json.dumps({"model": "auto", "messages": fact.messages}),
        "response_body": json.dumps(fact.completion),
        "response_status": 200,
        "lifecycle_state": "completed",
        "duration_ms": int(fact.latency_s * 1000),
        "prompt_tokens": fact.input_tokens,
        "completion_tokens": fact.output_tokens,
        "actual_cost": fact.cost_usd,
        "currency": "USD",
        "outcomes": [
            {"source": "llm_judge", "target": "model", "verdict": "good", "reason": "ok", "score": fact.score}
        ],
    }
    return record | fields


def fusionbench_row(fact: Fact, **fields: object) -> dict[str, object]:
    row: dict[str, object] = {
        "task_name": "geography",
        "task_id": "",
        "query": fact.query,
        "ground_truth": "Oslo",
        "metric": "em",
        "llm": fact.model,
        "response": fact.answer,
        "input_price": 0.1,
        "output_price": 0.2,
        "input_tokens_num": fact.input_tokens,
        "output_tokens_num": fact.output_tokens,
        "cost": fact.cost_usd,
        "performance": fact.score,
        "llm_judge": 0.5,
        "query_embedding": "tensor([0.1, 0.2])",
    }
    return row | fields


def llmrouter_row(fact: Fact, **fields: object) -> dict[str, object]:
    row: dict[str, object] = {
        "task_name": "geography",
        "query": fact.query,
        "ground_truth": "Oslo",
        "metric": "em",
        "choices": None,
        "task_id": None,
        "model_name": fact.model,
        "response": fact.answer,
        "token_num": fact.input_tokens + fact.output_tokens,
        "input_tokens": fact.input_tokens,
        "output_tokens": fact.output_tokens,
        "response_time": fact.latency_s,
        "api_key_used": "rivTkKeBPm",
        "performance": fact.score,
        "embedding_id": 61,
    }
    return row | fields


def _langfuse(folder: Path, facts: Sequence[Fact]) -> Path:
    for name in ("observations_v2", "scores"):
        (folder / name).mkdir()
    lines(folder / "observations_v2" / "1.jsonl", [langfuse_observation(fact) for fact in facts])
    lines(folder / "scores" / "1.jsonl", [langfuse_score(fact) for fact in facts])
    return folder


def _openai_batch(folder: Path, facts: Sequence[Fact]) -> Path:
    asked = [
        {
            "custom_id": f"ask-{fact.number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": fact.model, "messages": fact.messages},
        }
        for fact in facts
    ]
    answered = [
        {
            "id": f"batch_req_{fact.number}",
            "custom_id": f"ask-{fact.number}",
            "response": {"status_code": 200, "request_id": "r", "body": fact.completion},
            "error": None,
        }
        for fact in reversed(facts)
    ]
    lines(folder / "input.jsonl", asked)
    return lines(folder / "output.jsonl", answered)


def _openai_stored(folder: Path, facts: Sequence[Fact]) -> Path:
    path = folder / "stored.json"
    page = {
        "object": "list",
        "data": [
            fact.completion | {"metadata": {}, "messages": {"object": "list", "data": fact.messages}}
            for fact in facts
        ],
        "has_more": False,
    }
    path.write_text(json.dumps(page, indent=1))
    return path


def _routerbench(folder: Path, facts: Sequence[Fact]) -> Path:
    models = sorted({fact.model for fact in facts})
    rows = []
    for fact in facts:
        row: dict[str, object] = {
            "sample_id": f"geo.{fact.number}",
            "prompt": repr([fact.query]),
            "eval_name": "geography",
        }
        row |= {name: fact.score if name == fact.model else None for name in models}
        row |= {f"{m}|model_response": repr([fact.answer]) if m == fact.model else None for m in models}
        row |= {f"{m}|total_cost": fact.cost_usd if m == fact.model else None for m in models}
        rows.append(row | {"oracle_model_to_route_to": models[0]})
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "routerbench.parquet")
    return folder / "routerbench.parquet"


def _llmrouterbench(folder: Path, facts: Sequence[Fact]) -> Path:
    for model in {fact.model for fact in facts}:
        place = folder / "geography" / "test" / model
        place.mkdir(parents=True)
        records = [
            {
                "index": fact.number,
                "origin_query": fact.query,
                "prompt": fact.query,
                "prediction": "Oslo",
                "ground_truth": "Oslo",
                "score": fact.score,
                "cost": fact.cost_usd,
                "raw_output": fact.answer,
            }
            | fact.usage
            for fact in facts
            if fact.model == model
        ]
        whole = {"performance": 0.5, "time_taken": 2.0, "counts": len(records), "records": records}
        (place / "20260102_120000.json").write_text(json.dumps(whole))
    return folder


def _llmrouter(folder: Path, facts: Sequence[Fact]) -> Path:
    prices = {fact.model: {"size": "1B", "input_price": 1.0, "output_price": 2.0} for fact in facts}
    (folder / "default_llm.json").write_text(json.dumps(prices))
    return lines(folder / "routing.jsonl", [llmrouter_row(fact) for fact in facts])


def _table(folder: Path, facts: Sequence[Fact]) -> Path:
    rows = [
        {
            "messages": json.dumps(fact.messages),
            "model": fact.model,
            "response": fact.answer,
            "input_tokens": fact.input_tokens,
            "output_tokens": fact.output_tokens,
            "cost_usd": fact.cost_usd,
            "latency_s": fact.latency_s,
            "created_at": fact.start.isoformat(),
            "performance": fact.score,
            "source_id": fact.id,
        }
        for fact in facts
    ]
    pl.DataFrame(rows).write_parquet(folder / "table.parquet")
    return folder / "table.parquet"


_FULL = frozenset({"system", "input_tokens", "output_tokens", "cost_usd", "latency_s", "start", "score"})
_BENCHMARK = frozenset({"input_tokens", "output_tokens", "cost_usd", "score"})

SAMPLES: dict[str, Sample] = {
    "fusionbench": Sample(
        write=lambda folder, facts: table(folder / "fusionbench.csv", [fusionbench_row(f) for f in facts]),
        keeps=_BENCHMARK,
    ),
    "helicone": Sample(
        write=lambda folder, facts: lines(folder / "helicone.jsonl", [helicone_request(f) for f in facts]),
        keeps=_FULL,
    ),
    "langfuse": Sample(write=_langfuse, keeps=_FULL),
    "langsmith": Sample(
        write=lambda folder, facts: lines(folder / "runs.jsonl", [langsmith_run(f) for f in facts]),
        keeps=_FULL,
    ),
    "litellm": Sample(
        write=lambda folder, facts: lines(folder / "litellm.jsonl", [litellm_payload(f) for f in facts]),
        keeps=_FULL - {"score"},
    ),
    "litellm-spend": Sample(
        write=lambda folder, facts: table(folder / "spend.csv", [litellm_spend_row(f) for f in facts]),
        keeps=_FULL - {"score"},
    ),
    "llmrouter": Sample(
        write=_llmrouter, keeps=_BENCHMARK - {"cost_usd"} | {"latency_s"}, join="default_llm.json"
    ),
    "llmrouterbench": Sample(write=_llmrouterbench, keeps=_BENCHMARK),
    "openai-batch": Sample(
        write=_openai_batch, keeps=_FULL - {"cost_usd", "latency_s", "score"}, join="input.jsonl"
    ),
    "openai-stored": Sample(write=_openai_stored, keeps=_FULL - {"cost_usd", "latency_s", "score"}),
    "otel": Sample(
        write=lambda folder, facts: lines(
            folder / "spans.jsonl", [otel_request(otel_span(f)) for f in facts]
        ),
        keeps=_FULL - {"cost_usd"},
    ),
    "routerbench": Sample(write=_routerbench, keeps=frozenset({"cost_usd", "score"})),
    "table": Sample(write=_table, keeps=_FULL),
    "vllm-replay": Sample(
        write=lambda folder, facts: lines(folder / "replay.jsonl", [replay_record(f) for f in facts]),
        keeps=_FULL,
    ),
}
