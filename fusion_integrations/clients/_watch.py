"""Decide, token by token, where an answer ends: at a stop text, or when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fusion_integrations._optional import require

if TYPE_CHECKING:
    import torch

__all__ = ["GenerationWatch", "cut_at_stop", "settled_text"]


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop text, without outer whitespace, and whether one was found."""
    positions = [position for stop in stops if (position := text.find(stop)) >= 0]
    return text[: min(positions, default=len(text))].strip(), bool(positions)


def settled_text(text: str, stops: Sequence[str]) -> str:
    """Return the part of an unfinished answer that later tokens cannot change.

    Held back are half a character (tokens are bytes), what may be the start of a stop text, and trailing
    whitespace.
    """
    answer, has_stopped = cut_at_stop(text, stops)
    if has_stopped:
        return answer
    text = text.rstrip("\ufffd")
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])),
        default=0,
    )
    return text[: len(text) - held].strip()


class GenerationWatch:
    """A stopping criterion for `generate`; called after every step with all tokens so far.

    Args:
        decode: Turns tokens into text.
        n_prompt: Tokens of the padded prompt.
        stops: Texts that end a row.
        abandoned: Set by whoever no longer wants the answer; ends all rows at the next step.
        on_tokens: Gets the generated tokens of the only row after every step.
    """

    def __init__(
        self,
        *,
        decode: Callable[[list[int]], str],
        n_prompt: int,
        stops: Sequence[str],
        abandoned: threading.Event,
        on_tokens: Callable[[list[int]], None] | None,
    ) -> None:
        self.decode = decode
        self.n_prompt = n_prompt
        self.stops = stops
        self.abandoned = abandoned
        self.on_tokens = on_tokens

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Return (rows,) bool: which rows are done."""
        answers = input_ids[:, self.n_prompt :]
        if self.on_tokens is not None:
            self.on_tokens(answers[0].tolist())
        if self.abandoned.is_set():
            done = [True] * len(answers)
        elif self.stops:
            done = [cut_at_stop(self.decode(row), self.stops)[1] for row in answers.tolist()]
        else:
            done = [False] * len(answers)
        result: torch.Tensor = require("torch", extra="transformers").tensor(done, device=input_ids.device)
        return result
