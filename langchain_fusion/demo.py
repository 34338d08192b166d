"""What `fusion demo` shows of LangChain: a streaming LCEL chain over the models that really run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from fusion_integrations.demo.walkthrough import DemoStage
from langchain_fusion.chat_models import FusionChatModel
from langchain_fusion.clients import ChatClientModel

__all__ = ["show"]

_QUESTIONS = (
    "What is the capital of Portugal?",
    "Tom walked to the lake with his dog. They ate bread and cheese.\nWhat did Tom eat with the bread?",
    "Is this review positive or negative? I would buy this kettle again at once.",
    "A farmer has 12 hens and buys 5 more. How many hens are there?",
)


def show(stage: DemoStage) -> Iterator[str]:
    """Ask a few questions through `prompt | FusionChatModel | parser`.

    Args:
        stage: The trained pipeline and the running models.

    Yields:
        Lines for people.
    """
    models = {name: ChatClientModel(client=client) for name, client in stage.clients.items()}
    model = FusionChatModel(pipeline=stage.pipeline, models=models)
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    chain = prompt | model | StrOutputParser()
    pieces = list(chain.stream({"question": _QUESTIONS[0]}))
    answer_text = "".join(pieces).strip()
    yield f"prompt | FusionChatModel | StrOutputParser streamed {len(pieces)} pieces: {answer_text}"
    for question in _QUESTIONS:
        answer = reduce(add, (prompt | model).stream({"question": question}))
        fusion = answer.response_metadata["fusion"]
        cost = fusion["cost_usd"]
        yield f"Q: {question}"
        yield f"A: {str(answer.content).strip()}"
        yield f"   by {fusion['candidate']}, {_usd(cost)}: {fusion['reason']}"


def _usd(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"{cost:.2e} USD (nominal)"
