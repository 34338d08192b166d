"""Compares words: the reference as the whole result, or covered by it."""

from __future__ import annotations

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import (
    declared_answer,
    normalise,
    split_sentences,
    stated_results,
)

__all__ = ["cover_match", "exact_match"]


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
    results = stated_results(answer if declared is None else declared)
    return float(any(normalise(result) in forms for result in results))


def _accepted_forms(reference: str) -> set[str]:
    return {normalise(form) for form in reference.split("|")}


def _unreadable(reference: str, *, metric: str) -> str:
    return f"Metric '{metric}' needs a reference of words, forms separated by '|', got '{reference}'."
