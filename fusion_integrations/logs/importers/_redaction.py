"""Take keys and, if wanted, personal data out of texts before anything of them is stored.

Logs are copied around more freely than the systems they come from; a key in one must not leave with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

from fusion_integrations._optional import require
from fusion_integrations.logs.importers._secrets import SECRET, is_secret, without_secrets
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.types import Message, fingerprint

__all__ = ["Redaction", "Redactor", "may_be_redacted_from"]

Redaction = Literal["secrets", "secrets_and_pii"]

# Dates and times are left alone: they are what questions are about. Names are not found without a language
# model, and no such model is used here.
_PII = ("EMAIL", "PHONE", "CREDIT_CARD", "SSN", "IP_ADDRESS")

# Identifiers only group rows: a hash does that as well and tells nothing.
_HASHED = ("session_id", "source_id")
_REWRITTEN = ("reference", "response", "error")
_NAMES = (
    "model",
    "candidate_id",
    "candidate_revision",
    "planned_candidate_id",
    "task",
    "metric",
    "finish_reason",
)

_names_in = attrgetter(*_NAMES)

# What redaction leaves, and what it can have taken out there.
_LEFT = re.compile(rf"\[(secret|(?:{'|'.join(_PII)})_\d{{1,9}})\]")
_TAKEN_SECRET = re.compile(r"\S+|.*PRIVATE KEY.*", re.DOTALL)
_TAKEN_EMAIL = re.compile(r"[^\s@]+@\S+")
_TAKEN_NUMBER = re.compile(r"[\dA-Fa-f\s()+.:x-]+")


class Redactor:
    """Takes secrets out of texts, always, and personal data if wanted.

    Args:
        redaction: What is taken out: secrets alone, or e-mail addresses, phone, credit card and social
            security numbers and IP addresses too.
    """

    def __init__(self, redaction: Redaction = "secrets") -> None:
        self._without_pii: Callable[[str], str] | None = None
        if redaction == "secrets_and_pii":
            self._without_pii = _pii_redactor()

    def text(self, text: str) -> str:
        """Return a text without what must not be stored."""
        text = without_secrets(text)
        return text if self._without_pii is None else self._without_pii(text)

    def data(self, value: Any) -> Any:
        """Return JSON data in which every text is redacted, and so is whatever has the name of a secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): SECRET if is_secret(str(name), part) else self.data(part)
                for name, part in value.items()
            }
        return [self.data(part) for part in value] if isinstance(value, (list, tuple)) else value

    def record(self, record: LogRecord) -> LogRecord:
        """Return a record without what must not be stored; the same object if it has none of it."""
        changes: dict[str, Any] = {}
        contents = [self.text(turn.content) for turn in record.messages]
        if contents != [turn.content for turn in record.messages]:
            turns = zip(record.messages, contents, strict=True)
            changes["messages"] = tuple(Message(role=turn.role, content=text) for turn, text in turns)
        for name in (*_REWRITTEN, *_HASHED):
            text = getattr(record, name)
            if text and (redacted := self.text(text)) != text:
                changes[name] = fingerprint(text) if name in _HASHED else redacted
        changes |= _names_without_secrets(_names_in(record), record.eligible)
        if not changes:
            return record
        kept = {name: getattr(record, name) for name in LogRecord.model_fields}
        return LogRecord(**(kept | changes | {"query_id": ""}))

    def score(self, score: Score) -> Score:
        """Return a score whose reason holds nothing that must not be stored."""
        reason = self.text(score.reason) if score.reason else ""
        return score if reason == score.reason else score.model_copy(update={"reason": reason})


def may_be_redacted_from(redacted: str | None, original: str | None) -> bool:
    """Tell whether one text can be what a redaction, of any kind and release, left of another.

    Args:
        redacted: The text that may have been redacted.
        original: The text as it was, or as another redaction left it.

    Returns:
        Whether they are equal but for what was taken out, and that can have been a secret or personal data.
    """
    if redacted is None or original is None or redacted == original:
        return redacted == original
    texts = _LEFT.split(redacted)
    kinds, rest = texts[1::2], texts[2::2]  # what was taken out, and the text after each of them
    if not kinds or not original.startswith(texts[0]) or not original.endswith(texts[-1]):
        return False
    at = len(texts[0])
    for kind, text in zip(kinds[:-1], rest[:-1], strict=True):
        end = original.find(text, at + 1)
        if end < 0 or not _can_be_taken(original[at:end], kind):
            return False
        at = end + len(text)
    return _can_be_taken(original[at : len(original) - len(texts[-1])], kinds[-1])


def _can_be_taken(text: str, kind: str) -> bool:
    if kind == "secret":
        pattern = _TAKEN_SECRET
    else:
        pattern = _TAKEN_EMAIL if kind.startswith("EMAIL") else _TAKEN_NUMBER
    return pattern.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _names_without_secrets(names: tuple[str | None, ...], eligible: tuple[str, ...]) -> Mapping[str, Any]:
    """Give the names in a record that hold secrets, without those; a log has few, each in many records.

    Personal data is not looked for in them: versions and dates of models look like phone numbers.
    """
    changes: dict[str, Any] = {
        name: found
        for name, text in zip(_NAMES, names, strict=True)
        if text and (found := without_secrets(text)) != text
    }
    redacted = tuple(map(without_secrets, eligible))
    return changes if redacted == eligible else changes | {"eligible": redacted}


def _pii_redactor() -> Callable[[str], str]:
    datafog = require("datafog", extra="pii")

    def without_pii(text: str) -> str:
        redacted: str = datafog.redact(text, engine="regex", entity_types=list(_PII)).redacted_text
        return redacted

    return without_pii
