"""Compares words: the reference as the whole result, covered by it, or shared in part."""

from __future__ import annotations

import re
from collections import Counter

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import (
    declared_answer,
    normalise,
    split_sentences,
    stated_results,
)

__all__ = ["cover_match", "exact_match", "token_f1", "word_coverage"]

# Regular English endings; of a doubled consonant one goes ("jogging"), and "y" returns ("flies").
_ENDING = re.compile(r"(?:'s|ing|ied|ies|es|ed|s)$")
_DOUBLED = re.compile(r"([bdfgklmnprtvz])\1$")
_MIN_STEM = 2


def cover_match(answer: str, reference: str) -> float:
    """Look for the reference as whole words in what is declared, else near the start or the end.

    An answer states its result in its first or last two sentences. Looking further would reward copying a
    passage that contains the result somewhere.

    Args:
        answer: A cleaned answer.
        reference: Accepted forms, separated by "|".

    Returns:
        1 if a form occurs, else 0.

    Raises:
        LogSchemaError: If a form has no letter or digit.

    Source:
        The "cover" exact match of the paper's world-knowledge tasks.
    """
    forms = _accepted_forms(reference)
    if "" in forms:
        raise LogSchemaError(_unreadable(reference, metric="cover_match"))
    text = declared_answer(answer)
    if text is None:
        sentences = split_sentences(answer)
        text = " ".join(sentences[:2] + sentences[2:][-2:])
    padded = f" {normalise(text)} "
    return float(any(f" {form} " in padded for form in forms))


def exact_match(answer: str, reference: str) -> float:
    """Compare the normalised result, alone or in a short sentence such as "The last letter is e".

    Args:
        answer: A cleaned answer.
        reference: Accepted forms, separated by "|".

    Returns:
        1 if the result is one of the forms, else 0.

    Raises:
        LogSchemaError: If a form has no letter or digit.
    """
    forms = _accepted_forms(reference)
    if "" in forms:
        raise LogSchemaError(_unreadable(reference, metric="exact_match"))
    declared = declared_answer(answer)
    text = answer if declared is None else declared
    results = [text, *stated_results(text)]  # all of it too: it may be a title that looks like a question
    return float(any(normalise(result) in forms for result in results))


def token_f1(answer: str, reference: str) -> float:
    """Measure the words that the result and the reference share.

    Args:
        answer: A cleaned answer. What it declares counts ("The answer is ..."), else all of it.
        reference: Accepted forms, separated by "|"; the best fitting counts.

    Returns:
        Harmonic mean of precision and recall over normalised words, repeats counted, from 0 to 1.

    Raises:
        LogSchemaError: If a form has no letter or digit.

    Source:
        The F1 of SQuAD (Rajpurkar et al. 2016).
    """
    forms = _accepted_forms(reference)
    if "" in forms:
        raise LogSchemaError(_unreadable(reference, metric="token_f1"))
    declared = declared_answer(answer)
    words = Counter(normalise(answer if declared is None else declared).split())
    return max(_f1(words, Counter(form.split())) for form in forms)


def _f1(words: Counter[str], expected: Counter[str]) -> float:
    n_shared = (words & expected).total()
    return 2 * n_shared / (words.total() + expected.total()) if n_shared else 0.0


def word_coverage(answer: str, reference: str) -> float:
    """Measure how many of the wanted words a text uses, in any regular English form.

    Args:
        answer: A cleaned answer.
        reference: The words, separated by commas.

    Returns:
        The share of the words that occur, from 0 to 1.

    Raises:
        LogSchemaError: If a word has no letter or digit.

    Source:
        The concept coverage of CommonGen (Lin et al. 2020), with endings cut instead of a lemmatiser.
    """
    wanted = [normalise(word) for word in reference.split(",")]
    if "" in wanted:
        raise LogSchemaError(
            f"Metric 'word_coverage' needs a reference of words separated by commas, got '{reference}'."
        )
    used = {stem for word in normalise(answer).split() for stem in _stems(word)}
    n_used = sum(all(_stems(part) & used for part in word.split()) for word in wanted)
    return n_used / len(wanted)


def _stems(word: str) -> set[str]:
    """Return the word and what may be left of it without its ending; a stem of two words is in both sets."""
    stem = _ENDING.sub("", word)
    if len(stem) < _MIN_STEM:
        return {word}
    if word.endswith(("ied", "ies")):
        return {word, f"{stem}y", f"{stem}ie"}
    return {word, stem, f"{stem}e", _DOUBLED.sub(r"\1", stem)} if stem != word else {word}


def _accepted_forms(reference: str) -> set[str]:
    return {normalise(form) for form in reference.split("|")}


def _unreadable(reference: str, *, metric: str) -> str:
    return f"Metric '{metric}' needs a reference of words, forms separated by '|', got '{reference}'."
