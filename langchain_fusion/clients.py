"""Adapters both ways: a LangChain chat model as the core's chat client, and a chat client as a chat model."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field, SecretStr, model_validator

from fusion_integrations.clients.call_failure import call_failure
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.streaming import aread_stream, read_stream
from fusion_integrations.types import Completion, GenerationOptions, Message
from langchain_fusion._convert import to_completion, to_core, to_langchain

__all__ = ["ChatClientModel", "LangChainChatClient"]

logger = logging.getLogger(__name__)

# Standard parameters of LangChain chat models that a ready client has already settled.
_WITHOUT_EFFECT = ("api_key", "max_retries", "timeout")


class LangChainChatClient:
    """Any LangChain chat model as a chat client, for collecting logs, judging, or writing templates.

    Args:
        model: The chat model.
        name: Name to log and price its answers under.
        secret: What error messages must not show, such as the model's key, which some servers repeat.

    Example:
        ```python
        client = LangChainChatClient(ChatOllama(model="qwen3"), name="qwen3")
        client.complete([Message(role="user", content="What is 17 * 24?")]).text
        ```
    """

    def __init__(self, model: BaseChatModel, *, name: str, secret: str | None = None) -> None:
        self._chat_model = model
        self._name = name
        self._secret = secret

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
            options: How to generate; None leaves everything to the model.

        Returns:
            The answer, with the tokens the model reports.

        Raises:
            CandidateCallError: If the model call fails.
        """
        start = time.perf_counter()
        with self._failures():
            answer = self._bound(options).invoke(to_langchain(messages))
        return to_completion(answer, model=self._name, latency_s=time.perf_counter() - start)

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation by the model's async method; otherwise as `complete`."""
        start = time.perf_counter()
        with self._failures():
            answer = await self._bound(options).ainvoke(to_langchain(messages))
        return to_completion(answer, model=self._name, latency_s=time.perf_counter() - start)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations by the model's `batch`; the latency is the whole batch's.

        Args:
            conversations: Any number of them.
            options: How to generate; None leaves everything to the model.

        Returns:
            One completion a conversation, in their order.

        Raises:
            CandidateCallError: If a call fails.
        """
        start = time.perf_counter()
        inputs: list[LanguageModelInput] = [to_langchain(messages) for messages in conversations]
        with self._failures():
            answers = self._bound(options).batch(inputs)
        latency_s = time.perf_counter() - start
        return [to_completion(answer, model=self._name, latency_s=latency_s) for answer in answers]

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in pieces, then return the completion; closing this closes the model's stream.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves everything to the model.

        Returns:
            The whole answer, with the tokens the model reports.

        Raises:
            CandidateCallError: If the model call fails, from the first piece on.
        """
        start = time.perf_counter()
        chunks: list[AIMessageChunk] = []
        with self._failures():
            stream = self._bound(options).stream(to_langchain(messages))
            with closing(cast("Generator[AIMessageChunk]", stream)) as pieces:
                for chunk in pieces:
                    chunks.append(chunk)
                    if chunk.text:
                        yield str(chunk.text)
            # One piece may be a whole message, from a model that cannot stream.
            answer = chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]
        return to_completion(answer, model=self._name, latency_s=time.perf_counter() - start)

    def _bound(self, options: GenerationOptions | None) -> Runnable[LanguageModelInput, AIMessage]:
        if options is None:
            return self._chat_model
        settings: dict[str, Any] = {"max_tokens": options.max_tokens, "temperature": options.temperature}
        if options.stop:
            settings["stop"] = list(options.stop)
        if options.seed is not None:
            settings["seed"] = options.seed
        return self._chat_model.bind(**settings)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn whatever a provider raises into the one error the core expects."""
        try:
            yield
        except Exception as error:
            failure = call_failure(error, model=self._name, secret=self._secret)
            raise failure from (None if self._secret else error)


class ChatClientModel(BaseChatModel):
    """Any chat client of the core as a LangChain chat model: text in, text out.

    It streams where the client does. It has no tools; `PromptedToolsChatModel` asks for them in the prompt.

    A setting replaces the client's default options as a whole: the others then have the defaults of
    `GenerationOptions`.

    Attributes:
        client: The client.
        temperature: 0 means greedy decoding. None leaves it to the client.
        max_tokens: Upper bound on answer tokens. None leaves it to the client.
        stop: Texts at which the answer ends. None leaves it to the client.
        seed: Seed for sampling. None leaves it to the client.
        streaming: True streams in `invoke` too; False makes `stream` give the whole answer at once.
        api_key: Accepted like every standard parameter, but without effect: the client is ready as it is.
        max_retries: As `api_key`; or use `with_retry`.
        timeout: As `api_key`.

    Example:
        ```python
        model = ChatClientModel(client=TransformersClient.from_folder("models/smollm2", model_name="smollm2"))
        model.invoke("What is the capital of France?").usage_metadata
        ```
    """

    client: ChatClient
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    streaming: bool = False
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    max_retries: int | None = None
    timeout: float | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @model_validator(mode="after")
    def _tell_what_has_no_effect(self) -> Self:
        idle = [name for name in _WITHOUT_EFFECT if getattr(self, name) is not None]
        if idle:
            logger.warning("%s have no effect on ChatClientModel: its client is ready as it is.", idle)
        return self

    @property
    def _llm_type(self) -> str:
        return "fusion-chat-client"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        settings = ("temperature", "max_tokens", "stop", "seed")
        return {"model": self.client.model} | {name: getattr(self, name) for name in settings}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "fusion"
        params.setdefault("ls_model_name", self.client.model)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # the framework's signature
        **kwargs: Any,
    ) -> ChatResult:
        completion = self.client.complete(to_core(messages), options=self._options(stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**_message_fields(completion)))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        completion = await self.client.acomplete(to_core(messages), options=self._options(stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**_message_fields(completion)))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options = self._options(stop, kwargs)
        if not isinstance(self.client, StreamingChatClient):
            yield _chunk(self.client.complete(to_core(messages), options=options), has_text=True)
            return
        with closing(read_stream(self.client.stream(to_core(messages), options=options))) as items:
            yield from map(_chunk, items)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options = self._options(stop, kwargs)
        if not isinstance(self.client, StreamingChatClient):
            yield _chunk(await self.client.acomplete(to_core(messages), options=options), has_text=True)
            return
        async with aclosing(aread_stream(self.client.stream(to_core(messages), options=options))) as items:
            async for item in items:
                yield _chunk(item)

    def _options(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> GenerationOptions | None:
        """Return the options of a call, None if nobody set any."""
        known = {"temperature", "max_tokens", "seed"}
        foreign = sorted(kwargs.keys() - known)
        if foreign:
            message = (
                f"A chat client answers with text and takes {sorted(known | {'stop'})}, not {foreign}. "
                "For tools use PromptedToolsChatModel; for other models' settings, their own LangChain class."
            )
            raise InvalidPolicyError(message)
        settings = {name: kwargs.get(name, getattr(self, name)) for name in known}
        settings = {name: value for name, value in settings.items() if value is not None}
        texts = self.stop if stop is None else stop
        if texts is not None:
            settings["stop"] = tuple(texts)
        return GenerationOptions(**settings) if settings else None


def _message_fields(completion: Completion) -> dict[str, Any]:
    """Return what a LangChain message says of a completion; no usage unless both counts are known."""
    n_input, n_output = completion.input_tokens, completion.output_tokens
    usage = None
    if n_input is not None and n_output is not None:
        total = n_input + n_output
        usage = UsageMetadata(input_tokens=n_input, output_tokens=n_output, total_tokens=total)
    return {
        "content": completion.text,
        "usage_metadata": usage,
        "response_metadata": {"model_name": completion.model, "finish_reason": completion.finish_reason},
    }


def _chunk(item: str | Completion, *, has_text: bool = False) -> ChatGenerationChunk:
    """Return a piece of an answer; the completion is the last, by default without the text given before."""
    if isinstance(item, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=item))
    fields = _message_fields(item) if has_text else {**_message_fields(item), "content": ""}
    return ChatGenerationChunk(message=AIMessageChunk(**fields, chunk_position="last"))
