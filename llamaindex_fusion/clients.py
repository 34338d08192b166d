"""A LlamaIndex LLM as a chat client, so that the core can collect from it, judge with it and distil it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.llm import LLM

from fusion_integrations.clients.call_failure import call_failure
from fusion_integrations.types import Completion, GenerationOptions, Message
from llamaindex_fusion._convert import AnswerTally, to_chat_messages

__all__ = ["LlamaIndexChatClient"]


def _openai_style(options: GenerationOptions) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    if options.stop:
        kwargs["stop"] = list(options.stop)
    if options.seed is not None:
        kwargs["seed"] = options.seed
    return kwargs


class LlamaIndexChatClient:
    """A LlamaIndex LLM as a chat client, for collecting logs, judging and distilling.

    Args:
        llm: Any LlamaIndex LLM.
        name: Name of the model, as logged and priced.
        to_kwargs: Turns generation options into the keyword arguments of the LLM's `chat`, which differ by
            provider. Default: OpenAI's names `max_tokens`, `temperature`, `stop` and `seed`.
        n_threads: Most calls of a batch at once.

    Example:
        ```python
        client = LlamaIndexChatClient(OpenAI(model="gpt-5-mini"), name="gpt-5-mini")
        client.complete([Message(role="user", content="What is the capital of France?")]).text
        ```
    """

    def __init__(
        self,
        llm: LLM,
        *,
        name: str,
        to_kwargs: Callable[[GenerationOptions], Mapping[str, Any]] = _openai_style,
        n_threads: int = 8,
    ) -> None:
        self.llm = llm
        self._name = name
        self._to_kwargs = to_kwargs
        self._n_threads = n_threads

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
            options: How to generate; None leaves it to the LLM.

        Returns:
            The answer, with the token counts that the integration reports.

        Raises:
            CandidateCallError: If the LLM fails.
        """
        start = time.perf_counter()
        with self._failures():
            response = self.llm.chat(to_chat_messages(messages), **self._kwargs(options))
        return self._completion(response, start)

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation with the LLM's own async method; otherwise as `complete`."""
        start = time.perf_counter()
        with self._failures():
            response = await self.llm.achat(to_chat_messages(messages), **self._kwargs(options))
        return self._completion(response, start)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations in threads.

        Args:
            conversations: Any number of them.
            options: How to generate; None leaves it to the LLM.

        Returns:
            One completion a conversation, in their order.

        Raises:
            CandidateCallError: If one conversation fails.
        """
        with ThreadPoolExecutor(max_workers=self._n_threads) as pool:
            return list(pool.map(lambda messages: self.complete(messages, options=options), conversations))

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in the pieces the LLM gives.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the LLM.

        Returns:
            The whole completion, with the token counts that the LLM gave.

        Raises:
            CandidateCallError: If the LLM fails, from the first piece on.
        """
        start, tally = time.perf_counter(), AnswerTally(self._name)
        with self._failures():
            responses = self.llm.stream_chat(to_chat_messages(messages), **self._kwargs(options))
            with contextlib.closing(responses):
                for response in responses:
                    tally.add(response)
                    if response.delta:
                        yield response.delta
        return tally.completion(latency_s=time.perf_counter() - start)

    def _kwargs(self, options: GenerationOptions | None) -> Mapping[str, Any]:
        return {} if options is None else self._to_kwargs(options)

    def _completion(self, response: ChatResponse, start: float) -> Completion:
        tally = AnswerTally(self._name)
        tally.add(response)
        return tally.completion(latency_s=time.perf_counter() - start)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # what a provider's client raises is unknown; the protocol names one error
            raise call_failure(error, model=self._name) from error
