"""Cheap features of a query's surface that an embedding hides: length, digits, options, code, language.

They matter as much to a router as the embedding does, and cost microseconds.
"""

from __future__ import annotations

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
_PATTERNS: dict[str, re.Pattern[str]] = {
    "has_letter_options": re.compile(r"(?m)^[^\S\n]*\(?[A-Ea-e][).:]\s"),
    "has_number_options": re.compile(r"(?m)^[^\S\n]*\(?[1-5][).:]\s"),
    "has_code_fence": re.compile(r"```|</?\w+>"),
    "has_function": re.compile(r"\bdef \w+|\bfunction\b|\breturn\b|\bclass \w+|\bassert\b"),
    "has_math_markup": re.compile(r"\\[a-z]+|\$[^$]+\$|\^|√|∑|∫"),
    "has_arithmetic": re.compile(r"\d\s*[-+*/\u00d7\u00f7=]\s*\d"),
    "has_money_or_percent": re.compile(r"[$€£%]"),
    "has_year": re.compile(r"\b(1[5-9]|20)\d\d\b"),
    "has_blank": re.compile(r"_{2,}|\.\.\.|…"),
    "has_passage": re.compile(r"(?i)\b(passage|context|article|paragraph|text):"),
    "asks_how_many": re.compile(r"(?i)\bhow (many|much|long|far|old)\b"),
    "asks_who": re.compile(r"(?i)\bwho(m|se)?\b"),
    "asks_when_or_where": re.compile(r"(?i)\b(when|where)\b"),
    "asks_why_or_how": re.compile(r"(?i)\b(why|explain|how (do|does|did|can|to))\b"),
    "asks_which": re.compile(r"(?i)\bwhich\b"),
    "asks_to_write": re.compile(r"(?i)\b(write|implement|generate|create|compose)\b"),
    "asks_to_classify": re.compile(r"(?i)\b(classify|sentiment|positive|negative|true or false|yes or no)\b"),
    "is_question": re.compile(r"\?\s*$"),
    "has_answer_format": re.compile(r"(?i)\banswer (with|in|only|yes|the)\b|\bonly\b"),
}

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LARGEST_NUMBER = 1e12

# How often words of a kind occur, per square root of the number of words.
_RATES: dict[str, re.Pattern[str]] = {
    "ratio_word_rate": re.compile(
        r"(?i)\b(?:times|twice|thrice|double|triple|half|third|quarter|fraction|percent|ratio)\b"
    ),
    "exchange_word_rate": re.compile(
        r"(?i)\b(?:remaining|left|rest|lost|gave|spent|sold|bought|added|removed|returned)\b"
    ),
    "comparison_rate": re.compile(r"(?i)\b(?:more|less|fewer|most|least) than\b|\bat (?:most|least)\b"),
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
    rows = [_features_of(text) for text in texts]
    whole = np.array(rows, dtype=np.float32).reshape(len(texts), len(TEXT_FEATURES))
    return whole[:, : _N_FEATURES[version]]


def _features_of(text: str) -> list[float]:
    n = max(len(text), 1)
    words = text.split()
    n_words = max(len(words), 1)
    counts = [
        np.log1p(len(text)) / 10,
        np.log1p(len(words)) / 8,
        np.log1p(len(re.findall(r"[.!?](?:\s|$)", text))) / 4,
        np.log1p(text.count("\n")) / 4,
        min(sum(map(len, words)) / n_words / 10, 2.0),
        sum(map(str.isdigit, text)) / n,
        sum(map(str.isupper, text)) / n,
        len(re.findall(r"[^\w\s]", text)) / n,
        sum(ord(character) > 127 for character in text) / n,
        np.log1p(len(re.findall(r"\d+", text))) / 4,
        len({word.casefold() for word in words}) / n_words,
    ]
    present = [float(pattern.search(text) is not None) for pattern in _PATTERNS.values()]
    return [float(value) for value in counts] + present + _number_features(text, n_words)


def _number_features(text: str, n_words: int) -> list[float]:
    numbers = _NUMBER.findall(text)
    # Digits beyond the bound change nothing, and a run of thousands of them is no number worth parsing.
    largest = max((float(number.replace(",", "")[:20]) for number in numbers), default=0.0)
    root = n_words**0.5
    return [
        float(np.log1p(min(largest, _LARGEST_NUMBER))) / 10,
        sum("." in number for number in numbers) / root,
        *(len(pattern.findall(text)) / root for pattern in _RATES.values()),
        text.count(",") / root / 2,
    ]
