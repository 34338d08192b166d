"""What the core asks of the objects it is handed; any class of this shape fits, none has to be inherited."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fusion_integrations.types import Completion, GenerationOptions, Message

__all__ = ["ChatClient", "Embedder", "EmbedderIdentity", "FloatArray", "StreamingChatClient"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EmbedderIdentity:
    """What must be equal for two embedders to be interchangeable.

    Attributes:
        name: Model name, for example `"all-MiniLM-L6-v2"`.
        engine: What runs it: `"onnx"`, `"torch"`, `"static"` or `"hash"`.
        precision: Number format of the weights, for example `"fp32"` or `"int8"`.
        dimensions: Length of a vector.
        max_tokens: Longer texts are cut here; 0 means no limit.
    """

    name: str
    engine: str
    precision: str
    dimensions: int
    max_tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return name, engine, precision and dimensions in one line."""
        return f"{self.name} ({self.engine}, {self.precision}, {self.dimensions} dims)"


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def identity(self) -> EmbedderIdentity:
        """What must match between training and use."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Args:
            texts: n non-empty texts.

        Returns:
            Array (n, dimensions), float32, rows of unit length.
        """
        ...


@runtime_checkable
class ChatClient(Protocol):
    """The smallest useful LLM: messages in, text out."""

    @property
    def model(self) -> str:
        """Name of the model, as logged and priced."""
        ...

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the client.

        Returns:
            The answer.

        Raises:
            CandidateCallError: If the model call fails.
        """
        ...

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        """Answer one conversation without blocking the event loop.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the client.

        Returns:
            The answer.

        Raises:
            CandidateCallError: If the model call fails.
        """
        ...

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        """Answer several conversations at once.

        Args:
            conversations: n conversations, each oldest message first.
            options: How to generate; None leaves it to the client.

        Returns:
            One completion a conversation, in their order.

        Raises:
            CandidateCallError: If the batch fails as a whole.
        """
        ...


@runtime_checkable
class StreamingChatClient(ChatClient, Protocol):
    """A chat client that can also give its answer piece by piece."""

    def stream(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Generator[str, None, Completion]:
        """Yield the answer in pieces; see `fusion_integrations.streaming` for reading it to its end.

        The pieces are not empty, and their concatenation is the text of `complete`.

        Args:
            messages: The conversation, oldest first.
            options: How to generate; None leaves it to the client.

        Returns:
            The whole completion, with token counts where the model tells them.

        Raises:
            CandidateCallError: If the model call fails.
        """
        ...
