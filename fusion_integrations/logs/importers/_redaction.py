"""Take keys and, if wanted, personal data out of texts before anything of them is stored.

Logs are copied around more freely than the systems they come from; a key in one must not leave with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from fusion_integrations._optional import require
from fusion_integrations.logs.schema import LogRecord, Score
from fusion_integrations.types import Message, fingerprint

__all__ = ["Redaction", "Redactor"]

Redaction = Literal["secrets", "secrets_and_pii"]

_SECRET = "[secret]"  # noqa: S105 - what is written in place of one

# Dates and times are left alone: they are what questions are about. Names are not found without a language
# model, and no such model is used here.
_PII = ["EMAIL", "PHONE", "CREDIT_CARD", "SSN", "IP_ADDRESS"]

_START = r"(?<![A-Za-z0-9])"
_WORD = r"[A-Za-z0-9_-]"


class _Rule(NamedTuple):
    """What one kind of secret looks like.

    Attributes:
        signs: Characters, one of which such a secret has in or before it; empty if it needs none.
        marks: Texts, one of which a text must hold for the pattern to be tried.
        pattern: Finds the secret.
        replacement: What is written in its place.
    """

    signs: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str = _SECRET


# Looking for single characters and plain words first is many times faster than searching the patterns, and
# nearly all texts hold none of them.
_RULES = (
    _Rule("-", ("sk-",), re.compile(rf"{_START}sk-{_WORD}{{16,}}")),  # OpenAI, Anthropic, LiteLLM, Langfuse
    _Rule(
        "-",
        ("xai-", "nvapi-", "pplx-", "tvly-", "csk-", "glpat-"),
        re.compile(rf"{_START}(?:xai|nvapi|pplx|tvly|csk|glpat)-{_WORD}{{20,}}"),
    ),
    _Rule("-", ("xox",), re.compile(rf"{_START}xox[a-z]-{_WORD}{{10,}}")),  # Slack
    _Rule(
        "_",
        ("gsk_", "hf_", "r8_", "lsv2_", "npm_"),
        re.compile(rf"{_START}(?:gsk|hf|r8|lsv2|npm)_{_WORD}{{20,}}"),
    ),
    _Rule(
        "_",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(rf"{_START}(?:gh[pousr]|github_pat)_\w{{20,}}"),
    ),
    _Rule("_", ("_live_", "_test_"), re.compile(rf"{_START}[prs]k_(?:live|test)_\w{{16,}}")),  # Stripe
    _Rule("", ("AKIA", "ASIA"), re.compile(rf"{_START}A[KS]IA[0-9A-Z]{{16}}(?![0-9A-Za-z])")),  # AWS
    _Rule("", ("AIza",), re.compile(rf"{_START}AIza{_WORD}{{30,}}")),  # Google
    _Rule("", ("eyJ",), re.compile(rf"{_START}eyJ{_WORD}{{8,}}\.{_WORD}{{8,}}\.{_WORD}{{8,}}")),  # JWT
    _Rule(
        "",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
    ),
    _Rule(
        "",
        ("earer", "EARER", "asic ", "ASIC "),
        re.compile(r"\b(bearer|basic)(\s+)(?=[^\s]*[0-9+/=])[\w.~+/=-]{16,}", re.IGNORECASE),
        rf"\1\2{_SECRET}",
    ),
    _Rule(
        ":=",
        (
            "key",
            "token",
            "secret",
            "passw",
            "KEY",
            "TOKEN",
            "SECRET",
            "PASSW",
            "Key",
            "Token",
            "Secret",
            "Passw",
        ),
        re.compile(
            r"\b((?:[\w-]*api[_-]?key|[\w-]*access[_-]?(?:key|token)|auth[_-]?token|[\w-]*secret(?:[_-]?key)?"
            r"|passw(?:or)?d)\w*[\"']?\s*[:=]\s*[\"']?)(?=[^\s\"']*\d)[\w+/=.~-]{16,}",
            re.IGNORECASE,
        ),
        rf"\1{_SECRET}",
    ),
    _Rule(":", ("://",), re.compile(r"(://)[^\s/:@]{1,200}:[^\s/:@]{1,200}@"), rf"\1{_SECRET}@"),
)
_BY_SIGNS = {signs: [rule for rule in _RULES if rule.signs == signs] for signs in ("", "-", "_", ":", ":=")}

_SECRET_NAME = re.compile(
    r"api_?key|authorization|passw(or)?d|secret|access_?(key|token)|auth_?token", re.IGNORECASE
)

# Identifiers only group rows: a hash does that as well and tells nothing.
_HASHED = ("session_id", "source_id")
_REWRITTEN = ("reference", "response", "error")


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
        for signs, rules in _BY_SIGNS.items():
            if not signs or signs[0] in text or signs[-1] in text:
                for rule in rules:
                    for mark in rule.marks:
                        if mark in text:
                            text = rule.pattern.sub(rule.replacement, text)
                            break
        return text if self._without_pii is None else self._without_pii(text)

    def data(self, value: Any) -> Any:
        """Return JSON data in which every text is redacted, and so is whatever has the name of a secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): _SECRET if part and _SECRET_NAME.search(str(name)) else self.data(part)
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
        if not changes:
            return record
        kept = {name: getattr(record, name) for name in LogRecord.model_fields}
        return LogRecord(**(kept | changes | {"query_id": ""}))

    def score(self, score: Score) -> Score:
        """Return a score whose reason holds nothing that must not be stored."""
        reason = self.text(score.reason) if score.reason else ""
        return score if reason == score.reason else score.model_copy(update={"reason": reason})


def _pii_redactor() -> Callable[[str], str]:
    datafog = require("datafog", extra="pii")

    def without_pii(text: str) -> str:
        redacted: str = datafog.redact(text, engine="regex", entity_types=_PII).redacted_text
        return redacted

    return without_pii
