"""What the research benchmarks share: rows without ids, and prompts written as Python lists."""

from __future__ import annotations

import ast
from typing import Any

from fusion_integrations.types import fingerprint

__all__ = ["content_id", "from_python_list"]

_MAX_LITERAL = 1_000_000  # characters; a parser of Python recurses and needs many times that memory


def content_id(*parts: Any) -> str:
    """Identify a row by what it says, so that a row that comes twice is one."""
    return fingerprint([None if part is None else str(part) for part in parts])


def from_python_list(value: Any) -> Any:
    """Return the texts of a list, which CSV files hold as Python wrote it: `"['first', 'second']"`.

    Args:
        value: What stands in the cell.

    Returns:
        The texts one below the other; anything that is no list of texts as it is.
    """
    if isinstance(value, str) and value[:2] in ("['", '["') and len(value) <= _MAX_LITERAL:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return value
