"""Keys come from the environment, by the name of a variable; files, logs and messages never hold one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fusion_integrations.errors import InvalidPolicyError

__all__ = ["read_api_key", "refuse_secrets", "without_key"]

_SECRET_ENDINGS = ("api_key", "apikey", "authorization", "password", "secret", "access_token", "auth_token")


def read_api_key(variable: str | None) -> str | None:
    """Read a key from the environment.

    Args:
        variable: Name of the environment variable; None where no key is needed.

    Returns:
        The key, or None.

    Raises:
        InvalidPolicyError: If the variable is not set or empty.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        message = (
            f"api_key_env names the environment variable '{variable}', which is not set. Set it to the key."
        )
        raise InvalidPolicyError(message)
    return key


def without_key(text: str, key: str | None) -> str:
    """Return a text without a key, which some servers repeat in what they say."""
    return text.replace(key, "***") if key else text


def refuse_secrets(settings: Mapping[str, object]) -> None:
    """Check that settings from a file hold no key.

    Args:
        settings: Settings by name; those inside others are looked at too.

    Raises:
        InvalidPolicyError: If a name stands for a key; does not show its value.
    """
    for name, value in settings.items():
        if name.lower().replace("-", "_").endswith(_SECRET_ENDINGS):
            message = (
                f"'{name}' would put a key into the file. Put it into an environment variable, "
                "and name that: api_key_env."
            )
            raise InvalidPolicyError(message)
        if isinstance(value, Mapping):
            refuse_secrets(value)
