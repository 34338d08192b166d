"""Make any text storable: an odd character must not cost a record."""

from __future__ import annotations

__all__ = ["storable_text"]


def storable_text(text: str) -> str:
    """Escape lone surrogates, which no UTF-8 store holds, so that an odd answer is not lost for its log."""
    return text.encode(errors="backslashreplace").decode()
