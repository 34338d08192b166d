"""Cheap features of a query's surface that an embedding hides: length, digits, options, code, language.

They matter as much to a router as the embedding does, and cost microseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray

__all__ = ["TEXT_FEATURES", "TEXT_FEATURES_VERSION", "text_features"]

# An artifact names the version it was trained with. A version only adds features at the end, so that routers
# of earlier ones still get theirs: raise it when features are added.
TEXT_FEATURES_VERSION = 2
_N_FEATURES = {1: 30, 2: 36}

# A query is hostile input: no pattern may read on over a run of characters from every place in that run.
# Beside each pattern: strings one of which is in the folded text wherever the pattern matches, so that most
# searches, which are slow on long texts, need not be made. Texts are searched with a newline before them:
# looking for one is many times as fast as looking for the start of a line.
_PATTERNS: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "has_letter_options": (re.compile(r"\n[^\S\n]*\(?[A-Ea-e][).:]\s"), (")", ".", ":")),
    "has_number_options": (re.compile(r"\n[^\S\n]*\(?[1-5][).:]\s"), ("1", "2", "3", "4", "5")),
    "has_code_fence": (re.compile(r"```|</?\w+>"), ("```", "<")),
    "has_function": (
        re.compile(r"\bdef \w+|\bfunction\b|\breturn\b|\bclass \w+|\bassert\b"),
        ("def ", "function", "return", "class ", "assert"),
    ),
    "has_math_markup": (re.compile(r"\\[a-z]+|\$[^$]+\$|\^|√|∑|∫"), ("\\", "$", "^", "√", "∑", "∫")),
    "has_arithmetic": (
        re.compile(r"\d\s*[-+*/\u00d7\u00f7=]\s*\d"),
        ("+", "-", "*", "/", "\u00d7", "\u00f7", "="),
    ),
    "has_money_or_percent": (re.compile(r"[$€£%]"), ("$", "€", "£", "%")),
    "has_year": (re.compile(r"\b(1[5-9]|20)\d\d\b"), ("15", "16", "17", "18", "19", "20")),
    "has_blank": (re.compile(r"_{2,}|\.\.\.|…"), ("__", "...", "…")),
    "has_passage": (
        re.compile(r"(?i)\b(passage|context|article|paragraph|text):"),
        ("passage:", "context:", "article:", "paragraph:", "text:"),
    ),
    "asks_how_many": (re.compile(r"(?i)\bhow (many|much|long|far|old)\b"), ("how ",)),
    "asks_who": (re.compile(r"(?i)\bwho(m|se)?\b"), ("who",)),
    "asks_when_or_where": (re.compile(r"(?i)\b(when|where)\b"), ("when", "where")),
    "asks_why_or_how": (
        re.compile(r"(?i)\b(why|explain|how (do|does|did|can|to))\b"),
        ("why", "explain", "how "),
    ),
    "asks_which": (re.compile(r"(?i)\bwhich\b"), ("which",)),
    "asks_to_write": (
        re.compile(r"(?i)\b(write|implement|generate|create|compose)\b"),
        ("write", "implement", "generate", "create", "compose"),
    ),
    "asks_to_classify": (
        re.compile(r"(?i)\b(classify|sentiment|positive|negative|true or false|yes or no)\b"),
        ("classify", "sentiment", "positive", "negative", "true or false", "yes or no"),
    ),
    "is_question": (re.compile(r"\?\s*$"), ("?",)),
    "has_answer_format": (re.compile(r"(?i)\banswer (with|in|only|yes|the)\b|\bonly\b"), ("answer ", "only")),
}
_PATTERNS_AND_HINTS = tuple(_PATTERNS.values())

_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_NUMBER = re.compile(r"\d+")
_PUNCTUATION = re.compile(r"[^\w\s]")
_ASCII = re.compile(r"[\x00-\x7f]+")
_ASCII_DIGITS = b"0123456789"
_ASCII_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASCII_PUNCTUATION = "".join(_PUNCTUATION.findall("".join(map(chr, range(128))))).encode("ascii")

_DECIMAL = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LARGEST_NUMBER = 1e12

# How often words of a kind occur, per square root of the number of words; with hints as above.
_RATIO_WORDS = "times|twice|thrice|double|triple|half|third|quarter|fraction|percent|ratio"
_EXCHANGE_WORDS = "remaining|left|rest|lost|gave|spent|sold|bought|added|removed|returned"
_RATES: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "ratio_word_rate": (re.compile(rf"(?i)\b(?:{_RATIO_WORDS})\b"), tuple(_RATIO_WORDS.split("|"))),
    "exchange_word_rate": (re.compile(rf"(?i)\b(?:{_EXCHANGE_WORDS})\b"), tuple(_EXCHANGE_WORDS.split("|"))),
    "comparison_rate": (
        re.compile(r"(?i)\b(?:more|less|fewer|most|least) than\b|\bat (?:most|least)\b"),
        (" than", "at most", "at least"),
    ),
}

TEXT_FEATURES: tuple[str, ...] = (
    "log_characters",
    "log_words",
    "log_sentences",
    "log_lines",
    "mean_word_length",
    "digit_share",
    "upper_share",
    "punctuation_share",
    "non_ascii_share",
    "log_numbers",
    "distinct_word_share",
    *_PATTERNS,
    # since version 2: what makes a question with numbers hard
    "log_largest_number",
    "decimal_rate",
    *_RATES,
    "comma_rate",
)


def text_features(texts: Sequence[str], *, version: int = TEXT_FEATURES_VERSION) -> FloatArray:
    """Compute the surface features of texts.

    Args:
        texts: n texts.
        version: Which features, 1 or 2.

    Returns:
        Array (n, 30) for version 1, (n, 36) for version 2, float32, roughly within [0, 1]; columns follow
        `TEXT_FEATURES`.

    Raises:
        InvalidPolicyError: If there is no such version.
    """
    if version not in _N_FEATURES:
        message = f"There is no version {version} of the text features. Choose one of {sorted(_N_FEATURES)}."
        raise InvalidPolicyError(message)
    whole = np.empty((len(texts), len(TEXT_FEATURES)), dtype=np.float32)
    for row, text in enumerate(texts):
        whole[row] = _features_of(text)
    return whole[:, : _N_FEATURES[version]]


def _features_of(text: str) -> list[float]:
    n = max(len(text), 1)
    words = text.split()
    n_words = max(len(words), 1)
    folded = hinting = text.casefold()
    if not text.isascii():
        # Patterns that ignore case take dotted and dotless i for i; folding alone leaves them be.
        hinting = folded.replace("i\u0307", "i").replace("\u0131", "i")
    n_digits, n_upper, n_punctuation, n_non_ascii = _character_counts(text)
    # Without a digit there is no number, and only then is the search for one worth sparing.
    n_numbers = len(_NUMBER.findall(text)) if n_digits else 0
    return [
        math.log1p(len(text)) / 10,
        math.log1p(len(words)) / 8,
        math.log1p(len(_SENTENCE_END.findall(text))) / 4,
        math.log1p(text.count("\n")) / 4,
        min(len("".join(words)) / n_words / 10, 2.0),
        n_digits / n,
        n_upper / n,
        n_punctuation / n,
        n_non_ascii / n,
        math.log1p(n_numbers) / 4,
        len(set(folded.split())) / n_words,
        *_flags(text, hinting),
        *_number_features(text, hinting, n_words, has_digits=n_digits > 0),
    ]


def _character_counts(text: str) -> tuple[int, int, int, int]:
    """Count digits, upper-case letters, punctuation and characters beyond ASCII.

    Deleting from bytes is many times faster than looking at each character; only what is beyond ASCII is.
    """
    ascii_part = text.encode("ascii", "ignore")
    n = len(ascii_part)
    n_digits = n - len(ascii_part.translate(None, _ASCII_DIGITS))
    n_upper = n - len(ascii_part.translate(None, _ASCII_UPPER))
    n_punctuation = n - len(ascii_part.translate(None, _ASCII_PUNCTUATION))
    if n < len(text):
        rest = _ASCII.sub("", text)
        n_digits += sum(map(str.isdigit, rest))
        n_upper += sum(map(str.isupper, rest))
        n_punctuation += len(_PUNCTUATION.findall(rest))
    return n_digits, n_upper, n_punctuation, len(text) - n


def _flags(text: str, hinting: str) -> list[float]:
    """Say of each pattern whether it occurs, 1 or 0."""
    # Written out: calling a function for every pattern takes longer than most of the searches.
    flags, lines = [], f"\n{text}"
    for pattern, hints in _PATTERNS_AND_HINTS:
        found = None
        for hint in hints:
            if hint in hinting:
                found = pattern.search(lines)
                break
        flags.append(0.0 if found is None else 1.0)
    return flags


def _number_features(text: str, hinting: str, n_words: int, *, has_digits: bool) -> list[float]:
    numbers = _DECIMAL.findall(text) if has_digits else []
    # Digits beyond the bound change nothing, and a run of thousands of them is no number worth parsing.
    largest = max([float(number.replace(",", "")[:20]) for number in numbers], default=0.0)
    root = n_words**0.5
    return [
        math.log1p(min(largest, _LARGEST_NUMBER)) / 10,
        sum(["." in number for number in numbers]) / root,
        *(
            len(pattern.findall(text)) / root if any(map(hinting.__contains__, hints)) else 0.0
            for pattern, hints in _RATES.values()
        ),
        text.count(",") / root / 2,
    ]
