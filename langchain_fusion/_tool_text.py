"""Tools as text, for models that know only text: the prompt that offers them, and the calls in an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, ValidationError

from fusion_integrations._optional import require
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.prompts import read_versioned_text

__all__ = ["OfferedTools", "ToolAnswer", "ToolLike", "as_text", "tools_prompt"]

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool

_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)

# In a tool's output: what could be taken for our delimiters, or for what chat templates put between turns:
# `<|im_end|>`, also with full-width bars, `<end_of_turn>`, `<bos>`, `</s>`, `[INST]`.
_DELIMITER = re.compile(
    r"<(?=\s*/?\s*(?:tool_(?:call|result)|(?:start|end)_of_turn|(?:bos|eos|s)\s*>)|[|\uff5c])"
    r"|\[(?=\s*/?\s*INST\s*\])",
    re.IGNORECASE,
)

# What no tool's name needs, and what could end the tag that it stands in.
_NOT_IN_NAMES = re.compile(r"[^\w.:/-]")

# Part of the prompt: raise the version in prompted_tools.txt when they change.
_CHOICES = {"auto": "If you need no tool, answer in words.", "any": "Use a tool now. Do not answer in words."}


class _Call(BaseModel):
    """A call as the prompt asks for it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToolAnswer:
    """An answer, read.

    Attributes:
        text: The answer without its valid calls; calls that are none stay in it.
        calls: The valid calls.
        invalid: What was meant as a call but is none, with the reason.
    """

    text: str
    calls: list[ToolCall]
    invalid: list[InvalidToolCall]


@dataclass(frozen=True, kw_only=True)
class OfferedTools:
    """The tools of a call, and whether one of them must be used.

    Attributes:
        functions: OpenAI function schemas.
        is_required: Whether the answer must hold a call.
    """

    functions: Sequence[Mapping[str, Any]]
    is_required: bool

    @classmethod
    def of(cls, tools: Sequence[ToolLike], *, choice: str | bool | None) -> Self:
        """Read what was bound.

        Args:
            tools: Whatever LangChain takes for a tool.
            choice: None or `"auto"`, `"any"` (or `"required"`, or True, as others call it), or the name of
                the one tool to use.

        Returns:
            The tools that may be called.

        Raises:
            InvalidPolicyError: If a tool is a provider's own, its parameters are no JSON Schema or refer to
                what is not in them, or if the choice is none of the above.
        """
        functions = [_function(tool) for tool in tools]
        names = [function["name"] for function in functions]
        for function in functions:
            _check_parameters(function)
        is_any = choice is True or choice in ("any", "required")
        if choice in (None, "auto") or (is_any and functions):
            return cls(functions=functions, is_required=is_any)
        chosen = [function for function in functions if function["name"] == choice]
        if not chosen:
            message = (
                f"tool_choice {choice!r} cannot be followed. Pass None, 'auto', 'any', or the name of one of "
                f"the tools {names}."
            )
            raise InvalidPolicyError(message)
        return cls(functions=chosen, is_required=True)

    @property
    def names(self) -> list[str]:
        """The tools' names."""
        return [function["name"] for function in self.functions]

    def offer(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Describe the tools at the end of the system message, or in a new one.

        Args:
            messages: The conversation, oldest first; left as it is.

        Returns:
            The conversation to send.

        Raises:
            InvalidPolicyError: If two tools share a name.
        """
        # Not when they are bound: LangChain's conformance suite for chat models binds two of one name.
        if len(set(self.names)) < len(self.names):
            raise InvalidPolicyError(f"Two tools share a name: {self.names}. A call could mean either.")
        text, _ = _prompt()
        tools = "\n".join(json.dumps(function, ensure_ascii=False) for function in self.functions)
        choice = _CHOICES["any" if self.is_required else "auto"]
        text = text.replace("{choice}", choice).replace("{tools}", tools)
        if messages and isinstance(messages[0], SystemMessage):
            return [SystemMessage(f"{messages[0].text}\n\n{text}"), *messages[1:]]
        return [SystemMessage(text), *messages]

    def read(self, answer: str) -> ToolAnswer:
        """Find the calls in an answer; nothing is repaired or guessed.

        Args:
            answer: What the model said.

        Returns:
            The calls, and what is left.
        """
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []

        def take(match: re.Match[str]) -> str:
            text, end = match.groups()
            try:
                call = self._call(text, is_closed=bool(end))
            except (ValueError, RecursionError) as error:
                # With its tag: LangChain reads calls again where it adds chunks, and must not succeed here.
                invalid.append(invalid_tool_call(args=match.group(), id=_new_id(), error=_reason(error)))
                return match.group()
            calls.append(tool_call(name=call.name, args=call.arguments, id=_new_id()))
            return ""

        return ToolAnswer(text=_CALL.sub(take, answer).strip(), calls=calls, invalid=invalid)

    def _call(self, text: str, *, is_closed: bool) -> _Call:
        """Read one call; whatever is wrong with it is a ValueError, or a RecursionError if it is too deep."""
        if not is_closed:
            raise ValueError("The call does not end with </tool_call>.")
        call = _Call.model_validate_json(text)
        # What that lets pass and other readers take another way, or not at all.
        json.loads(text, parse_constant=_number, parse_float=_number, object_pairs_hook=_object)
        function = next((each for each in self.functions if each["name"] == call.name), None)
        if function is None:
            raise ValueError(f"There is no tool '{call.name}' among {self.names}.")
        error = require("jsonschema", extra="agents").exceptions.best_match(
            _validator(_parameters(function)).iter_errors(call.arguments)
        )
        if error is not None:
            where = f" at {error.json_path}" if error.path else ""
            raise ValueError(f"The arguments do not fit '{call.name}'{where}: {error.message}")
        return call


def tools_prompt() -> str:
    """Return name and version of the prompt that offers tools."""
    return f"prompted-tools-{_prompt()[1]}"


def as_text(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write earlier calls and their results as text.

    Args:
        messages: The conversation, oldest first; left as it is.

    Returns:
        A conversation of system, user and assistant messages. Results that follow each other become one user
        message, together with what the user says right after: chat templates know no other role that all
        models take, and some refuse two user messages in a row.
    """
    names = {
        call["id"]: call["name"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    written: list[BaseMessage] = []
    for has_results, group in groupby(messages, key=lambda message: isinstance(message, ToolMessage)):
        if has_results:
            results = (_result(message, names) for message in group if isinstance(message, ToolMessage))
            written.append(HumanMessage("\n".join(results)))
        else:
            others = [_with_calls(message) for message in group]
            if written and isinstance(others[0], HumanMessage) and isinstance(others[0].content, str):
                written[-1] = HumanMessage(f"{written[-1].text}\n\n{others.pop(0).text}")
            written += others
    return written


def _with_calls(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return message
    said = [str(message.text)] if message.text else []
    return AIMessage("\n".join([*said, *_written(message.tool_calls)]))


def _written(calls: Sequence[ToolCall]) -> Iterator[str]:
    for call in calls:
        text = json.dumps({"name": call["name"], "arguments": call["args"]}, ensure_ascii=False)
        yield f"<tool_call>{text}</tool_call>"


def _result(message: ToolMessage, names: Mapping[str | None, str]) -> str:
    name = _NOT_IN_NAMES.sub("_", names.get(message.tool_call_id, message.name or "unknown"))
    status = ' status="error"' if message.status == "error" else ""
    return f'<tool_result name="{name}"{status}>\n{_DELIMITER.sub("(", str(message.text))}\n</tool_result>'


def _function(tool: ToolLike) -> dict[str, Any]:
    converted = convert_to_openai_tool(tool)
    if "function" not in converted:
        message = (
            f"{converted} is run by a model's provider, which a text model has none of. Pass a function."
        )
        raise InvalidPolicyError(message)
    function: dict[str, Any] = converted["function"]
    return function


def _check_parameters(function: Mapping[str, Any]) -> None:
    jsonschema = require("jsonschema", extra="agents")
    try:
        _check_schema(_parameters(function), name=function["name"])
    except jsonschema.SchemaError as error:
        message = f"The parameters of tool '{function['name']}' are no JSON Schema: {error.message}"
        raise InvalidPolicyError(message) from error


def _check_schema(schema: Mapping[str, Any], *, name: str) -> None:
    """Check a schema and all that it refers to, which the validator would come upon only with a call."""
    check = require("jsonschema", extra="agents").Draft202012Validator.check_schema
    referencing = require("referencing", extra="agents")
    draft = require("referencing.jsonschema", extra="agents").DRAFT202012
    check(schema)
    left = [(schema, referencing.Registry().resolver_with_root(draft.create_resource(schema)))]
    seen: set[int] = set()
    while left:
        contents, resolver = left.pop()
        if isinstance(contents, bool) or id(contents) in seen:
            continue
        seen.add(id(contents))
        for reference in (contents[key] for key in ("$ref", "$dynamicRef") if key in contents):
            try:
                found = resolver.lookup(reference)
            except (referencing.exceptions.Unresolvable, ValueError) as error:
                message = (
                    f"The parameters of tool '{name}' refer to {reference!r}, which is not in them, and "
                    "nothing is fetched. Put it below '$defs'."
                )
                raise InvalidPolicyError(message) from error
            check(found.contents)
            left.append((found.contents, found.resolver))
        parts = [draft.create_resource(part) for part in draft.subresources_of(contents)]
        left += [(part.contents, resolver.in_subresource(part)) for part in parts]


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the arguments, which allows no others than it lists if it lists any."""
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    closed = {"unevaluatedProperties": False} if "properties" in parameters else {}
    return {**closed, **parameters}


def _validator(schema: Mapping[str, Any]) -> Any:
    """Return a validator that fetches no reference from the network."""
    registry = require("referencing", extra="agents").Registry()
    return require("jsonschema", extra="agents").Draft202012Validator(schema, registry=registry)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"Not a call: Invalid JSON: {text} is no number.")
    return number


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"Not a call: {twice!r} comes twice in an object.")
    return dict(pairs)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "Not a call: nested too deeply."
    if not isinstance(error, ValidationError):
        return str(error)
    wrong = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False))
    return "Not a call: " + "; ".join(f"{where}: {what}" if where else what for where, what in wrong)


def _new_id() -> str:
    return f"call_{uuid4().hex}"


def _prompt() -> tuple[str, int]:
    return read_versioned_text(__package__, "prompted_tools.txt")
