"""See what becomes of the chosen model's runs, from inside LangChain's callbacks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

__all__ = ["RunWatch", "RunsWatch"]


class RunWatch(BaseCallbackHandler):
    """Sees the run of the chosen model: its id, its answer, and what had come when it was given up.

    A routed call may wrap the model in parsers and bindings; the first model run below it is the one.

    Attributes:
        run_id: Id of the run; None if it never started.
        message: The complete answer; None before it ended well.
        error: What ended the run; None if nothing did yet, or it ended well.
        latency_s: Seconds from start to end of the run.
    """

    run_inline = True  # in order and on the loop: it only notes things down

    def __init__(self) -> None:
        self.run_id: UUID | None = None
        self.message: BaseMessage | None = None
        self.error: BaseException | None = None
        self.latency_s: float | None = None
        self._started_at = 0.0
        self._tokens: list[str] = []
        self._deltas: list[str] = []

    @property
    def runs(self) -> Sequence[RunWatch]:
        """This one, if the model was called."""
        return () if self.run_id is None else (self,)

    @property
    def text(self) -> str:
        """The text that was streamed so far."""
        # A provider may report tokens beside the events made of them: never count both.
        return "".join(self._deltas or self._tokens)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002  # the framework's signature
        messages: list[list[BaseMessage]],  # noqa: ARG002
        *,
        run_id: UUID,
        **_: Any,
    ) -> None:
        """Note the first run."""
        if self.run_id is None:
            self.run_id = run_id
            self._started_at = time.perf_counter()

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **_: Any,
    ) -> None:
        """Note a piece of the answer."""
        if run_id == self.run_id:
            text = token if isinstance(token, str) else ""
            self._tokens.append(text if chunk is None else chunk.text)

    def on_stream_event(self, event: Mapping[str, Any], *, run_id: UUID, **_: Any) -> None:
        """Note a piece of the answer that comes as a protocol event."""
        delta = event.get("delta") or {}
        if run_id == self.run_id and delta.get("type") == "text-delta":
            self._deltas.append(delta.get("text", ""))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Note the answer."""
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if run_id == self.run_id and isinstance(generation, ChatGeneration):
            self.message = generation.message
            self.latency_s = time.perf_counter() - self._started_at

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Note why and when the run broke off."""
        if run_id == self.run_id:
            self.error = error
            self.latency_s = time.perf_counter() - self._started_at


class RunsWatch(BaseCallbackHandler):
    """Sees every run of a model: whoever is handed the model may call it again, after an error for example.

    It belongs among the model's own callbacks, which see that model's runs alone. Runs that LangChain's own
    middleware makes for itself, to select tools for example, are left out: they answer no user.

    Attributes:
        runs: A watch for each run, in order of their starts.
    """

    run_inline = True

    def __init__(self) -> None:
        self.runs: list[RunWatch] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Watch one more run, unless LangChain marks it as a middleware's own."""
        if "lc_source" in (kwargs.get("metadata") or {}):
            return
        run = RunWatch()
        run.on_chat_model_start(*args, **kwargs)
        self.runs.append(run)

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """Tell every watch; each knows its run."""
        for run in self.runs:
            run.on_llm_new_token(*args, **kwargs)

    def on_stream_event(self, *args: Any, **kwargs: Any) -> None:
        """Tell every watch."""
        for run in self.runs:
            run.on_stream_event(*args, **kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Tell every watch."""
        for run in self.runs:
            run.on_llm_end(*args, **kwargs)

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        """Tell every watch."""
        for run in self.runs:
            run.on_llm_error(*args, **kwargs)
