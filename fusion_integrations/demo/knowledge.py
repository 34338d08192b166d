"""Three small collections of facts and questions about them, for routing among query engines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from fusion_integrations.types import Candidate, Query

__all__ = ["KNOWLEDGE_TOOLS", "KnowledgeQuestion", "knowledge_documents", "knowledge_questions"]

Part = Literal["train", "test"]

KNOWLEDGE_TOOLS: tuple[Candidate, ...] = (
    Candidate(id="atlas", kind="tool", description="Countries: capitals, continents, currencies."),
    Candidate(id="laboratory", kind="tool", description="Chemical elements and their symbols."),
    Candidate(id="library", kind="tool", description="Books and plays and who wrote them."),
)

# For each kind of fact: which tool knows it, the sentence it is kept as, and questions for it. The two parts
# share neither facts nor wording.
_FACTS: dict[str, tuple[str, str, dict[Part, tuple[str, ...]]]] = {
    "capitals": (
        "atlas",
        "The capital of {0} is {1}.",
        {
            "train": ("What is the capital of {0}?", "Name the capital city of {0}."),
            "test": ("Which city is the seat of government of {0}?",),
        },
    ),
    "continents": (
        "atlas",
        "{0} lies on the continent {1}.",
        {"train": ("On which continent is {0}?",), "test": ("{0} belongs to which part of the world?",)},
    ),
    "elements": (
        "laboratory",
        "{0} is the chemical symbol of {1}.",
        {
            "train": ("Which element has the symbol {0}?", "What does {0} stand for in chemistry?"),
            "test": ("In the periodic table, what is {0}?",),
        },
    ),
    "authors": (
        "library",
        "{0} was written by {1}.",
        {"train": ("Who wrote {0}?", "Name the author of {0}."), "test": ("Whose work is {0}?",)},
    ),
}


@dataclass(frozen=True, kw_only=True)
class KnowledgeQuestion:
    """A question and the tool whose documents hold the answer; the tool is never shown to the router.

    Attributes:
        query: The question, with its reference answer.
        tool_id: The tool that knows.
    """

    query: Query
    tool_id: str


def knowledge_documents() -> dict[str, list[str]]:
    """Return one sentence a fact, by the id of the tool that knows it."""
    documents: dict[str, list[str]] = {tool.id: [] for tool in KNOWLEDGE_TOOLS}
    for kind, (tool_id, sentence, _) in _FACTS.items():
        for part in ("train", "test"):
            documents[tool_id] += [
                sentence.format(subject, answer.split("|")[0]) for subject, answer in _data()[part][kind]
            ]
    return {tool_id: sorted(set(sentences)) for tool_id, sentences in documents.items()}


def knowledge_questions(part: Part) -> list[KnowledgeQuestion]:
    """Return the questions of one part, in a fixed order."""
    return [
        KnowledgeQuestion(
            query=Query.from_text(wording.format(subject), task=kind, reference=answer, metric="cover_match"),
            tool_id=tool_id,
        )
        for kind, (tool_id, _, wordings) in _FACTS.items()
        for subject, answer in _data()[part][kind]
        for wording in wordings[part]
    ]


@cache
def _data() -> dict[str, dict[str, list[tuple[str, str]]]]:
    file = resources.files(f"{__package__}.tasks").joinpath("data", "facts.json")
    data: dict[str, dict[str, list[tuple[str, str]]]] = json.loads(file.read_text(encoding="utf-8"))
    return data
