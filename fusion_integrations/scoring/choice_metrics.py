"""Compares choices from a closed set: the letter of an option, or a label such as "positive"."""

from __future__ import annotations

import re

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import (
    declared_answer,
    normalise,
    split_sentences,
    stated_results,
)

__all__ = ["choice_match", "label_match"]

_LETTER_ALONE = re.compile(r"\W*([A-H])\W*", re.IGNORECASE)
# "(b)", "B)", "B.", "B:"; a small letter before a dot or colon is more often the end of a word.
_LETTER_MARKED = re.compile(r"(?<![\w'.])(?:\(?([A-Ha-h])\)|([A-H])[.:](?!\w\.))")
_LETTER_NAMED = re.compile(r"\b(?:option|choice|letter)\s+[\"'(]?([A-H])\b", re.IGNORECASE)
# A capital alone; "A" is the article unless what follows rules that out.
_LETTER_CAPITAL = re.compile(
    r"(?<![\w'.])(?:([B-H])(?![\w'])|(A)(?=\s*(?:$|[^\w\s']|(?:because|since|as|is|or|and|seems)\b)))"
)
# What a declaration opens with, unless another letter follows at once ("A or B").
_LETTER_LEADING = re.compile(
    r"[\W_]*(?:(?:option|choice|letter)\s+)?[\"'(]?(?:([B-H])\b|(A)(?=\s*(?:$|[^\w\s']|(?:because|since|as)\b)))"
    r"(?!'\w)(?!\W*(?:or|and)?\W*[A-H]\b)",
    re.IGNORECASE,
)

# "The correct option is B", where no "answer" is declared.
_CHOICE_DECLARED = re.compile(
    r"\b(?:correct|right|best) (?:option|choice|letter|one) (?:is|would be)\b:?|\bI (?:choose|pick|select)\b",
    re.IGNORECASE,
)

# "B is correct", "(B) is the right one".
_LETTER_CALLED_RIGHT = re.compile(
    r"\b([A-H])\b\)? (?:is|must be|would be) (?:the )?(?:correct|right|true|best)\b", re.IGNORECASE
)
# A first line that is a letter, or an option ("B. Rome"), or goes on with its reason.
_OPENING = re.compile(
    r"\W*(?:(?:option|choice|letter)\s+)?[\"'(]?([A-H])(?:\W*$|[).]\s|\s*,?\s+(?:because|since)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_OPTION_LINE = re.compile(r"^[^\S\n]*\(?[A-H](?:[).:]\s|[^\w\n]*$)", re.IGNORECASE | re.MULTILINE)

_LABEL_SETS = (
    ("positive", "negative", "neutral", "mixed"),
    ("yes", "no"),
    ("true", "false"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
)


def choice_match(answer: str, reference: str) -> float:
    """Compare the letter chosen.

    An answer that declares nothing chooses the only letter it names, else the only one it calls right, else
    the one it opens with; several letters otherwise choose nothing.

    Args:
        answer: A cleaned answer.
        reference: A letter from A to H.

    Returns:
        1 if the answer chooses that letter and no other, else 0.

    Raises:
        LogSchemaError: If the reference is no such letter.
    """
    if not re.fullmatch("[A-Ha-h]", reference):
        message = f"Metric 'choice_match' needs one letter from A to H as reference, got '{reference}'."
        raise LogSchemaError(message)
    return float(_chosen_letters(answer) == {reference.upper()})


def _chosen_letters(answer: str) -> set[str]:
    declared = declared_answer(answer)
    if declared is None and (markers := list(_CHOICE_DECLARED.finditer(answer))):
        declared = answer[markers[-1].end() :]
    for sentence in split_sentences(declared or "")[:1]:
        leading = _LETTER_LEADING.match(sentence)
        letters = _upper(leading.groups()) if leading else _named_letters(sentence)
        if letters:
            return letters
    named = _named_letters(answer)
    if len(named) <= 1 or declared is not None:
        return named
    called_right = {letter.upper() for letter in _LETTER_CALLED_RIGHT.findall(answer)}
    if len(called_right) == 1:
        return called_right
    opening = _OPENING.match(answer)
    # A second option on a line of its own: the question's options, repeated.
    if opening and len(_OPTION_LINE.findall(answer)) <= 1:
        return {opening[1].upper()}
    return named


def _named_letters(text: str) -> set[str]:
    alone = _LETTER_ALONE.fullmatch(text)
    if alone:
        return _upper(alone.groups())
    patterns = (_LETTER_MARKED, _LETTER_NAMED, _LETTER_CAPITAL)
    return {
        letter
        for pattern in patterns
        for match in pattern.finditer(text)
        for letter in _upper(match.groups())
    }


def _upper(groups: tuple[str | None, ...]) -> set[str]:
    return {letter.upper() for letter in groups if letter}


def label_match(answer: str, reference: str) -> float:
    """Compare the one label that the answer commits to.

    The label is looked for in what is declared, then at the opening ("No, it is ..."), then anywhere. An
    answer that names several labels counts only if its first or last sentence states one as the result.

    Args:
        answer: A cleaned answer.
        reference: A label of a known set: sentiment, yes or no, true or false, or a weekday.

    Returns:
        1 if the answer commits to that label, else 0.

    Raises:
        LogSchemaError: If no known set has the label.
    """
    expected = reference.strip().casefold()
    labels = next((labels for labels in _LABEL_SETS if expected in labels), None)
    if labels is None:
        known = ", ".join(label for labels in _LABEL_SETS for label in labels)
        raise LogSchemaError(f"Metric 'label_match' knows no label '{reference}'. Use one of {known}.")
    return float(_committed_labels(answer, labels) == {expected})


def _committed_labels(answer: str, labels: tuple[str, ...]) -> set[str]:
    names = "|".join(labels)
    # "no" is also a determiner ("no doubt"): as an answer it stands before punctuation, "or", or the end.
    pattern = r"\b(yes\b|no(?=\s*(?:[^\w\s]|or\b|$)))" if "no" in labels else rf"\b({names})\b"
    named = re.compile(pattern, re.IGNORECASE)

    declared = split_sentences(declared_answer(answer) or "")
    found = _named_labels(named, declared[0]) if declared else set()
    if found:
        return found
    opening = re.match(
        rf"\W*({names})(?=\s*(?:[.,;:!\n]|$))(?!\W*(?:or\b|and\b)?\W*{pattern})", answer, re.IGNORECASE
    )
    if opening:
        return {opening[1].casefold()}
    found = _named_labels(named, answer)
    if len(found) > 1:
        found &= {normalise(result) for result in stated_results(answer)}
    return found


def _named_labels(named: re.Pattern[str], text: str) -> set[str]:
    return {match[1].casefold() for match in named.finditer(text)}
