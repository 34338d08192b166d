"""Seed torch for one generation without leaving a trace in the process's random state."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusion_integrations._optional import require

if TYPE_CHECKING:
    import torch

__all__ = ["seeded"]

# torch has one random state a process: two clients that sample at once must not take turns drawing from it.
_LOCK = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int | None, *, device: torch.device) -> Iterator[None]:
    """Fix torch's random state inside the block and put it back afterwards; None leaves it alone."""
    if seed is None:
        yield
        return
    torch = require("torch", extra="transformers")
    with _LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
