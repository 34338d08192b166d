"""Spare an import most searches for garbage, of which it makes none that needs them."""

from __future__ import annotations

import gc
from threading import Lock

__all__ = ["RareGarbageCollection"]


class RareGarbageCollection:
    """Looks for reference cycles less often: a record is many objects, and none of them is in a cycle.

    Otherwise Python searches its whole heap again and again, which takes a quarter of the time. The setting
    is the process's, so the last of several imports puts it back.
    """

    _lock = Lock()
    _n_users = 0
    _before = (0, 0, 0)

    def __enter__(self) -> None:
        cls = type(self)
        with cls._lock:
            if cls._n_users == 0:
                cls._before = gc.get_threshold()
                gc.set_threshold(50_000, 50, 50)
            cls._n_users += 1

    def __exit__(self, *_: object) -> None:
        cls = type(self)
        with cls._lock:
            cls._n_users -= 1
            if cls._n_users == 0:
                gc.set_threshold(*cls._before)
