"""What a router can promise about the models behind it: only what all of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.language_models import ModelProfile

__all__ = ["common_profile"]


def common_profile(profiles: Sequence[ModelProfile | None]) -> ModelProfile | None:
    """Return the profile that holds whichever model answers.

    Args:
        profiles: One a model; None where a model has none.

    Returns:
        What all profiles state: abilities that all have, the smallest of their limits, other values where
        they agree. None if a model has no profile, since nothing is known of it.
    """
    known = [dict(profile) for profile in profiles if profile is not None]
    if not known or len(known) < len(profiles):
        return None
    shared = set(known[0]).intersection(*known[1:])
    common = {key: _common([profile[key] for profile in known]) for key in sorted(shared)}
    return cast("ModelProfile", {key: value for key, value in common.items() if value is not None})


def _common(values: list[Any]) -> Any:
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, int) for value in values):
        return min(values)
    return values[0] if all(value == values[0] for value in values) else None
