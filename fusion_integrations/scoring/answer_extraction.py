"""Finds what an answer commits to, so that metrics score the result and not the words around it."""

from __future__ import annotations

import re
import unicodedata

__all__ = [
    "DECLARATION",
    "clean_answer",
    "declared_answer",
    "has_negation",
    "is_refusal",
    "normalise",
    "split_sentences",
    "stated_results",
]

_PLAIN_CHARACTERS = str.maketrans("\u2018\u2019\u201c\u201d\u2212\u2013\u2044\u00a0\u202f", "''\"\"--/  ")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_EMPHASIS = re.compile(r"\*\*|__|`|\\[()\[\]]")
_NEGATED_WORD = re.compile(
    r"(?:\bnot|n't)\s+(?:(?:option|the|an?)\s+)?[\"'($]*\w(?:[\w.,/-]*\w)?", re.IGNORECASE
)

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
# "The answer is 4", "Final answer: 4", "The answer to the question would be 4", "#### 4" (GSM8K's marker).
DECLARATION = re.compile(
    r"\banswer(?:\s+(?!is\b|was\b|are\b)[\w'-]+){0,6}?"
    r"\s*(?:\b(?:is|are|was|(?:would|should|must) be)\b\s*:?|[:=])|####",
    re.IGNORECASE,
)

_REFUSAL = re.compile(
    r"\W*(?:(?:i'm|im|i am)\s+(?:so |very |really )?(?:sorry|unable|not able)|sorry\b|i apologi[sz]e"
    r"|i\s+(?:can't|cannot|can not|couldn't|could not|don't|do not|won't|will not)"
    r"\s+(?:answer|help|assist|provide|determine|know|say|compute|calculate)|as an ai\b)",
    re.IGNORECASE,
)

# The dot of "1. Rome" or "B. a hat" at the start of a line ends no sentence.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!^\w\.)\s+|\n+", re.MULTILINE)
_VERB = re.compile(r"\b(?:is|are|was|were|be|equals)\b|[:=]", re.IGNORECASE)
_PREPOSITION = re.compile(r"\b(?:with|by)\b", re.IGNORECASE)
_AFTER_RESULT = re.compile(r"[;(]|\b(?:with|because|since|which|as)\b", re.IGNORECASE)
_KIND_OF_RESULT = re.compile(r"\W*(?:the\s+)?(?:letter|word|month)\b", re.IGNORECASE)
_AFTER_SUBJECT = re.compile(r"\s(?:is the|comes)\b", re.IGNORECASE)

_POSSESSIVE = re.compile(r"(?<=\w)'s\b(?!')")
_WORD = re.compile(r"[^\W_]+")
_SIGNED_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?[^\W_]+(?:[+#]{1,2}(?!\w))?")
_ARTICLES = frozenset({"a", "an", "the"})


def clean_answer(text: str, *, keeps_negated: bool = False) -> str:
    r"""Remove what hides the result: Markdown emphasis, LaTeX wrappers, typographic signs, negated words.

    Args:
        text: What a candidate wrote.
        keeps_negated: Whether a word after "not" stays. Else it goes: "not 5" says what the answer is not.

    Returns:
        The text without surrounding whitespace. `\boxed{}` stays.
    """
    text = unicodedata.normalize("NFC", text).translate(_PLAIN_CHARACTERS)
    text = _LATEX_TEXT.sub(r"\1", _FRACTION.sub(r"\1/\2", text))
    # Refusals consist of negations: "I do not know" must stay readable for `is_refusal`.
    text = _EMPHASIS.sub("", text).strip()
    return text if keeps_negated or is_refusal(text) else _NEGATED_WORD.sub(" ", text).strip()


def has_negation(text: str) -> bool:
    """Tell whether a text negates a word, as "not guilty" does."""
    return _NEGATED_WORD.search(text.translate(_PLAIN_CHARACTERS)) is not None


def normalise(text: str) -> str:
    """Casefold, drop accents, punctuation and articles, and join the words with single spaces.

    Text made of articles only is kept: "a" may be the letter asked for. So are the sign of a number and what
    ends names such as "C++": "-5" is not "5".

    Source:
        The answer normalisation of SQuAD (Rajpurkar et al. 2016), extended to accents and possessives.
    """
    folded = text.translate(_PLAIN_CHARACTERS).casefold()
    decomposed = unicodedata.normalize("NFKD", _POSSESSIVE.sub("", folded))
    words = _SIGNED_WORD.findall("".join(char for char in decomposed if not unicodedata.combining(char)))
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def split_sentences(text: str) -> list[str]:
    """Split at sentence ends and line breaks; parts without a letter or digit are left out."""
    return [part.strip() for part in _SENTENCE_END.split(text) if _WORD.search(part)]


def declared_answer(text: str) -> str | None:
    r"""Return what an answer explicitly declares.

    Args:
        text: An answer, after `clean_answer`.

    Returns:
        The content of the last `\boxed{}` if there is one, else all that follows the last "answer is",
        "answer:" or "####" with something behind it; None without a declaration.
    """
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1]).strip() or None
    for match in reversed(list(DECLARATION.finditer(text))):
        declared = text[match.end() :].strip()
        if _WORD.search(declared):
            return declared
    return None


def stated_results(text: str) -> list[str]:
    """Return the phrases that a short answer may state as its result.

    Args:
        text: An answer, after `clean_answer`.

    Returns:
        Of the first and the last sentence: the whole, what follows the last "is", ":" or the like, and the
        subject of "X is the ..." or "X comes ...". Questions state nothing.
    """
    sentences = [sentence for sentence in split_sentences(text) if not sentence.endswith("?")]
    results = []
    for sentence in dict.fromkeys(sentences[:1] + sentences[-1:]):
        results.append(sentence)
        markers = list(_VERB.finditer(sentence)) or list(_PREPOSITION.finditer(sentence))
        if markers:
            result = _AFTER_RESULT.split(sentence[markers[-1].end() :], maxsplit=1)[0]
            results += [result, _KIND_OF_RESULT.sub("", result, count=1)]
        subject, *rest = _AFTER_SUBJECT.split(sentence, maxsplit=1)
        if rest:
            results.append(subject)
    return [result.strip() for result in results]


def is_refusal(text: str) -> bool:
    """Tell whether an answer begins by declining and then declares nothing."""
    return _REFUSAL.match(text) is not None and declared_answer(text) is None
