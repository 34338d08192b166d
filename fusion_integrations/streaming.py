"""Read a chat client's stream: its pieces, then the completion it returns, also from async code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

from fusion_integrations.types import Completion

__all__ = ["CompletionStream", "aread_stream", "read_stream"]

# What `StreamingChatClient.stream` gives: pieces of text, and as the generator's return value the completion.
CompletionStream = Generator[str, None, Completion]


def read_stream(stream: CompletionStream) -> Generator[str | Completion, None, None]:
    """Yield the pieces of a stream, then its completion; closing this closes the stream.

    Args:
        stream: What a chat client's `stream` gave.

    Yields:
        Pieces of text, and last the completion with its token counts.
    """
    completion = yield from stream
    if completion is not None:  # a plain iterator, which type checkers refuse, returns nothing
        yield completion


async def aread_stream(stream: CompletionStream) -> AsyncGenerator[str | Completion, None]:
    """Yield what `read_stream` does, waiting for each piece in a thread; closing this closes the stream."""
    items = read_stream(stream)
    waiting: asyncio.Future[str | Completion | None] | None = None
    try:
        while True:
            waiting = asyncio.ensure_future(asyncio.to_thread(next, items, None))
            item = await asyncio.shield(waiting)
            if item is None:
                return
            yield item
    finally:
        # A thread cannot be interrupted: let it hand the stream back before that is closed.
        if waiting is not None and not waiting.done():
            await asyncio.wait([waiting])
            waiting.exception()  # nobody wants the piece or its failure any more
        await asyncio.to_thread(items.close)
