"""Read from whatever a provider's package raised what a caller has to know: may it be tried again, and when.

Providers agree on HTTP; their Python packages put its status and headers in the same places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from fusion_integrations.clients.api_key import without_key
from fusion_integrations.errors import CandidateCallError

__all__ = ["call_failure"]

# Request timeout, conflict, too early, too many requests; and every failure of the server itself.
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
# A gateway that gave up waiting: the model behind it may have answered, and charged.
_GATEWAY_STATUS = frozenset({502, 504, 524})


def call_failure(error: BaseException, *, model: str, secret: str | None = None) -> CandidateCallError:
    """Describe a failed model call.

    Args:
        error: What the provider's package raised.
        model: Name of the model.
        secret: What the message must not show, such as the key, which some servers repeat.

    Returns:
        The error to raise `from` the given one.
    """
    message = without_key(f"Model '{model}' failed: {type(error).__name__}: {error}", secret)
    status = _status(error)
    is_transient = (
        isinstance(error, TimeoutError | ConnectionError)
        or getattr(error, "is_retryable", False) is True  # LangChain's mark on its own errors
        or (status is not None and (status in _TRANSIENT_STATUS or status >= 500))
    )
    # An answer with an error status is no answer that anybody charges for.
    was_refused = isinstance(error, ConnectionRefusedError) or (
        status is not None and status >= 400 and status not in _GATEWAY_STATUS
    )
    return CandidateCallError(
        message,
        is_transient=is_transient,
        retry_after_s=_retry_after_s(error),
        may_be_billed=not was_refused,
    )


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _retry_after_s(error: BaseException) -> float | None:
    """Read how long the server asks to wait: seconds or a date, https://www.rfc-editor.org/rfc/rfc9110."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if isinstance(headers, Mapping) else None
    if not isinstance(value, str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
