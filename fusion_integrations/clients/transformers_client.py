"""Answer with a model that transformers runs in this process; batched, which is 5 to 15 times as fast."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from fusion_integrations._optional import require
from fusion_integrations.clients._few_shot import FEW_SHOT_STOPS, few_shot_text
from fusion_integrations.clients._random_state import seeded
from fusion_integrations.clients._watch import GenerationWatch, cut_at_stop, settled_text
from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.errors import (
    CandidateCallError,
    FusionError,
    InvalidPolicyError,
)
from fusion_integrations.types import Completion, GenerationOptions, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["PromptFormat", "TransformersClient"]

PromptFormat = Literal["chat", "few_shot"]


class TransformersClient:
    """A local model as a chat client.

    Safe to share between threads: calls take turns, since one model on one machine gains nothing from two
    callers at once; to go faster, batch. Output tokens are what the model generated without its end token,
    including those of a stop text.

    Args:
        model_name: Name to log and price the answers under.
        model: A causal language model. It is put into evaluation mode.
        tokenizer: Its fast tokenizer.
        prompt_format: `"chat"` uses the tokenizer's chat template; `"few_shot"`, for base models, writes
            `Q:`/`A:` blocks and ends an answer where the next block would begin.
        few_shot_examples: Questions and answers shown before every conversation in the few-shot format.
        batch_size: Most conversations to run at once. More is faster until memory runs out.
        default_options: Used by calls that pass no options.
        n_threads: CPU threads while generating; None leaves torch's setting.

    Raises:
        InvalidPolicyError: If the tokenizer has no chat template though the format asks for it, neither model
            nor tokenizer names an end token, or the batch size is below 1.

    Example:
        ```python
        client = TransformersClient.from_folder("models/smollm2", model_name="smollm2-135m")
        client.complete([Message(role="user", content="What is the capital of France?")]).text
        ```
    """

    def __init__(
        self,
        model_name: str,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: PromptFormat = "chat",
        few_shot_examples: Sequence[tuple[str, str]] = (),
        batch_size: int = 32,
        default_options: GenerationOptions | None = None,
        n_threads: int | None = None,
    ) -> None:
        if prompt_format == "chat" and not tokenizer.chat_template:
            message = f"The tokenizer of '{model_name}' has no chat template; use prompt_format='few_shot'."
            raise InvalidPolicyError(message)
        if batch_size < 1:
            raise InvalidPolicyError(f"batch_size must be at least 1, got {batch_size}.")
        self._name = model_name
        self._network: Any = model
        model.eval()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self._tokenizer: Any = tokenizer
        self._format = prompt_format
        self._examples = tuple(few_shot_examples)
        self._batch_size = batch_size
        self._options = default_options or GenerationOptions()
        self._n_threads = n_threads
        self._end_tokens = _end_tokens(model, tokenizer, model_name=model_name)
        self._lock = threading.Lock()

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        model_name: str,
        prompt_format: PromptFormat = "chat",
        few_shot_examples: Sequence[tuple[str, str]] = (),
        batch_size: int = 32,
        default_options: GenerationOptions | None = None,
        n_threads: int | None = None,
    ) -> Self:
        """Load a model in float32 from a local folder of safetensors, config and tokenizer.

        Nothing is downloaded, no code of the folder is run, and pickled weights are refused.

        Args:
            path: The folder.
            model_name: As in the constructor, like all other arguments.
            prompt_format: See the class.
            few_shot_examples: See the class.
            batch_size: See the class.
            default_options: See the class.
            n_threads: See the class.

        Returns:
            A client that holds the model in memory.

        Raises:
            ArtifactNotFoundError: If the folder holds no `*.safetensors`.
            MissingDependencyError: If torch or transformers is not installed.
        """
        network, tokenizer = load_model(path)
        return cls(
            model_name,
            model=network,
            tokenizer=tokenizer,
            prompt_format=prompt_format,
            few_shot_examples=few_shot_examples,
            batch_size=batch_size,
            default_options=default_options,
            n_threads=n_threads,
        )

    @property
    def model(self) -> str:
        """Name of the model, as logged and priced."""
        return self._name

    @property
    def context_window(self) -> int | None:
        """Most tokens of prompt and answer together; None if the model's config names no limit."""
        limit: int | None = getattr(self._network.config.get_text_config(), "max_position_embeddings", None)
        return limit

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None means the client's default.

        Returns:
            The answer without outer whitespace.

        Raises:
            CandidateCallError: If prompt and answer do not fit into the model's context, the prompt format
                cannot hold the conversation, or generation fails.
        """
        return self.complete_batch([messages], options=options)[0]

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation in a thread; cancelling ends the generation at its next token.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None means the client's default.

        Returns:
            The answer, as of `complete`.

        Raises:
            CandidateCallError: As `complete`.
        """
        abandoned = threading.Event()
        try:
            completions = await asyncio.to_thread(
                self._answer, [messages], options or self._options, abandoned=abandoned
            )
        finally:
            abandoned.set()
        return completions[0]

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations at once.

        Conversations of similar length run together, whatever their order. Greedy answers do not depend on
        the batch, up to rounding; sampled ones do.

        Args:
            conversations: Any number of them.
            options: How to generate; None means the client's default.

        Returns:
            One completion a conversation, in their order.

        Raises:
            CandidateCallError: As `complete`, for the whole batch if one conversation fails.
        """
        return self._answer(conversations, options or self._options, abandoned=threading.Event())

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in pieces while it is generated; closing the iterator ends the generation.

        The pieces are not empty, and their concatenation is the text of `complete`.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None means the client's default.

        Returns:
            The whole completion, once the last piece was taken.

        Raises:
            CandidateCallError: As `complete`, from the first piece on.
        """
        options = options or self._options
        stops = self._stops(options)
        # What the thread tells: the tokens so far, the finished answer, or why there is none.
        news: queue.SimpleQueue[list[int] | Completion | Exception] = queue.SimpleQueue()
        abandoned = threading.Event()

        def work() -> None:
            try:
                news.put(self._answer([messages], options, abandoned=abandoned, on_tokens=news.put)[0])
            except Exception as error:  # raised again where the answer is read
                news.put(error)

        thread = threading.Thread(target=work, name=f"stream-{self._name}", daemon=True)
        thread.start()
        given = ""
        try:
            while True:
                item = news.get()
                if isinstance(item, Exception):
                    raise item
                text = item.text if isinstance(item, Completion) else settled_text(self._decode(item), stops)
                if len(text) > len(given):
                    yield text[len(given) :]
                    given = text
                if isinstance(item, Completion):
                    return item
        finally:
            abandoned.set()
            thread.join()

    def _answer(
        self,
        conversations: Sequence[Sequence[Message]],
        options: GenerationOptions,
        *,
        abandoned: threading.Event,
        on_tokens: Callable[[list[int]], None] | None = None,
    ) -> list[Completion]:
        """Answer conversations in chunks of similar length; every failure becomes a CandidateCallError."""
        start = time.perf_counter()
        answers: dict[int, tuple[str, str, int, int]] = {}
        try:
            seed = options.seed if options.temperature > 0 else None
            with self._turn(abandoned), seeded(seed, device=self._network.device):
                prompts = [self._encode(messages, options) for messages in conversations]
                order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
                for first in range(0, len(order), self._batch_size):
                    chunk = order[first : first + self._batch_size]
                    rows = self._generate([prompts[i] for i in chunk], options, abandoned, on_tokens)
                    answers |= {i: (*row, len(prompts[i])) for i, row in zip(chunk, rows, strict=True)}
        except FusionError:
            raise
        except Exception as error:
            message = (
                f"Model '{self._name}' failed on {len(conversations)} conversation(s): "
                f"{type(error).__name__}: {error}"
            )
            raise CandidateCallError(message) from error
        latency_s = time.perf_counter() - start
        return [
            Completion(
                text=text,
                model=self._name,
                input_tokens=n_input,
                output_tokens=n_output,
                finish_reason=reason,
                latency_s=latency_s,
            )
            for text, reason, n_output, n_input in (answers[i] for i in range(len(conversations)))
        ]

    @contextlib.contextmanager
    def _turn(self, abandoned: threading.Event) -> Iterator[None]:
        """Wait for the model to be free, unless nobody wants the answer any more."""
        while not self._lock.acquire(timeout=0.1):
            if abandoned.is_set():
                raise CandidateCallError(f"The call to '{self._name}' was abandoned before it began.")
        try:
            torch = require("torch", extra="transformers")
            before = torch.get_num_threads()
            torch.set_num_threads(self._n_threads or before)
            try:
                yield
            finally:
                torch.set_num_threads(before)
        finally:
            self._lock.release()

    def _stops(self, options: GenerationOptions) -> tuple[str, ...]:
        return (*options.stop, *(FEW_SHOT_STOPS if self._format == "few_shot" else ()))

    def _encode(self, messages: Sequence[Message], options: GenerationOptions) -> list[int]:
        """Return the prompt's tokens, or say by how much the call would overflow the context."""
        if self._format == "few_shot":
            tokens = self._tokenizer(few_shot_text(messages, self._examples))["input_ids"]
        else:
            turns = [{"role": message.role, "content": message.content} for message in messages]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            # The template has written all special tokens that belong there.
            tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        limit = self.context_window
        if limit is not None and len(tokens) + options.max_tokens > limit:
            message = (
                f"A prompt of {len(tokens)} tokens and an answer of up to {options.max_tokens} exceed the "
                f"{limit} tokens of context of '{self._name}'. Shorten the prompt or lower max_tokens."
            )
            raise CandidateCallError(message)
        return list(tokens)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _generate(
        self,
        prompts: Sequence[list[int]],
        options: GenerationOptions,
        abandoned: threading.Event,
        on_tokens: Callable[[list[int]], None] | None,
    ) -> list[tuple[str, str, int]]:
        """Run prompts as one padded batch; return (text, finish reason, tokens generated) of each."""
        torch = require("torch", extra="transformers")
        width = max(map(len, prompts))
        padding = self._end_tokens[0]  # masked on the left; on the right it marks the rows that are done
        ids = [[padding] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        stops = self._stops(options)
        watch = GenerationWatch(
            decode=self._decode, n_prompt=width, stops=stops, abandoned=abandoned, on_tokens=on_tokens
        )
        # None and neutral values keep the defaults of the model's own generation config out.
        is_sampling = options.temperature > 0
        device = self._network.device
        with torch.inference_mode():
            output = self._network.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=options.max_tokens,
                do_sample=is_sampling,
                temperature=options.temperature if is_sampling else None,
                top_k=0 if is_sampling else None,
                top_p=1.0 if is_sampling else None,
                pad_token_id=padding,
                eos_token_id=list(self._end_tokens),
                stopping_criteria=[watch],
            )
        return [self._finish(row, stops) for row in output[:, width:].tolist()]

    def _finish(self, tokens: list[int], stops: Sequence[str]) -> tuple[str, str, int]:
        """Cut an answer at its end token and its first stop text."""
        n_tokens = next((i for i, token in enumerate(tokens) if token in self._end_tokens), len(tokens))
        text, has_stopped = cut_at_stop(self._decode(tokens[:n_tokens]), stops)
        return text, "stop" if has_stopped or n_tokens < len(tokens) else "length", n_tokens


def _end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, model_name: str
) -> tuple[int, ...]:
    """Return the tokens that end an answer, as the model's generation config or its tokenizer names them."""
    named: Any = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise InvalidPolicyError(f"Neither the model nor the tokenizer of '{model_name}' names an end token.")
    return (named,) if isinstance(named, int) else tuple(named)
