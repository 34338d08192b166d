"""LangChain's own conformance suites, with no test overridden."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from fusion_integrations import FusionPipeline
from fusion_integrations.demo.models import smollm2_client
from fusion_integrations.testing import ScriptedChatClient, tiny_prices, tiny_router
from langchain_fusion import ChatClientModel, FusionChatModel


class SchemaChatModel(BaseChatModel):
    """Calls the tool it must or can call, with arguments made from the schema and the user's words."""

    model: str

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    @property
    def _llm_type(self) -> str:
        return "schema"

    def _fields(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        last = messages[-1]
        fields: dict[str, Any] = {"content": f"Answered by {self.model} at length."}
        if kwargs.get("tools") and isinstance(last, HumanMessage):
            tool = _chosen(kwargs["tools"], kwargs.get("tool_choice"))["function"]
            args = _value(tool["parameters"], tool["parameters"], str(last.text))
            fields = {"content": "", "tool_calls": [{"name": tool["name"], "args": args, "id": "call-1"}]}
        usage = {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}
        return fields | {"usage_metadata": usage, "response_metadata": {"model_name": self.model}}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        message = AIMessage(**self._fields(messages, kwargs))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        fields = self._fields(messages, kwargs)
        for word in re.findall(r"\S+\s*", fields.pop("content")):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        for call in fields.pop("tool_calls", []):
            whole = json.dumps(call["args"], ensure_ascii=False)
            for i, piece in enumerate((whole[:3], whole[3:])):
                start = {"name": call["name"], "id": call["id"]} if i == 0 else {"name": None, "id": None}
                chunk = {**start, "args": piece, "index": 0, "type": "tool_call_chunk"}
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last", **fields))


def _chosen(tools: list[dict[str, Any]], choice: str | None) -> dict[str, Any]:
    return next((tool for tool in tools if tool["function"]["name"] == choice), tools[0])


def _value(schema: dict[str, Any], root: dict[str, Any], words: str) -> Any:
    if "$ref" in schema:
        return _value(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, words)
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], root, words)
    number = re.search(r"\d+", words)
    made: dict[str, Any] = {
        "object": lambda: {k: _value(v, root, words) for k, v in schema.get("properties", {}).items()},
        "array": lambda: [_value(schema.get("items", {"type": "string"}), root, words)],
        "integer": lambda: int(number.group()) if number else 0,
        "number": lambda: float(number.group()) if number else 0.0,
        "boolean": lambda: True,
    }
    return made.get(schema.get("type", "string"), lambda: words)()


@functools.cache
def _able_pipeline() -> FusionPipeline:
    """A pipeline whose candidates all say that they can do everything."""
    router = tiny_router()
    able = frozenset({"tools", "structured_output"})
    candidates = tuple(replace(candidate, capabilities=able) for candidate in router.candidates)
    weights = replace(router.weights, candidates=candidates)
    return FusionPipeline(replace(router, weights=weights), prices=tiny_prices())


class TestFusionChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[FusionChatModel]:
        return FusionChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        names = ("tiny-math", "tiny-prose")
        models = {name: ChatClientModel(client=ScriptedChatClient(name)) for name in names}
        return {"pipeline": _able_pipeline(), "models": models}


class TestChatClientModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatClientModel]:
        return ChatClientModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": ScriptedChatClient("scripted")}


class TestFusionChatModelOverToolModels(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[FusionChatModel]:
        return FusionChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        models = {name: SchemaChatModel(model=name) for name in ("tiny-math", "tiny-prose")}
        return {"pipeline": _able_pipeline(), "models": models}


class TestChatClientModelOverScriptedClient(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatClientModel]:
        return ChatClientModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": ScriptedChatClient("scripted")}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


@functools.cache
def _smollm2() -> ChatClientModel:
    return ChatClientModel(client=smollm2_client(n_threads=1), max_tokens=4)


@pytest.mark.slow
@pytest.mark.real_model
class TestFusionChatModelOverSmolLM2(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[FusionChatModel]:
        return FusionChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "pipeline": _able_pipeline(),
            "models": {"tiny-math": _smollm2(), "tiny-prose": _smollm2()},
        }

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False
