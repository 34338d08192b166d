"""A chat client for every server that speaks OpenAI's chat completions: OpenAI, vLLM, and most others."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from fusion_integrations._optional import require
from fusion_integrations.clients.api_key import without_key
from fusion_integrations.clients.call_failure import call_failure
from fusion_integrations.errors import CandidateCallError, InvalidPolicyError
from fusion_integrations.types import Completion, GenerationOptions, Message

if TYPE_CHECKING:
    import openai

__all__ = ["MaxTokensField", "OpenAIClient"]

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # of httpx: no request reached a server
_N_THREADS = 8
# Beside the two names of the bound on answer tokens.
_OWN_FIELDS = frozenset({"model", "messages", "temperature", "stop", "seed", "n", "stream", "stream_options"})


class OpenAIClient:
    """Asks a model behind an OpenAI-compatible HTTP interface.

    It makes every call once: who wants retries makes them, with what the errors say about trying again.
    The answers are checked, so a broken server is an error and never an empty answer. The key is kept out of
    messages and representations.

    Args:
        model_name: Name to log and price answers under.
        served_model: Name of the model at the server. Default: `model_name`.
        base_url: Where the interface begins, for example `"http://127.0.0.1:8000/v1"`. None: OpenAI's own.
        api_key: The key. None for servers that need none.
        timeout_s: Seconds to wait for an answer.
        max_tokens_field: What the server calls the bound on answer tokens; OpenAI's reasoning models know
            `"max_completion_tokens"` only.
        sends_temperature: False for models that accept no temperature, as OpenAI's reasoning models.
        extra_body: More fields of every request, for example `{"reasoning_effort": "low"}`; none of those
            that this client sets, for bounds on cost rest on them.

    Raises:
        InvalidPolicyError: If `extra_body` has such a field.
        MissingDependencyError: If the package `openai` is not installed.

    Example:
        ```python
        client = OpenAIClient("qwen3", base_url="http://127.0.0.1:8000/v1")
        client.complete([Message(role="user", content="What is 17 * 24?")]).text
        ```
    """

    def __init__(
        self,
        model_name: str,
        *,
        served_model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        max_tokens_field: MaxTokensField = "max_tokens",
        sends_temperature: bool = True,
        extra_body: Mapping[str, JsonValue] | None = None,
    ) -> None:
        own = sorted((_OWN_FIELDS | set(get_args(MaxTokensField))) & (extra_body or {}).keys())
        if own:
            raise InvalidPolicyError(
                f"extra_body of model '{model_name}' sets {', '.join(own)}, which the client sets itself. "
                "Use the options and samples of the candidate."
            )
        package = require("openai", extra="openai")
        self._name = model_name
        self._served_model = served_model or model_name
        self._api_key = api_key
        self._max_tokens_field = max_tokens_field
        self._sends_temperature = sends_temperature
        self._extra_body = dict(extra_body or {})
        settings: dict[str, Any] = {
            "base_url": base_url,
            "api_key": api_key or "none",  # the package insists on one, and would look for one by itself
            "timeout": timeout_s,
            "max_retries": 0,
        }
        self._sync: openai.OpenAI = package.OpenAI(**settings)
        self._async: openai.AsyncOpenAI = package.AsyncOpenAI(**settings)
        self._network_error: type[Exception] = package.APIConnectionError

    def __repr__(self) -> str:
        """Name the model and the server, not the key."""
        return f"OpenAIClient({self._name!r}, base_url={str(self._sync.base_url)!r})"

    @property
    def model(self) -> str:
        """Name of the model, as logged and priced."""
        return self._name

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the server.

        Returns:
            The answer, with the tokens the server counted.

        Raises:
            CandidateCallError: If there is no answer; says whether and when to try again.
        """
        start = time.perf_counter()
        with self._explained():
            reply = self._sync.chat.completions.with_raw_response.create(**self._request(messages, options))
            return _Reply.model_validate_json(reply.text).completion(self._name, start)

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation without blocking the event loop; otherwise as `complete`."""
        start = time.perf_counter()
        with self._explained():
            request = self._request(messages, options)
            reply = await self._async.chat.completions.with_raw_response.create(**request)
            return _Reply.model_validate_json(reply.text).completion(self._name, start)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations, eight at a time.

        Args:
            conversations: Any number of them.
            options: How to generate; None leaves it to the server.

        Returns:
            One completion a conversation, in their order.

        Raises:
            CandidateCallError: If one conversation has no answer.
        """
        with ThreadPoolExecutor(max_workers=_N_THREADS) as pool:
            return list(pool.map(lambda messages: self.complete(messages, options=options), conversations))

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in pieces, then return the completion; closing this ends the request.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the server.

        Returns:
            The whole answer, with token counts where the server tells them in a stream.

        Raises:
            CandidateCallError: If there is no answer, from the first piece on.
        """
        start, pieces, usage, reason = time.perf_counter(), list[str](), _Usage(), "unknown"
        request = self._request(messages, options)
        with self._explained():
            stream = self._sync.chat.completions.create(
                **request, stream=True, stream_options={"include_usage": True}
            )
            with contextlib.closing(stream):
                for raw in stream:
                    chunk = _Chunk.model_validate(raw.model_dump(warnings=False))
                    usage = chunk.usage or usage
                    for choice in chunk.choices[:1]:
                        reason = choice.finish_reason or reason
                        if choice.delta.content:
                            pieces.append(choice.delta.content)
                            yield choice.delta.content
            return Completion(
                text="".join(pieces),
                model=self._name,
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                finish_reason=reason,
                latency_s=time.perf_counter() - start,
            )

    def _request(self, messages: Sequence[Message], options: GenerationOptions | None) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._served_model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
        }
        if options is not None:
            request[self._max_tokens_field] = options.max_tokens
            if self._sends_temperature:
                request["temperature"] = options.temperature
            if options.stop:
                request["stop"] = list(options.stop)
            if options.seed is not None:
                request["seed"] = options.seed
        return request | ({"extra_body": self._extra_body} if self._extra_body else {})

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever goes wrong into the one error the core expects."""
        try:
            yield
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'reply'}: {problem['msg']}"
                for problem in error.errors(include_input=False)
            )
            message = f"Model '{self._name}' failed: its server's reply is no chat completion: {problems}"
            raise CandidateCallError(without_key(message, self._api_key), is_transient=True) from None
        except Exception as error:  # the package lets some errors of its HTTP library pass
            failure = call_failure(error, model=self._name, secret=self._api_key)
            if isinstance(error, self._network_error):
                failure.is_transient = True
                failure.may_be_billed = type(error.__cause__).__name__ not in _NOT_SENT
            elif getattr(error, "code", None) == "insufficient_quota":
                failure.is_transient = False  # a 429 that no waiting cures
            # Not `from error`: servers repeat wrong keys in their messages.
            raise failure from None


class _Loose(BaseModel):
    # Servers add fields of their own.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Usage(_Loose):
    prompt_tokens: Annotated[int, Field(ge=0)] | None = None
    completion_tokens: Annotated[int, Field(ge=0)] | None = None


class _Answer(_Loose):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Loose):
    message: _Answer
    finish_reason: str | None = None


class _Reply(_Loose):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None

    @model_validator(mode="before")
    @classmethod
    def _check(cls, reply: Any) -> Any:
        """Say what the server says, where it sends an error under a status of success."""
        if isinstance(reply, dict) and reply.get("error") and not reply.get("choices"):
            raise ValueError(f"the server says {json.dumps(reply['error'])[:500]}")
        return reply

    def completion(self, model: str, start: float) -> Completion:
        """Return the first answer as the core knows it."""
        choice, usage = self.choices[0], self.usage or _Usage()
        return Completion(
            text=choice.message.content or choice.message.refusal or "",
            model=model,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            finish_reason=choice.finish_reason or "unknown",
            latency_s=time.perf_counter() - start,
        )


class _StreamedChoice(_Loose):
    delta: _Answer
    finish_reason: str | None = None


class _Chunk(_Loose):
    choices: list[_StreamedChoice] = []
    usage: _Usage | None = None
