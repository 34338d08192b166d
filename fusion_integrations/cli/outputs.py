"""Find out whether a trained artifact can be saved before the hours it takes to train it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fusion_integrations.artifacts import ArtifactKind, save_artifact

__all__ = ["check_out"]


class _SavedEnoughError(Exception):
    """Ends a trial save before anything is replaced."""


def check_out(folder: Path, *, kind: ArtifactKind) -> None:
    """Begin to save an artifact and undo it; what is there stays as it is.

    Args:
        folder: Where the artifact is to go.
        kind: What it will be.

    Errors of `save_artifact` pass through: something else lies there, or it cannot be written to.
    """

    def stop(_: Path) -> None:
        raise _SavedEnoughError

    with contextlib.suppress(_SavedEnoughError):
        save_artifact(folder, kind=kind, files={"trial": stop}, card="")
