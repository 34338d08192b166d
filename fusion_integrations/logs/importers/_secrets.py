"""Know what keys and passwords look like, and take them out of texts.

Apart from the rest of redaction because the shapes of secrets change with the services that give them out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["SECRET", "is_secret", "without_secrets"]

SECRET = "[secret]"  # noqa: S105 - what is written in place of one


class _Rule(NamedTuple):
    """What one kind of secret looks like.

    Attributes:
        signs: Characters, one of which such a secret has in or before it; empty if it needs none.
        marks: Texts in small letters, one of which a text must hold, in any, for the pattern to be tried.
        pattern: Finds the secret. Texts may be hostile: what repeats is bounded or possessive where it could
            begin again within itself, so that time grows with the length of a text and no faster.
        replacement: What is written in its place.
    """

    signs: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str = rf"\1{SECRET}"


def _given_out(prefix: str, rest: str, *, signs: str = "", marks: tuple[str, ...]) -> _Rule:
    """Describe a key that whoever gives it out begins in a way of their own."""
    return _Rule(signs, marks, re.compile(rf"((?<![A-Za-z0-9])){prefix}{rest}"))


def _spellings(*words: str) -> tuple[str, ...]:
    return tuple(spelt for word in words for spelt in (word, word.capitalize(), word.upper()))


def _no_call(character: str) -> str:
    return rf"(?!{character}{{0,200}}+[(\[])"


_WORD = r"[A-Za-z0-9_-]"
_KEY = r"[\w+/=.~%-]"  # a character of a key
_BARE = r"[^\s\"'`\\<>()\[\]{}|,;&]"  # a character of a password that stands in no quotes
_QUOTED = r"[^\s\"'`\\]"

_HAS_DIGIT = rf"(?={_KEY}{{0,200}}?\d)"  # keys nearly always have one, words seldom

# What stands between the name and the secret, in code, JSON, JSON within JSON, headers and Markdown.
_QUOTES = r"[\\\"'`*]{0,10}"
_ASSIGNED = (
    rf"{_QUOTES}\]?(?:\sis|:\s?(?i:str|string)(?=\s?=))?\s{{0,8}}[:=]{{1,3}}>?\s{{0,8}}{_QUOTES}\s?{_QUOTES}"
)
_IN_QUOTES = rf"{_ASSIGNED}(?<=[\"'`])"
_TO_END_OF_QUOTES = r"(?=[\\\"'`])"

# Code that fetches a secret or makes one, a template to put it in, an address or a date tell nothing.
_TELLS = (
    r"(?!(?i:self|this|os|process|config|cfg|conf|settings|env|args|options|opts|request|req|credentials|creds"
    r"|secrets|state|app|ctx)\.|\w{1,10}://|\d{4}-\d\d-\d\d|\$?[{<(]|%\()"
)

_KEYS = (
    "api",
    "access",
    "account",
    "auth",
    "encryption",
    "master",
    "private",
    "secret",
    "signing",
    "subscription",
)
_TOKENS = ("access", "auth", "bearer", "refresh", "session")
_KEY_NAME = rf"(?:{'|'.join(_KEYS)})[ _-]?key|(?:{'|'.join(_TOKENS)})[ _-]?token|secret"
_KEY_MARKS = ("key", "token", "secret", "authorization")
# Patterns begin with words in so many letters: searching for these is fast, regardless of case it is not.
_KEY_WORD = rf"(?:{'|'.join(_spellings(*_KEY_MARKS))})"
_ENDS_KEY_NAME = "|".join(
    f"(?<=(?i:{name}))"
    for name in (
        "secret",
        *(f"{word}{joint}key" for word in _KEYS for joint in ("", "[ _-]")),
        *(f"{word}{joint}token" for word in _TOKENS for joint in ("", "[ _-]")),
    )
)
_PASSWORD = (
    rf"(?:{'|'.join(f'{word}(?i:w(?:or)?d|phrase)' for word in _spellings('pass'))}"
    rf"|_pass|_PASS|{'|'.join(_spellings('pwd'))})(?:[_-]?(?:(?i:hash)|\d{{1,3}}))?"
)
_PASSWORD_MARKS = ("pass", "pwd")
# What stands for a password where forms and interfaces are described.
_NO_PASSWORD = r"(?i:string|text|required|hidden|hashed|password|none|null|true|false)(?=[|\\\"'`])"  # noqa: S105

# Looking for single characters and plain words first is many times faster than searching the patterns, and
# nearly all texts hold none of them.
_RULES = (
    # OpenAI, Anthropic, LiteLLM, Langfuse
    _given_out("sk-", rf"{_WORD}{{16,}}", signs="-", marks=("sk-",)),
    _given_out(
        "(?:xai|nvapi|pplx|tvly|csk|glpat)-",
        rf"{_WORD}{{20,}}",
        signs="-",
        marks=("xai-", "nvapi-", "pplx-", "tvly-", "csk-", "glpat-"),
    ),
    _given_out("xox[a-z]-", rf"{_WORD}{{10,}}", signs="-", marks=("xox",)),  # Slack
    _given_out("pypi-", rf"(?={_WORD}{{0,31}}[A-Z0-9]){_WORD}{{32,}}", signs="-", marks=("pypi-",)),
    _given_out(
        "(?:gsk|hf|r8|lsv2|npm)_",
        rf"{_WORD}{{20,}}",
        signs="_",
        marks=("gsk_", "hf_", "r8_", "lsv2_", "npm_"),
    ),
    _given_out(
        "(?:gh[pousr]|github_pat)_",
        r"\w{20,}",
        signs="_",
        marks=("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _given_out("[prs]k_(?:live|test)_", r"\w{16,}", signs="_", marks=("_live_", "_test_")),  # Stripe
    _given_out("do[opr]_v1_", r"\w{20,}", signs="_", marks=("_v1_",)),  # DigitalOcean
    _given_out("shp(?:at|ca|pa|ss)_", r"\w{20,}", signs="_", marks=("shp",)),  # Shopify
    _given_out("A[KS]IA", r"[0-9A-Z]{16}(?![0-9A-Za-z])", marks=("akia", "asia")),  # AWS
    _given_out("AIza", rf"{_WORD}{{30,}}", marks=("aiza",)),  # Google
    _given_out(r"ya29\.", rf"{_WORD}{{20,}}", marks=("ya29.",)),  # Google, OAuth
    _given_out(r"SG\.", rf"{_WORD}{{16,}}+\.{_WORD}{{16,}}", marks=("sg.",)),  # SendGrid
    _given_out("eyJ", rf"{_WORD}{{8,2000}}+\.{_WORD}{{8,}}+\.{_WORD}{{8,}}", marks=("eyj",)),  # JWT
    _Rule(":", (":aa",), re.compile(rf"((?<!\d))\d{{6,12}}:AA{_WORD}{{25,}}")),  # Telegram
    _Rule(
        "/",
        ("hooks.slack.com/",),
        re.compile(r"(hooks\.slack\.com/(?:services|triggers|workflows)/)[\w/+-]{8,}"),
    ),
    _Rule(
        "",
        ("private key",),
        re.compile(
            r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
    # Without a digit it must be longer than a word, and no compound of words.
    _Rule(
        "",
        ("bearer",),
        re.compile(
            rf"((?:bearer|Bearer|BEARER)\s{{1,8}})(?!(?i:rfc|oauth))(?:{_HAS_DIGIT}{_KEY}{{12,}}"
            rf"|[A-Za-z]{{20,}}+(?!{_KEY})|(?={_KEY}{{0,200}}?[a-z][A-Z]){_KEY}{{20,}}|{_KEY}{{40,}})"
        ),
    ),
    _Rule(
        "",
        ("basic",),
        re.compile(r"((?:basic|Basic|BASIC)\s{1,8})(?=[\w+/-]{0,200}[0-9=])[\w+/-]{14,}={0,2}"),
    ),
    _Rule(
        "",
        ("token ",),
        re.compile(r"((?:token|Token|TOKEN)\s{1,8})(?=[0-9a-f]{0,40}\d)[0-9a-f]{32,}"),
    ),
    _Rule(
        ":=",
        ("authorization",),
        re.compile(
            rf"((?:authorization|Authorization|AUTHORIZATION){_ASSIGNED}"
            r"(?i:bearer|basic|token|(?:api[_-]?)?key)[\s=]{1,8})"
            rf"(?:{_HAS_DIGIT}{_KEY}{{8,}}|(?={_KEY}{{0,200}}?[a-z][A-Z]){_KEY}{{8,}}|{_KEY}{{16,}})"
        ),
    ),
    # The plainer the name, the longer a text must be to be taken for a secret.
    _Rule(
        ":=",
        _KEY_MARKS,
        re.compile(
            rf"({_KEY_WORD}(?:(?:{_ENDS_KEY_NAME})(?:{_ASSIGNED}(?={_KEY}{{8}})"
            rf"|[\w-]{{1,20}}{_ASSIGNED}(?={_KEY}{{16}}))|(?<=(?i:token)){_ASSIGNED}(?={_KEY}{{12}})"
            rf"|(?<=(?i:authorization)){_ASSIGNED}(?={_KEY}{{16}})))"
            rf"{_TELLS}{_no_call(_KEY)}{_HAS_DIGIT}{_KEY}{{8,}}"
        ),
    ),
    # A password may be a plain word. Only where its name is in quotes as well, as in JSON, or in capitals, as
    # in settings, is a word taken for one; elsewhere it must have what words and code have not.
    _Rule(
        ":=",
        _PASSWORD_MARKS,
        re.compile(
            rf"({_PASSWORD}(?=\\{{0,8}}[\"'`]){_IN_QUOTES})(?!{_NO_PASSWORD})"
            rf"[\w.-]{{4,200}}+{_TO_END_OF_QUOTES}"
        ),
    ),
    _Rule(
        ":=",
        _PASSWORD_MARKS,
        re.compile(
            rf"({_PASSWORD}{_IN_QUOTES}){_TELLS}(?!{_NO_PASSWORD}|\$\w{{1,50}}[\"'`\\])"
            rf"(?={_QUOTED}{{0,200}}?[\d!@#$^&+~?]){_QUOTED}{{4,200}}+{_TO_END_OF_QUOTES}"
        ),
    ),
    _Rule(
        ":=",
        _PASSWORD_MARKS,
        re.compile(
            rf"({_PASSWORD}{_ASSIGNED}){_TELLS}(?![/~.$*%-])"
            rf"{_no_call(_BARE)}(?={_BARE}{{0,200}}?(?:\d|[!@#$^+~?]\w)){_BARE}{{6,}}"
        ),
    ),
    _Rule(
        "=",
        _PASSWORD_MARKS,
        re.compile(
            r"((?:PASSW(?:OR)?D|PASSPHRASE|_PWD|_PASS|;\s?P(?:assword|wd))=[\"']?)"
            rf"{_TELLS}(?![/~.$*%-]){_no_call(_BARE)}{_BARE}{{6,}}"
        ),
    ),
    _Rule(
        ":",
        ("://",),
        # A number before a bracket or comma is a port, and what follows is no part of the address.
        re.compile(r"(://)[^\s/:@\"'`<>\\()\[\]{},]{0,200}:(?!\d{1,5}[,)\]])[^\s/\"'`<>\\{}]{1,200}(?=@)"),
    ),
)
_BY_SIGNS = {
    signs: [rule for rule in _RULES if rule.signs == signs]
    for signs in dict.fromkeys(rule.signs for rule in _RULES)
}

_SECRET_NAME = re.compile(
    rf"{_KEY_NAME}|authorization|passw(?:or)?d|passphrase|(?:^|[_-])(?:pwd|pass)$", re.IGNORECASE
)


@lru_cache(maxsize=64)  # the rows of a query follow each other, and all hold its text
def without_secrets(text: str) -> str:
    """Return a text with `SECRET` in place of keys and passwords."""
    small = text.lower()
    for signs, rules in _BY_SIGNS.items():
        if not signs or signs[0] in text or signs[-1] in text:
            for rule in rules:
                for mark in rule.marks:
                    if mark in small:
                        text = rule.pattern.sub(rule.replacement, text)
                        break
    return text


def is_secret(name: str, value: object) -> bool:
    """Tell whether a value that has a name, as in JSON, is a secret as a whole."""
    if not value:
        return False
    if _SECRET_NAME.search(name):
        return True
    # Numbers of tokens and the tokens of a vocabulary have such names too: this one must look like a secret.
    if not isinstance(value, str) or not name.lower().endswith("token"):
        return False
    told = f"token={value}"
    return without_secrets(told) != told
