"""Decide what of a written text may be kept: it must have a template's length and not give an answer away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Literal

from fusion_integrations.scoring.answer_extraction import (
    clean_answer,
    declared_answer,
    split_sentences,
    stated_results,
)
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments

__all__ = ["Rejection", "find_rejection", "own_answers", "shorten"]

Rejection = Literal["too_short", "too_long", "leaked"]

# An answer of more words than this is an explanation; a template may share words with it.
_MAX_ANSWER_WORDS = 8

# Answers with a meaning of their own, as in "there is no trick".
_COMMON_WORDS = frozenset({"yes", "no", "true", "false"})

# The dot of "1. Read it" ends no sentence, at the start of a line or within one.
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!^\w\.)(?<!^\d\d\.)(?<![.!?:;]\s\d\.)(?<![.!?:;]\s\d\d\.)(?<!e\.g\.)(?<!i\.e\.)\s+|\n+",
    re.MULTILINE,
)
# The number of a step, in front of what is to be done.
_STEP_NUMBER = re.compile(
    r"(?:^[ \t]*|(?<=[.!?:;]\s))(?<!answer:\s)(?:step\s+)?(\d{1,2})[.):]\s", re.IGNORECASE | re.MULTILINE
)
# Where the reasons of a declared answer begin: "23 because ...", "B) a hat", "Paris, the capital".
_REASONS = re.compile(r"[;(\n)]|[,:]\s|\b(?:because|since|as|which|with|so)\b", re.IGNORECASE)

_DIGIT_SEPARATOR = re.compile(r"(?<=\d)[,'\u2019\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_LEADING_ARTICLE = re.compile(r"^\s*A\s+(?=\w)")
# Not "A", which within a text may be an option.
_ARTICLE = re.compile(r"\b(?:an?|An|[Tt]he)\s+(?=\w)")
_SLASH = re.compile(r"(?<=[^\W\d_])(?:\s+/\s+|/)(?=[^\W\d_])")
# A number and its unit are two words: "23cm".
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")

# Before what is declared: "the correct answer would be (B)", "choose option B", "the last letter is e". What
# is offered is not declared: "answer with A, B or C", "choose yes if ..., no if ...".
_DECLARED = (
    r" (?:answer|option|choice|letter|result|choose|pick|select)s?"
    r"(?: (?!(?:or|either|whether|[a-h]) )\S+){{0,4}}?"
    r" {answer} (?!(?:\S+ ){{0,2}}(?:or|if|when|unless) )"
)


def own_answers(reference: str | None, responses: Collection[str]) -> tuple[str, ...]:
    """Return what a template of a query must not tell.

    Args:
        reference: The right answer as its metric reads it, alternatives separated by "|"; None if unknown.
        responses: The answers the template is written from, used where there is no reference.

    Returns:
        Their words in lower case, without repeats; none if the answers are long texts that declare no result.
    """
    found = [_plain_answer(form) for form in (reference or "").split("|")]
    if not any(found):
        results = [_plain_answer(result) for response in responses for result in _results(response)]
        found = [result for result in results if len(result.split()) <= _MAX_ANSWER_WORDS]
    return tuple(dict.fromkeys(answer for answer in found if answer))


def shorten(text: str, *, max_sentences: int, is_cut: bool = False) -> str:
    """Keep the first sentences of a text, each once: small models repeat themselves until they are stopped.

    Args:
        text: What the summariser wrote.
        max_sentences: How many to keep.
        is_cut: Whether the summariser ran out of tokens: then its last sentence, unless it is the only one,
            is left out.

    Returns:
        The sentences, joined by spaces; a numbered step counts as one.
    """
    lines = "\n".join(line.strip() for line in text.splitlines())
    parts = [part for part in _SENTENCE_END.split(lines) if _WORD.search(part)]
    whole = parts[:-1] if is_cut and len(parts) > 1 else parts
    return " ".join(list(dict.fromkeys(whole))[:max_sentences])


def find_rejection(
    text: str, *, query: str, answers: Collection[str], arguments: ThoughtTemplateTrainingArguments
) -> Rejection | None:
    """Tell why a template must not be kept.

    An answer counts as leaked where it stands in the template and not in the query, or is declared in words
    such as "the answer is ...". A word that the query itself offers ("positive or negative"), a lone letter
    and "no" may be named.

    Args:
        text: The template.
        query: The query it was written from.
        answers: As `own_answers` gives them.
        arguments: The limits of length.

    Returns:
        The first reason found, or None.
    """
    n_words = len(text.split())
    if n_words < arguments.min_words:
        return "too_short"
    if n_words > arguments.max_words:
        return "too_long"
    template, asked = f" {_plain(_without_step_numbers(text))} ", f" {_plain(query)} "
    for answer in answers:
        if f" {answer} " not in template:
            continue
        is_offered = f" {answer} " in asked or _is_common(answer)
        if not is_offered or _is_declared(answer, text):
            return "leaked"
    return None


def _is_common(answer: str) -> bool:
    """Tell whether an answer is also an ordinary word: a lone letter, as in "a number", or "no"."""
    return answer in _COMMON_WORDS or (len(answer) == 1 and not answer.isdigit())


def _is_declared(answer: str, text: str) -> bool:
    # Of a long answer its first words will do.
    beginning = " ".join(answer.split()[:_MAX_ANSWER_WORDS])
    declared = re.compile(_DECLARED.format(answer=re.escape(beginning)))
    return any(declared.search(f" {_plain(sentence)} ") for sentence in split_sentences(text))


def _results(response: str) -> list[str]:
    """Return what an answer without a reference states as its result."""
    text = clean_answer(response)
    declared = split_sentences(declared_answer(text) or "")
    if declared:
        return [_REASONS.split(declared[0].lstrip("([\"' "), maxsplit=1)[0]]
    return stated_results(text) if len(text.split()) <= _MAX_ANSWER_WORDS else []


def _without_step_numbers(text: str) -> str:
    """Remove the numbers of a list that counts from 1: they are no answers."""
    n_steps = 0

    def remove(match: re.Match[str]) -> str:
        nonlocal n_steps
        if int(match.group(1)) != n_steps + 1:
            return match.group(0)
        n_steps += 1
        return " "

    return _STEP_NUMBER.sub(remove, text)


def _plain_answer(text: str) -> str:
    """Reduce an answer to its words; "A cat" is a cat, a lone "A" is a letter."""
    return _plain(_LEADING_ARTICLE.sub("", text))


def _plain(text: str) -> str:
    """Reduce a text to its words, so that the same answer reads the same: "1,200.0" is 1200, "(B)." is b."""
    joined = _DIGIT_SEPARATOR.sub("", _SLASH.sub(" or ", _ARTICLE.sub("", text)))
    decomposed = unicodedata.normalize("NFKD", joined).casefold()
    words = _WORD.findall("".join(char for char in decomposed if not unicodedata.combining(char)))
    return " ".join(word.rstrip("0").rstrip(".") if "." in word else word for word in words)
