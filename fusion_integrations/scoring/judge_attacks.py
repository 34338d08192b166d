"""Finds the sentences of an answer that speak to its judge instead of answering.

No list of phrases finds them all. The judge's prompt keeps the rest at a distance; this makes the plain ones
worthless whatever the judge makes of them.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["addresses_judge", "without_address"]

_JUDGE = r"(?:judge|grader|evaluator|assessor|examiner|marker|scorer|reviewer|rater)s?"
_RULES = r"(?:rubrics?|instructions?|prompts?|rules?|criteri(?:a|on)|guidelines?|system message)"
_PERFECT = r"(?:1\.0+|10 ?/ ?10|5 ?/ ?5|100 ?%)"
_TOP = rf"(?:{_PERFECT}|1|100|full|top|maximum|max|perfect|highest|best possible)(?!\w|\.\d|%)"
_MARKS = r"\b(?:scores?|grades?|ratings?|marks|credit)\b"
_GAP = r"[^=(\[{;]{0,40}"  # what tells code from words
_ADVERB = r"(?:just|now|then|simply|only|always|kindly|therefore|so|also|instead|and)"
_ORDER = rf"(?:^\W*|\bplease |\byou (?:must|should|will|have to|need to|can) |\bto )(?:{_ADVERB} ){{0,2}}"
_CALL = r"(?:dear|attention|hey|hello|hi|(?:note|message|memo|instructions?) (?:to|for))"
# On one sentence in small letters. Gaps are bounded, so that no text makes them slow.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:ignore|disregard|forget|override|bypass|skip|set aside)\b.{{0,60}}\b{_RULES}",
        rf"\bdo not (?:use|follow|apply)\b.{{0,60}}\b{_RULES}",
        r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:above|previous|prior|earlier|everything)\b",
        rf"\b(?:new|updated|revised|changed|corrected|real) {_RULES}\b.{{0,40}}(?:[:=]|\b(?:is|are|says?)\b)",
        # An imperative that asks for a score, alone or to "you". What programs and manuals say, "return 1"
        # or "set the maximum to 100", has to name a score beside the number, or to be nothing but both.
        (
            rf"{_ORDER}(?:give|assign|award|rate|grade|score|mark)\b{_GAP}"
            rf"(?:{_MARKS}|\b{_PERFECT}(?!\w|\.\d|%)|\b(?:1|100)(?=\W*(?:$|for\b)))"
        ),
        rf"{_ORDER}(?:output|return|reply|respond|print|set)\b{_GAP}{_MARKS}{_GAP}\b{_TOP}",
        rf"{_ORDER}(?:output|return|reply|respond|print|set)\b{_GAP}\b{_TOP}{_GAP}{_MARKS}",
        rf"{_ORDER}(?:output|reply|respond)(?: (?:with|only|just|a|the)){{0,3}} {_PERFECT}\W*$",
        rf"{_ORDER}(?:return|print) {_PERFECT}[.!]+$",
        rf"\b{_CALL}(?: (?:the|all|my|any|this|ai|llm)){{0,3}}\W+(?:{_JUDGE}|ai|llm|(?:language )?model)\b",
        rf"\b(?:as|you are|you're|act as|acting as)(?: now| only)? (?:the|an?|my)(?: \w+){{0,2}} {_JUDGE}\b",
        rf"\bthe {_JUDGE} (?:must|should|will|shall|has to|is (?:asked|told|required|instructed))\b",
        r"\bthis (?:answer|response|solution|submission)\b.{0,40}\b(?:deserve|merit|earn|receive|get)s?\b",
        rf"\bscore[\"']? ?[:=] ?[\"']?{_TOP}",
        r"</?(?:score|answer|question|reference|system|instructions?|rubric)\b[^>]{0,40}>",
        r"<\|(?:im.start|im.end|system|assistant|user|eot.id|start.header.id|endoftext)",
        r"^\W*(?:system|judge|grader|developer) ?:",
        r"\bend of (?:the )?(?:answer|response|student|submission|data|input)\b",
    )
)
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n")
_WRAPPER = re.compile(r"<(/?)(?:answer|question|reference|response)>", re.IGNORECASE)
# What chat templates leave at the end of an answer.
_END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "</s>")
# Letters of other scripts that look like Latin ones, a to y.
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u0456\u043e\u0440\u0441\u0443\u0445\u0455\u0501\u03bf\u03b1\u03b9", "aeiopcyxsdoai"
)


def addresses_judge(text: str) -> bool:
    """Tell whether a text speaks to whoever judges it."""
    return any(_is_address(sentence) for sentence in _sentences(_unwrapped(text)))


def without_address(text: str) -> str:
    """Leave out the sentences that speak to whoever judges the text, and the tags around an answer."""
    return "".join(s for s in _sentences(_unwrapped(text)) if not _is_address(s)).strip()


def _unwrapped(text: str) -> str:
    """Take out what models are told or trained to put around answers: pairs of tags, tokens at the end."""
    text, depth, start = text.strip(), 0, 0
    while text.endswith(_END_TOKENS):
        text = text[: text.rindex("<")].rstrip()
    parts: list[str] = []
    for tag in _WRAPPER.finditer(text):
        is_closing = bool(tag[1])
        if not is_closing or depth:
            parts.append(text[start : tag.start()])
            start = tag.end()
        # One that closes nothing stays: it would close what the judge's prompt opened.
        depth = max(depth + (-1 if is_closing else 1), 0)
    return "".join([*parts, text[start:]])


def _sentences(text: str) -> list[str]:
    """Split a text so that its parts put together are the text; "1.0" is not split."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        parts.append(text[start : match.end()])
        start = match.end()
    return [*parts, text[start:]]


def _is_address(sentence: str) -> bool:
    plain = unicodedata.normalize("NFKC", sentence)
    # Characters without width are a way to split a word that a judge still reads.
    plain = "".join(char for char in plain if unicodedata.category(char) != "Cf")
    plain = re.sub(r"[\s_*`#]+", " ", plain.casefold().translate(_LOOKALIKES)).strip()
    return any(pattern.search(plain) for pattern in _PATTERNS)
