"""Compares numbers: the one an answer declares, else the last one it names."""

from __future__ import annotations

import re
from fractions import Fraction

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import declared_answer, split_sentences

__all__ = ["numeric_match"]

_NUMBER_WORDS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
}
_DIGITS = re.compile(
    r"(?<![\w.])(?P<sign>-)?[$\u20ac\u00a3]?"
    r"(?:(?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    # Powers of ten as programs and as people write them: 6e23, 6 x 10^23, 6 \times 10^{23}.
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\w)"
    r"|\s?(?:[x*\u00d7]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?(?P<power>[-+]?\d{1,3})(?!\d)\}?)?)"
)
_WORD_NUMBER = re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
# Beyond twenty a number in words has parts, and its last part is not its value.
_LARGE_WORD_NUMBER = re.compile(
    r"\btwenty[- ]\w|\b(?:thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million)\b",
    re.IGNORECASE,
)
# More digits than any answer needs, and fewer than Python refuses to convert.
_MAX_NUMBER_LENGTH = 100

# What may follow a declared number: a calculation (its result comes later), or a list (declares nothing).
_CALCULATION = re.compile(
    r"\s*(?:[-+*/x\u00d7\u00f7^]|times\b|plus\b|minus\b|divided by\b)\s*\d", re.IGNORECASE
)
_LIST = re.compile(r"\s*(?:,\s*(?:or|and)?|or|and)\s*-?\$?\d", re.IGNORECASE)

_LATEX_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!])(?=\d{3})")
# Before it, the solutions of GSM8K give their steps.
_GSM8K_MARK = "####"

# Relative; references are whole numbers or rounded to at least six digits.
_TOLERANCE = Fraction(1, 10**6)


def numeric_match(answer: str, reference: str) -> float:
    """Compare the declared number, else the last one.

    Args:
        answer: A cleaned answer.
        reference: Text with one number, or a solution that declares its number last, as GSM8K's do: "#### 7".

    Returns:
        1 if the numbers agree to six digits, else 0.

    Raises:
        LogSchemaError: If the reference does not hold exactly one number.
    """
    expected = _numbers(reference.rpartition(_GSM8K_MARK)[2])
    if len(expected) != 1:
        message = f"Metric 'numeric_match' needs a reference with one number, got '{reference}'."
        raise LogSchemaError(message)
    target = expected[0][0]
    found = _committed_number(answer)
    return float(found is not None and abs(found - target) <= _TOLERANCE * abs(target))


def _committed_number(answer: str) -> Fraction | None:
    declared = declared_answer(answer)
    for sentence in split_sentences(declared or ""):
        if _numbers(sentence):
            return _declared_number(sentence)
    numeric_sentences = [sentence for sentence in split_sentences(answer) if _numbers(sentence)]
    return _result(numeric_sentences[-1]) if numeric_sentences else None


def _declared_number(sentence: str) -> Fraction | None:
    """Read "7 of the 9 apples" as 7, "3 x 4, which is 12" as 12, and "3, 4 or 5" as nothing."""
    if "=" in sentence:
        return _result(sentence)
    (value, start, end), *others = _numbers(sentence)
    rest = sentence[end:]
    if not others or (len(sentence[:start].split()) <= 1 and not _CALCULATION.match(rest)):
        return None if _LIST.match(rest) else value
    return _result(sentence)


def _result(sentence: str) -> Fraction:
    """Return the number after the last "=", else the last number."""
    after_equals = _numbers(sentence.rpartition("=")[2])
    return after_equals[0][0] if "=" in sentence and after_equals else _numbers(sentence)[-1][0]


def _numbers(text: str) -> list[tuple[Fraction, int, int]]:
    """Return every number with its start and end; numbers in words only if there are none in digits."""
    text = _LATEX_SEPARATOR.sub(",", text)
    in_digits = [match for match in _DIGITS.finditer(text) if len(match[0]) <= _MAX_NUMBER_LENGTH]
    if in_digits:
        return [(_value(match), match.start(), match.end()) for match in in_digits]
    if _LARGE_WORD_NUMBER.search(text):
        return []
    return [
        (Fraction(_NUMBER_WORDS[match[0].lower()]), match.start(), match.end())
        for match in _WORD_NUMBER.finditer(text)
    ]


def _value(match: re.Match[str]) -> Fraction:
    if match["decimal"]:
        power = int(match["exponent"] or match["power"] or 0)
        value = Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** power
    else:
        # Nothing over zero is a number; the top is the best reading left.
        value = Fraction(int(match["top"]), int(match["bottom"]) or 1)
    value += int(match["whole"] or 0)
    return -value if match["sign"] else value
