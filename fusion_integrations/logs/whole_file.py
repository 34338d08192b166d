"""Write a file so that it appears complete or not at all: what was there before stays until then."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import polars as pl

from fusion_integrations.errors import LogStoreError

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file beside the target, which takes the target's place once the block has ended without error.

    Args:
        path: The target; an existing file is replaced.

    Yields:
        The file to write to.

    Raises:
        LogStoreError: If the file cannot be written; what was there before still is.
    """
    target = Path(path)
    unfinished = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        message = (
            f"'{target}' could not be written: {error}. Check the folder, its permissions and free space."
        )
        raise LogStoreError(message) from error
    finally:
        with suppress(OSError):  # the target's folder may be no folder; that error was raised above
            unfinished.unlink()
