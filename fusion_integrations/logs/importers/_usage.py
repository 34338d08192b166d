"""Read token counts under the names that providers and tracers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion_integrations.logs.importers._values import as_number, first

__all__ = ["tokens"]

_INPUT = ("input_tokens", "prompt_tokens", "input", "promptTokens", "inputTokens")
_OUTPUT = ("output_tokens", "completion_tokens", "output", "completionTokens", "outputTokens")


def tokens(*sources: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the record fields `input_tokens` and `output_tokens`.

    Args:
        *sources: Where they may stand; the first that names a count gives it.

    Returns:
        The counts, None if unknown. Cached tokens are input tokens, reasoning tokens are output tokens.

    Raises:
        ValueError: If a count is no whole number.
    """
    return {
        "input_tokens": _count(sources, _INPUT, what="input_tokens"),
        "output_tokens": _count(sources, _OUTPUT, what="output_tokens"),
    }


def _count(sources: tuple[Mapping[str, Any], ...], names: tuple[str, ...], *, what: str) -> int | None:
    value = next((found for source in sources if (found := first(source, *names)) is not None), None)
    number = as_number(value, what=what)
    if number is None:
        return None
    if not number.is_integer():
        raise ValueError(f"{what}: no whole number, got {value!r:.200}")
    return int(number)
