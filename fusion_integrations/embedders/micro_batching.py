"""Share model runs between callers that embed at once; it pays where a run has a high fixed cost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from fusion_integrations.embedders._contract import checked_texts, require_positive
from fusion_integrations.protocols import Embedder, EmbedderIdentity, FloatArray

__all__ = ["MicroBatchingEmbedder"]


class MicroBatchingEmbedder:
    """An embedder that runs the texts of concurrent callers together.

    While `n_runs` runs are under way, further callers wait; the next run takes the one that waited longest,
    with others whose texts are of like length. A caller who comes alone does not wait. The thread of a caller
    does the work: there are no threads to start or stop, and nothing to close.

    What it gains is the slowest calls: one long text no longer holds up many short ones. Throughput may rise
    where a call has a high fixed cost, as with torch; onnxruntime on a CPU embeds many texts in one run no
    faster than one by one. For static and hashed vectors it only costs. `benchmarks/README.md` has numbers.

    Args:
        embedder: What embeds; several threads must be able to use it at once if `n_runs` is above 1.
        n_runs: Runs at the same time. As many as there are cores for them.
        max_characters: Padded size of a shared run: its number of texts times the length of the longest.
            A single caller's texts are never divided, whatever their size.

    Raises:
        InvalidPolicyError: If a count is below 1.

    Example:
        >>> from fusion_integrations.embedders import HashEmbedder
        >>> MicroBatchingEmbedder(HashEmbedder(dimensions=64)).embed(["What is 2 + 2?"]).shape
        (1, 64)
    """

    def __init__(self, embedder: Embedder, *, n_runs: int = 2, max_characters: int = 800) -> None:
        require_positive("n_runs", n_runs)
        require_positive("max_characters", max_characters)
        self._embedder = embedder
        self._n_free = n_runs
        self._max_characters = max_characters
        self._waiting: list[_Request] = []  # oldest first
        self._lock = threading.Lock()  # guards the two above; never held during a run

    @property
    def identity(self) -> EmbedderIdentity:
        """That of the embedder underneath: the vectors are its own."""
        return self._embedder.identity

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, in one run with those of other callers where they come at once.

        Args:
            texts: n non-empty texts.

        Returns:
            Array (n, dimensions), float32, rows of unit length; up to rounding what the embedder underneath
            gives for these texts alone.

        Raises:
            EmptyQueryError: If a text is empty or blank.
            InvalidPolicyError: If `texts` is one string.

        Errors of the embedder underneath reach the caller whose texts cause them, and no other.
        """
        checked = checked_texts(texts)
        if not checked:
            return self._embedder.embed(checked)
        request = _Request(texts=checked, longest=max(map(len, checked)))
        try:
            with self._lock:
                self._waiting.append(request)
                self._start_runs()
            request.turn.wait()
            if request.run:
                _embed_together(self._embedder, request.run)
        finally:
            self._leave(request)
        if isinstance(request.outcome, Exception):
            raise request.outcome
        return cast("FloatArray", request.outcome)

    def _start_runs(self) -> None:
        """Give free runs to those that waited longest; called with the lock held."""
        while self._n_free and self._waiting:
            run = self._next_run()
            self._waiting = [request for request in self._waiting if request not in run]
            self._n_free -= 1
            run[0].run = run
            run[0].turn.set()

    def _next_run(self) -> list[_Request]:
        """Choose the oldest request, then those nearest to it in length that fit beside it."""
        oldest, *others = self._waiting
        run, n_texts, longest = [oldest], len(oldest.texts), oldest.longest
        for request in sorted(others, key=lambda other: abs(other.longest - oldest.longest)):
            size = max(longest, request.longest) * (n_texts + len(request.texts))
            if size <= self._max_characters:
                run.append(request)
                n_texts, longest = n_texts + len(request.texts), max(longest, request.longest)
        return run

    def _leave(self, request: _Request) -> None:
        """Wake whom this caller ran and pass its run on, also when it was interrupted."""
        with self._lock:
            request.has_left = True
            if request in self._waiting:
                self._waiting.remove(request)
            if request.run:
                self._n_free += 1
            for other in reversed(request.run[1:]):
                if other.outcome is not None:
                    other.turn.set()
                elif not other.has_left:
                    self._waiting.insert(0, other)
            self._start_runs()


@dataclass(eq=False)
class _Request:
    """One call of `embed` on its way.

    Attributes:
        texts: The caller's texts.
        longest: Length of the longest of them, in characters.
        turn: Set when there is an outcome, or a run to lead.
        run: The requests this caller is to run, itself first; empty if another runs it.
        outcome: The vectors of the texts, or what went wrong with them.
        has_left: Whether its caller is gone, with the outcome or interrupted.
    """

    texts: list[str]
    longest: int
    turn: threading.Event = field(default_factory=threading.Event)
    run: list[_Request] = field(default_factory=list)
    outcome: FloatArray | Exception | None = None
    has_left: bool = False


def _embed_together(embedder: Embedder, run: Sequence[_Request]) -> None:
    """Give every request of a run its vectors; if they fail together, each is tried alone."""
    try:
        vectors = embedder.embed([text for request in run for text in request.texts])
    except Exception as error:  # whatever it is, it is raised again in the thread of its own caller
        if len(run) == 1:
            run[0].outcome = error
            return
        for request in run:
            _embed_together(embedder, [request])
        return
    start = 0
    for request in run:
        request.outcome = vectors[start : start + len(request.texts)]
        start += len(request.texts)
