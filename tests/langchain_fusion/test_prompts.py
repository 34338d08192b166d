from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import ChatPromptTemplate
from pydantic import ValidationError

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from langchain_fusion import ChatClientModel, ThoughtTemplatePrompt

SUM = "What is 5 plus 6?"
UNLIKE = "Zebras?"


class CountingEmbedder:
    """A hash embedder that notes the texts and the thread of each call."""

    def __init__(self) -> None:
        self._embedder = HashEmbedder()
        self.calls: list[list[str]] = []
        self.threads: list[threading.Thread] = []

    @property
    def identity(self):
        return self._embedder.identity

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        self.threads.append(threading.current_thread())
        return self._embedder.embed(texts)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def prompter(embedder: CountingEmbedder, make_template_store) -> ThoughtPrompter:
    prompter = ThoughtPrompter(make_template_store(embedder))
    embedder.calls.clear()
    embedder.threads.clear()
    return prompter


@pytest.fixture
def prompt(prompter: ThoughtPrompter) -> ThoughtTemplatePrompt:
    return ThoughtTemplatePrompt(prompter=prompter)


@pytest.mark.parametrize(
    "query",
    [
        SUM,
        [HumanMessage(SUM)],
        [("user", SUM)],
        ChatPromptTemplate.from_messages([("user", "{q}")]).invoke({"q": SUM}),
    ],
)
def test_invoke_when_query_takes_any_form_then_templates_stand_before_it(prompt, prompter, query):
    edit = prompter.guide([SUM])[0].prompt
    assert edit.user_prefix

    value = prompt.invoke(query)

    assert isinstance(value, ChatPromptValue)
    assert value.to_messages() == [HumanMessage(f"{edit.user_prefix}{SUM}{edit.user_suffix}")]


async def test_invoke_when_conversation_has_more_then_the_rest_stays(prompt):
    image = {"type": "image", "url": "https://example.org/abacus.png"}
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Hello!"),
        AIMessage("Hi."),
        HumanMessage([{"type": "text", "text": SUM}, image]),
    ]
    given = [message.model_copy(deep=True) for message in messages]

    for value in (prompt.invoke(messages), await prompt.ainvoke(messages)):
        *rest, last = value.to_messages()
        assert rest == messages[:3]
        assert last.content[1] == image
        assert last.content[0]["text"].rstrip().endswith(SUM) or SUM in last.content[0]["text"]
        assert last.content[0]["text"] != SUM
    assert messages == given


async def test_invoke_when_nothing_is_similar_then_the_query_stays_as_it_is(make_template_store):
    prompt = ThoughtTemplatePrompt(prompter=ThoughtPrompter(make_template_store(), min_similarity=0.99))

    assert prompt.invoke(UNLIKE).to_messages() == [HumanMessage(UNLIKE)]
    assert (await prompt.ainvoke(UNLIKE)).to_messages() == [HumanMessage(UNLIKE)]


async def test_batch_when_several_queries_then_embeds_once_and_keeps_the_order(prompt, embedder):
    expected = [prompt.invoke(SUM), prompt.invoke(UNLIKE)]
    embedder.calls.clear()

    assert prompt.batch([SUM, UNLIKE]) == expected
    assert await prompt.abatch([UNLIKE, SUM]) == expected[::-1]
    assert embedder.calls == [[SUM, UNLIKE], [UNLIKE, SUM]]


async def test_batch_when_a_query_is_blank_then_only_that_one_fails(prompt):
    for values in (
        prompt.batch([SUM, " ", UNLIKE], return_exceptions=True),
        await prompt.abatch([SUM, " ", UNLIKE], return_exceptions=True),
    ):
        assert [type(value) for value in values] == [ChatPromptValue, EmptyQueryError, ChatPromptValue]
    with pytest.raises(EmptyQueryError):
        prompt.batch([SUM, " "])


def test_batch_when_empty_then_is_empty(prompt):
    assert prompt.batch([]) == []


@pytest.mark.parametrize("query", [" ", [AIMessage("Hello!")]])
async def test_invoke_when_query_has_no_text_then_raises(prompt, query):
    with pytest.raises(EmptyQueryError):
        prompt.invoke(query)
    with pytest.raises(EmptyQueryError):
        await prompt.ainvoke(query)


async def test_ainvoke_when_awaited_then_searches_off_the_loop(prompt, embedder):
    await prompt.ainvoke(SUM)
    await prompt.abatch([SUM, UNLIKE])

    assert len(embedder.threads) == 2
    assert threading.main_thread() not in embedder.threads


async def test_chain_when_it_streams_then_the_model_is_asked_with_templates(prompt, prompter):
    client = ScriptedChatClient("scripted", answer=lambda messages: "It is 11.")
    chain = prompt | ChatClientModel(client=client) | StrOutputParser()

    assert "".join(chain.stream(SUM)) == "It is 11."
    assert "".join([piece async for piece in chain.astream(SUM)]) == "It is 11."
    assert {call[0].content for call in client.calls} == {prompt.invoke(SUM).to_messages()[0].content}


def test_prompt_when_traced_then_is_one_chain_run(prompt, run_log):
    prompt.invoke(SUM, {"callbacks": [run_log], "run_name": "thoughts"})
    prompt.batch([SUM, UNLIKE], {"callbacks": [run_log]})

    assert [name for _, name in run_log.kinds()] == ["thoughts"] + ["ThoughtTemplatePrompt"] * 2
    assert [kind for kind, _ in run_log.ends] == ["chain"] * 3


def test_prompt_when_asked_for_its_types_then_tells(prompt):
    assert prompt.OutputType is ChatPromptValue
    assert prompt.get_graph().nodes


def test_prompt_when_a_field_is_misspelt_then_is_refused(prompter):
    with pytest.raises(ValidationError, match="promter"):
        ThoughtTemplatePrompt(prompter=prompter, promter=None)
