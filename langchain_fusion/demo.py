"""What `fusion demo` shows of LangChain: a streaming LCEL chain and an agent, over models that really run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from fusion_integrations.demo.models import SMOLLM2
from fusion_integrations.demo.walkthrough import DemoStage
from fusion_integrations.errors import InvalidPolicyError
from langchain_fusion.chat_models import FusionChatModel
from langchain_fusion.clients import ChatClientModel
from langchain_fusion.demo_agent import AGENT_QUESTIONS, show_agent
from langchain_fusion.prompts import ThoughtTemplatePrompt
from langchain_fusion.retrievers import ThoughtTemplateRetriever

__all__ = ["show"]

_QUESTIONS = (
    "What is the capital of Portugal?",
    "Tom walked to the lake with his dog. They ate bread and cheese.\nWhat did Tom eat with the bread?",
    "Is this review positive or negative? I would buy this kettle again at once.",
    "A farmer has 12 hens and buys 5 more. How many hens are there?",
)

_PINNED = "gemma3:few-shot"


def show(stage: DemoStage) -> Iterator[str]:
    """Ask through `prompt | FusionChatModel | parser`, then with templates, then let an agent try.

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
    yield from _guide(stage, models)
    yield "create_agent with FusionModelMiddleware and two tools; no model here was trained to call tools:"
    yield from show_agent(stage.pipeline, stage.clients, questions=AGENT_QUESTIONS[::2])
    yield f"The same agent, pinned to {_PINNED} by its config:"
    yield from show_agent(stage.pipeline, stage.clients, questions=AGENT_QUESTIONS[:3], route=_PINNED)


def _guide(stage: DemoStage, models: Mapping[str, ChatClientModel]) -> Iterator[str]:
    """Show what templates a question gets, whoever the router would choose."""
    thoughts = stage.pipeline.thoughts
    if thoughts is None:
        raise InvalidPolicyError("The demo's pipeline has no thought templates to show.")
    question = _QUESTIONS[0]
    for document in ThoughtTemplateRetriever(store=thoughts.store, k=2).invoke(question):
        found = document.metadata
        yield f"ThoughtTemplateRetriever: {found['similarity']:.2f} like {found['query'][:50]!r}"
        yield f"   {document.page_content[:160]}"
    answer = (ThoughtTemplatePrompt(prompter=thoughts) | models[SMOLLM2]).invoke(question)
    yield f"ThoughtTemplatePrompt | {SMOLLM2}: {str(answer.text).strip()[:160]}"


def _usd(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"{cost:.2e} USD (nominal)"
