"""What `fusion demo` shows of agents: the small local models with tools, and honestly what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool

from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.protocols import ChatClient
from fusion_integrations.scoring.metrics import score
from fusion_integrations.types import Query
from langchain_fusion.middleware import FusionModelMiddleware
from langchain_fusion.prompted_tools import PromptedToolsChatModel

__all__ = ["AGENT_EXAMPLES", "AGENT_QUESTIONS", "show_agent"]

# Two need a sum, one of them without saying so, three a capital, and one no tool at all.
AGENT_QUESTIONS: tuple[Query, ...] = (
    Query.from_text("What is 17 + 25?", reference="42", metric="numeric_match"),
    Query.from_text("What is the capital of Peru?", reference="Lima", metric="cover_match"),
    Query.from_text("What is the capital of Zambia?", reference="Lusaka", metric="cover_match"),
    Query.from_text("Which city is the capital of Japan?", reference="Tokyo", metric="cover_match"),
    Query.from_text(
        "A farmer has 128 hens and buys 64 more. How many hens are there?",
        reference="192",
        metric="numeric_match",
    ),
    Query.from_text("What color is grass?", reference="green", metric="cover_match"),
)

# Without them, the small models answer in words whatever the prompt says.
AGENT_EXAMPLES: tuple[BaseMessage, ...] = (
    HumanMessage("What is 2 + 3?"),
    AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "example-1"}]),
    ToolMessage("5", tool_call_id="example-1"),
    AIMessage("2 + 3 is 5."),
    HumanMessage("What is the capital of Portugal?"),
    AIMessage("", tool_calls=[{"name": "capital_of", "args": {"country": "Portugal"}, "id": "example-2"}]),
    ToolMessage("Lisbon", tool_call_id="example-2"),
    AIMessage("The capital of Portugal is Lisbon."),
)

_CAPITALS = {"japan": "Tokyo", "peru": "Lima", "portugal": "Lisbon", "zambia": "Lusaka"}
_MOST_MODEL_CALLS = 3


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def capital_of(country: str) -> str:
    """Look up the capital of a country."""
    return _CAPITALS.get(country.lower(), f"No capital of '{country}' is known here.")


def show_agent(
    pipeline: FusionPipeline,
    clients: Mapping[str, ChatClient],
    *,
    questions: Sequence[Query] = AGENT_QUESTIONS,
    route: str | None = None,
    max_tokens: int = 60,
) -> Iterator[str]:
    """Let an agent with two tools answer questions, the router choosing its model, and count what happened.

    None of the models was trained to call tools: they are shown two examples. The router's logs hold no tool
    calls: it chooses by how well the models answer without.

    Args:
        pipeline: Routes among the models; all its candidates are taken to be able to use tools.
        clients: The models, by `Candidate.model`.
        questions: What to ask, each with reference and metric.
        route: Id of the candidate that shall answer. None: the router chooses.
        max_tokens: Upper bound on the tokens of each answer.

    Yields:
        The transcript, line by line as it happens, and last the counts.

    Raises:
        LogSchemaError: If a question has no metric, or one that cannot read its reference.
        UnknownCandidateError: If a candidate has no client.
    """
    models = {
        name: PromptedToolsChatModel(
            client=client, temperature=0, max_tokens=max_tokens, examples=list(AGENT_EXAMPLES)
        )
        for name, client in clients.items()
    }
    middleware: list[AgentMiddleware[Any, Any, Any]] = [
        ModelCallLimitMiddleware(run_limit=_MOST_MODEL_CALLS),
        FusionModelMiddleware(_with_tools(pipeline), models=models),
    ]
    own_model = next(iter(models.values()))  # the router's choice takes its place
    agent = create_agent(own_model, tools=[add, capital_of], middleware=middleware)
    config: RunnableConfig = {"configurable": {"fusion_route": route} if route else {}}
    counts: Counter[str] = Counter()
    for question in questions:
        yield f"Q: {question.text}"
        answer = ""
        for update in agent.stream(
            {"messages": [HumanMessage(question.text)]}, config, stream_mode="updates"
        ):
            for message in _messages(update):
                yield from _lines(message)
                counts.update(_happened(message))
                answer = _final_answer(message)
        performance = score(answer, metric=str(question.metric), reference=str(question.reference))
        counts["right"] += performance == 1
    yield (
        f"{len(questions)} questions, {counts['answers']} model calls: {counts['valid']} valid tool calls, "
        f"{counts['invalid']} invalid; {counts['right']} of {len(questions)} final answers right."
    )


def _with_tools(pipeline: FusionPipeline) -> FusionPipeline:
    """Return the pipeline with candidates that declare the capability to use tools."""
    router = pipeline.router.current
    weights = router.weights
    able = tuple(replace(each, capabilities=each.capabilities | {"tools"}) for each in weights.candidates)
    return FusionPipeline(
        replace(router, weights=replace(weights, candidates=able)),
        policy=pipeline.policy,
        prices=pipeline.prices,
        store=pipeline.store,
        thoughts=pipeline.thoughts,
        source=pipeline.source,
    )


def _messages(update: Mapping[str, Mapping[str, Sequence[BaseMessage]] | None]) -> Iterator[BaseMessage]:
    """Give the messages that a step of the agent added; a step of a middleware may add none."""
    for change in update.values():
        yield from (change or {}).get("messages", ())


def _lines(message: BaseMessage) -> Iterator[str]:
    if isinstance(message, ToolMessage):
        yield f"   {message.name} returned: {message.text}"
        return
    decision = message.response_metadata.get("fusion")
    speaker = decision["candidate"] if decision else "the agent"
    if message.text:
        yield f"   {speaker} said: {str(message.text).strip()!r}"
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            arguments = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
            yield f"   {speaker} called {call['name']}({arguments})"
        for wrong in message.invalid_tool_calls:
            yield f"   no valid call: {wrong['error']}"


def _happened(message: BaseMessage) -> dict[str, int]:
    if not isinstance(message, AIMessage) or "fusion" not in message.response_metadata:
        return {}
    return {"answers": 1, "valid": len(message.tool_calls), "invalid": len(message.invalid_tool_calls)}


def _final_answer(message: BaseMessage) -> str:
    """Return what counts as the answer if nothing follows: no invalid call, and not the agent's own words."""
    if not isinstance(message, AIMessage) or "fusion" not in message.response_metadata:
        return ""
    return "" if message.invalid_tool_calls else str(message.text)
