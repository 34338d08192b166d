"""Turn what a framework tells of its model calls into log records: one a real call.

Frameworks tell of beginnings, nested runs, ends and failures, from any thread and interleaved. What follows
from that is written once here, so that the adapters only translate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from pydantic import ValidationError

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.logs.background_writer import BackgroundWriter, RecordStore
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.logs.text import storable_text
from fusion_integrations.types import ABANDONED, Candidate, Completion, Message, PriceTable, query_text

__all__ = ["FeedbackStore", "LiveCall", "LiveCallLog"]

logger = logging.getLogger(__name__)

# Calls that began and were never heard of again, such as streams that nobody reads, must not fill the memory.
_MAX_OPEN = 10_000

_T = TypeVar("_T")


class FeedbackStore(RecordStore, Protocol):
    """What a live log asks of a store; `LogStore` is one."""

    def add_scores(self, scores: Iterable[Score]) -> int:
        """Score stored records; see `LogStore.add_scores`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LiveCall:
    """What is known of a model call when it begins.

    Attributes:
        messages: The conversation as the model gets it, oldest first.
        model: Name of the model.
        record_id: What to call its record; None names it like the run.
        session_id: What groups the calls of one conversation.
        is_recorded: Whether somebody else records this call, such as the pipeline that routed it.
        is_rendered: Whether `messages` is just the text of the conversation that the call around it is given.
    """

    messages: tuple[Message, ...]
    model: str
    record_id: str | None = None
    session_id: str | None = None
    is_recorded: bool = False
    is_rendered: bool = False


@dataclass(kw_only=True)
class _OpenCall:
    call: LiveCall
    started_at: float
    heard_at: float
    created_at: datetime
    parent_id: str | None = None
    around: _OpenCall | None = None
    is_wrapper: bool = False
    is_left: bool = False  # by the run it is part of, which ended first
    pieces: list[str] = field(default_factory=list)

    def about(self) -> LiveCall:
        """Return what the call is about; what is recorded of one around it is not recorded again."""
        if self.around is None:
            return self.call
        call, around = self.call, self.around.about()
        return replace(
            call,
            messages=around.messages if call.is_rendered and call.model == around.model else call.messages,
            record_id=call.record_id or around.record_id,
            session_id=call.session_id or around.session_id,
            is_recorded=call.is_recorded or around.is_recorded,
        )


class LiveCallLog:
    """Records the model calls of a running application, in the background.

    A call inside which another call begins is a wrapper around that one and leaves no record. A call of
    whose end nothing is heard is recorded or counted when that is certain, at the latest by `close`. Nothing
    that goes wrong here reaches the application: what cannot be recorded is counted and logged.

    Args:
        store: Where records and feedback go.
        source: Name of the application in the records.
        prices: Prices by model name; without one the cost is unknown.
        candidate_ids: Candidate ids by model name. A model that is not named goes by its own name.
        writer: Writes the records. Default: one of its own, with its defaults.
        clock: Gives the time of a record, with a time zone.
    """

    def __init__(
        self,
        store: FeedbackStore,
        *,
        source: str,
        prices: PriceTable | None = None,
        candidate_ids: Mapping[str, str] | None = None,
        writer: BackgroundWriter | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.writer = writer or BackgroundWriter(store)
        self._store = store
        self._source = source
        self._prices = prices or PriceTable()
        self._candidate_ids = dict(candidate_ids or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenCall] = OrderedDict()
        self._call_around: OrderedDict[str, str] = OrderedDict()
        self._used_ids: OrderedDict[str, None] = OrderedDict()
        self._n_unrecorded = 0

    @property
    def n_unrecorded(self) -> int:
        """How many calls no record could be made of.

        Those are conversations whose last user message is missing or has no text, and calls of whose end
        nothing was heard.
        """
        return self._n_unrecorded

    def enter(self, run_id: str, *, parent_id: str | None) -> None:
        """Take note of a run of any kind, before it begins a call.

        Args:
            run_id: The run.
            parent_id: The run it is part of, if any.
        """
        if parent_id is None:
            return
        with self._lock:
            around = parent_id if parent_id in self._open else self._call_around.get(parent_id)
            if around is not None:
                _keep(self._call_around, run_id, around)

    def leave(self, run_id: str, *, error: BaseException | None = None) -> None:
        """Take note that a run has ended.

        Calls that are part of it and have not ended were cancelled if it was, and are recorded as failed.
        Else they may go on without it, as tasks in the background do.

        Args:
            run_id: The run.
            error: What ended it early, if anything.
        """
        with self._lock:
            self._call_around.pop(run_id, None)
            parts = [each for each, begun in self._open.items() if begun.parent_id == run_id]
            for part in parts:
                self._open[part].is_left = True
                self._open[part].heard_at = time.perf_counter()
            cancelled = {part: self._open.pop(part) for part in parts} if _is_cancellation(error) else {}
        for part, begun in cancelled.items():
            self.leave(part, error=error)
            self._give_up(part, begun)

    def begin(self, run_id: str, call: LiveCall, *, parent_id: str | None = None) -> None:
        """Take note that a run calls a model.

        Args:
            run_id: The run; `enter` it first.
            call: What is asked of whom.
            parent_id: The run it is part of, where the framework has the call end before that run does.
        """
        now = time.perf_counter()
        begun = _OpenCall(
            call=call, started_at=now, heard_at=now, created_at=self._clock(), parent_id=parent_id
        )
        with self._lock:
            begun.around = self._open.get(self._call_around.get(run_id, ""))
            if begun.around is not None:
                begun.around.is_wrapper = True
            oldest = _keep(self._open, run_id, begun)
        if oldest is not None:
            self._give_up(*oldest)

    def move(self, run_id: str, *, into: str, out_of: str) -> None:
        """Correct which call a call lies in.

        Args:
            run_id: The inner call; it may have ended.
            into: The one it lies in, as has turned out.
            out_of: The one it was taken to lie in.
        """
        with self._lock:
            inner, outer, other = (self._open.get(each) for each in (run_id, into, out_of))
            if inner is not None and outer is not None:
                inner.around = outer
            if outer is not None:
                outer.is_wrapper = True
            if other is not None:
                other.is_wrapper = False

    def add_text(self, run_id: str, text: str) -> None:
        """Take note of a piece of an answer, for the case that its reader leaves before the end."""
        with self._lock:
            begun = self._open.get(run_id)
            if begun is not None:
                begun.pieces.append(text)
                begun.heard_at = time.perf_counter()

    def end(self, run_id: str, completion: Completion | None) -> None:
        """Record an answer.

        Args:
            run_id: The run that `begin` named.
            completion: The answer; its latency is filled in. None for one that no model gave now, such as an
                answer from a cache.
        """
        begun = self._take(run_id)
        if begun is not None and completion is not None:
            self._record(run_id, begun, completion)

    def fail(self, run_id: str, error: BaseException, *, text: str = "") -> None:
        """Record a failure; a reader who left, or a task that was cancelled, leaves an abandoned answer.

        Args:
            run_id: The run that `begin` named.
            error: What ended it.
            text: The answer so far, where `add_text` was not told.
        """
        begun = self._take(run_id)
        if begun is None:
            return
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            self._record(run_id, begun, _abandoned(begun, text or "".join(begun.pieces)))
        else:
            self._record(run_id, begun, error)

    def close(self) -> None:
        """Give up calls that have not ended, and write what is pending; later calls are not recorded."""
        with self._lock:
            left = list(self._open.items())
            self._open.clear()
        for run_id, begun in left:
            self._give_up(run_id, begun)
        self.writer.close()

    def add_feedback(self, run_id: str, value: float, *, scorer: str = "user", reason: str = "") -> None:
        """Attach a user's opinion to a recorded call, at any time after it.

        Args:
            run_id: The run, or the record id, of the call.
            value: Between 0 (worthless) and 1 (perfect).
            scorer: Who says so.
            reason: Why, in their words.

        Raises:
            InvalidPolicyError: If the value is not between 0 and 1.
            LogSchemaError: If the store has no record of that call.
            LogStoreError: If the store cannot be written.
        """
        if not 0 <= value <= 1:
            raise InvalidPolicyError(f"Feedback is a value between 0 and 1, got {value}.")
        score = Score(
            record_id=run_id,
            kind="feedback",
            scorer=scorer,
            version="",
            value=value,
            reason=storable_text(reason),
            created_at=self._clock(),
        )
        self.writer.flush()
        self._store.add_scores([score])

    async def aadd_feedback(
        self, run_id: str, value: float, *, scorer: str = "user", reason: str = ""
    ) -> None:
        """Attach an opinion without blocking the event loop; otherwise as `add_feedback`."""
        await asyncio.to_thread(self.add_feedback, run_id, value, scorer=scorer, reason=reason)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Let nothing that fails inside reach the application; it is counted and logged."""
        try:
            yield
        except Exception as error:  # frameworks and models hand over anything; the application must go on
            self._count_unrecorded(_reason(error))
            logger.debug("What made it fail:", exc_info=True)

    def _take(self, run_id: str) -> _OpenCall | None:
        with self._lock:
            begun = self._open.pop(run_id, None)
        if begun is not None:
            begun.heard_at = time.perf_counter()
        return begun

    def _count_unrecorded(self, reason: str) -> None:
        with self._lock:
            self._n_unrecorded += 1
        logger.warning("A model call cannot be recorded: %s.", reason)

    def _give_up(self, run_id: str, begun: _OpenCall) -> None:
        """Record what is known of a call that nothing more will be heard of, or count it."""
        if begun.pieces:
            self._record(run_id, begun, _abandoned(begun, "".join(begun.pieces)))
        elif begun.is_left:
            self._record(run_id, begun, asyncio.CancelledError("The run around the call ended before it."))
        elif not begun.is_wrapper and not begun.about().is_recorded:
            self._count_unrecorded("nothing was heard of its end, as when it is cancelled")

    def _record(self, run_id: str, begun: _OpenCall, outcome: Completion | BaseException) -> None:
        call = begun.about()
        if begun.is_wrapper or call.is_recorded:
            return
        with self.guarded():
            query_text(call.messages)  # says by name what a record would refuse among other things
            self.writer.add(self._log_record(self._record_id(run_id, call), call, begun, outcome))

    def _record_id(self, run_id: str, call: LiveCall) -> str:
        """Name a record as asked, or after its run where that name is taken."""
        if call.record_id is None or call.record_id == run_id:
            return run_id
        with self._lock:
            is_used = call.record_id in self._used_ids
            _keep(self._used_ids, call.record_id, None)
        return f"{call.record_id}/{run_id}" if is_used else call.record_id

    def _log_record(
        self, record_id: str, call: LiveCall, begun: _OpenCall, outcome: Completion | BaseException
    ) -> LogRecord:
        answer = outcome if isinstance(outcome, Completion) else None
        return LogRecord(
            record_id=record_id,
            messages=tuple(
                replace(message, content=storable_text(message.content)) for message in call.messages
            ),
            candidate_id=self._candidate_ids.get(call.model, call.model),
            model=call.model,
            response=storable_text(answer.text) if answer else None,
            error=None if answer else storable_text(f"{type(outcome).__name__}: {outcome}"),
            finish_reason=answer.finish_reason if answer else None,
            input_tokens=answer.input_tokens if answer else None,
            output_tokens=answer.output_tokens if answer else None,
            cost_usd=self._cost_usd(call.model, answer) if answer else None,
            latency_s=begun.heard_at - begun.started_at,
            session_id=call.session_id,
            created_at=begun.created_at,
            source=self._source,
        )

    def _cost_usd(self, model: str, answer: Completion) -> float | None:
        return self._prices.cost_usd(
            Candidate(id=model, model=model),
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
        )


def _reason(error: Exception) -> str:
    """Say why without quoting the conversation, which warnings have no place for."""
    if isinstance(error, EmptyQueryError):
        return "the last user message of its conversation is missing or has no text, and a record needs one"
    if isinstance(error, ValidationError):
        return "; ".join(problem["msg"] for problem in error.errors(include_input=False))
    return type(error).__name__


def _abandoned(begun: _OpenCall, text: str) -> Completion:
    return Completion(text=text, model=begun.call.model, finish_reason=ABANDONED)


def _is_cancellation(error: BaseException | None) -> bool:
    """Tell whether an error cancels what is under way, as a timeout does that a cancellation caused."""
    if isinstance(error, TimeoutError):
        return isinstance(error.__cause__, asyncio.CancelledError)
    return isinstance(error, asyncio.CancelledError)


def _keep(table: OrderedDict[str, _T], key: str, value: _T) -> tuple[str, _T] | None:
    """Add to a table; return the oldest item, if there is no more room for it."""
    table[key] = value
    return table.popitem(last=False) if len(table) > _MAX_OPEN else None
