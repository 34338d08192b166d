"""Compares mathematical results: numbers, expressions, equations, intervals, sets and matrices."""

from __future__ import annotations

import re
from fractions import Fraction

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring._math_process import are_equal
from fusion_integrations.scoring.answer_extraction import DECLARATION, clean_answer, is_refusal

__all__ = ["math_match", "math_result"]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# Bounded, as everything here: a model in a loop opens thousands of formulas and closes none.
_FORMULA = re.compile(
    r"\$\$(.{1,400}?)\$\$|\$([^$]{1,400})\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n")
_VERB = re.compile(r"\b(?:is|are|equals|be)\b|:(?!(?<=\d:)\d)", re.IGNORECASE)  # not that of a ratio, 3:2
_EMPHASIS = re.compile(r"\*\*|__|`")
_SIGNS = str.maketrans("\u2212\u2013\u2044\u00a0\u202f\u00d7\u00b7", "--/  **")
# Separators of thousands in text and in LaTeX. "1, 234" and "(1,234)" stay: those are two numbers or a pair.
_THOUSANDS = re.compile(r"(?<![\d.(\[{,])(\d{1,3})((?:(?:,|\{,\}|,?\\[,!])\d{3})+)(?![\d\]}]|,\d|\))")
_CURRENCY = re.compile(r"\\?[$\u20ac\u00a3](?=\s*-?[\d.])")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
_MAX_CHARS = 400  # longer than any result; what is longer is a derivation
_MAX_DIGITS = 100

# Relative, as in numeric_match.
_TOLERANCE = Fraction(1, 10**6)


def math_match(answer: str, reference: str) -> float:
    r"""Compare mathematical results by value: "\frac{1}{2}" is "0.5", and "(x+1)^2" is "x^2+2x+1".

    Units and degree signs do not count, and "50\%" is both "50" and "0.5".

    Args:
        answer: What the candidate wrote, as it is.
        reference: The result, alone, or a solution whose last `\boxed{}` or "####" gives it.

    Returns:
        1 if the result that the answer commits to equals the reference, else 0.

    Raises:
        LogSchemaError: If the reference is blank or cannot be read.
        MetricFailedError: If the comparison failed for a reason of its own.
        MissingDependencyError: If the two are not simply numbers or alike, and math-verify is not installed.

    Source:
        Symbolic comparison by math-verify (Hugging Face), the answer format by MATH (Hendrycks et al. 2021).
    """
    expected = _expected(reference)
    if not expected:
        raise LogSchemaError(f"Metric 'math_match' needs the right result as reference, got '{reference}'.")
    result = None if is_refusal(clean_answer(answer)) else math_result(answer)
    if result is None:
        return 0.0
    if _compact(result) == _compact(expected):
        return 1.0
    numbers = [_plain_number(text) for text in (expected, result)]
    if numbers[0] is not None and numbers[1] is not None:
        return float(abs(numbers[1] - numbers[0]) <= _TOLERANCE * abs(numbers[0]))
    return float(are_equal(expected, result))


def _expected(reference: str) -> str:
    # A solution commits to its result as an answer does; of a bare result no part is left out.
    is_solution = _BOX.search(reference) or DECLARATION.search(reference)
    stated = math_result(reference) if is_solution else None
    return stated or _tidy(reference.translate(_SIGNS)[: _MAX_CHARS + 1])


def math_result(text: str) -> str | None:
    r"""Return the result that a solution commits to.

    Args:
        text: A solution, with or without LaTeX.

    Returns:
        Content of the last `\boxed{}`; else what is declared ("The answer is ...", "####"), of that the first
        formula if it has one; else the last formula; else what the last sentence ends with. None if that is
        blank or too long to be a result.
    """
    text = text.translate(_SIGNS)
    stated = _last_boxed(text)
    if stated is None:
        stated = _stated(text)
    if len(stated) > _MAX_CHARS:
        return None
    return _tidy(stated) or None


def _tidy(stated: str) -> str:
    result = _THOUSANDS.sub(_without_separators, _CURRENCY.sub("", stated.strip())).strip(" \t\n$")
    return result.rstrip(".,;: ")


def _last_boxed(text: str) -> str | None:
    r"""Return what the last `\boxed` encloses; braces may be nested."""
    starts = list(_BOX.finditer(text))
    for start in reversed(starts):
        depth = 1
        for position in range(start.end(), min(len(text), start.end() + _MAX_CHARS + 1)):
            if text[position] in "{}" and text[position - 1] != "\\":
                depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return text[start.end() : position]
    return None


def _stated(text: str) -> str:
    text = _EMPHASIS.sub("", text)
    for match in reversed(list(DECLARATION.finditer(text))):
        declared = text[match.end() :].strip()
        if declared:
            formula = _FORMULA.search(_SENTENCE_END.split(declared, maxsplit=1)[0])
            return _inside(formula) if formula else _SENTENCE_END.split(declared, maxsplit=1)[0]
    formulas = list(_FORMULA.finditer(text))
    if formulas:
        return _inside(formulas[-1])
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    return _VERB.split(sentences[-1][-_MAX_CHARS - 1 :])[-1] if sentences else ""


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)


def _without_separators(match: re.Match[str]) -> str:
    return match[1] + re.sub(r"\D", "", match[2])


def _compact(text: str) -> str:
    return re.sub(r"\s+|\\(?:left|right|[,!;: ])", "", text.replace(r"\dfrac", r"\frac"))


def _plain_number(text: str) -> Fraction | None:
    is_plain = len(text) <= _MAX_DIGITS and _NUMBER.fullmatch(text)
    return Fraction(text.rstrip(".")) if is_plain else None
