"""Streams of protocol events (`stream_events(version="v3")`) fed by a routed call.

Imported at the first use, since older releases of langchain-core have no such streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream

__all__ = ["AsyncRoutedStream", "RoutedStream"]

Event = Mapping[str, Any]

_FINISH = "message-finish"


class RoutedStream(ChatModelStream):
    """Hands on the events of a routed call as its reader asks for them.

    Args:
        events: The call's events. Nothing is called before the first is asked for.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        super().__init__()
        self._routed_events = events
        self.bind_pump(self._pump)

    def _pump(self) -> bool:
        try:
            event = next(self._routed_events, None)
            if event is not None and event["event"] == _FINISH:
                deque(self._routed_events, maxlen=0)  # nobody reads on after it: end the router's run first
        except BaseException as error:  # reaches the reader through the stream
            self.fail(error)
            return False
        if event is None:
            return False
        self.dispatch(event)
        return True


class AsyncRoutedStream(AsyncChatModelStream):
    """Hands on the events of a routed call from a task of its own, which `aclose` cancels.

    Args:
        events: The call's events. Nothing is called before the stream is read.
    """

    def __init__(self, events: AsyncIterator[Event]) -> None:
        super().__init__()
        self._routed_events = events
        self.set_start(self._start)

    async def _start(self) -> None:
        if self._producer_task is None:
            self._producer_task = asyncio.get_running_loop().create_task(self._produce())

    async def _produce(self) -> None:
        finish: Event | None = None
        try:
            async for event in self._routed_events:
                if event["event"] == _FINISH:
                    finish = event  # tells the reader that all is done, so the router's run ends first
                else:
                    self.dispatch(event)
            if finish is not None:
                self.dispatch(finish)
        except asyncio.CancelledError as error:
            self.fail(error)
            raise
        except BaseException as error:  # reaches the reader through the stream
            self.fail(error)
