"""Where converted model files are kept, because converting takes longer than loading."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Return the folder for files that can be made again; it may not exist yet.

    Returns:
        `$FUSION_CACHE` if set, else `fusion-integrations` under `$XDG_CACHE_HOME`, else under `~/.cache`.
    """
    if own := os.environ.get("FUSION_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "fusion-integrations"
