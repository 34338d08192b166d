from __future__ import annotations

import asyncio
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from pydantic import ValidationError

from fusion_integrations import BALANCE, FusionPipeline, RoutingPolicy
from fusion_integrations.errors import (
    EmptyQueryError,
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.testing import ScriptedChatClient, tiny_prices
from fusion_integrations.types import Candidate
from langchain_fusion import ChatClientModel, FusionChatModel

SUM = "What is 3 plus 4?"
PROSE = "Describe old trains kindly."
ONLY_WRITER = RoutingPolicy(allowed=frozenset({"writer"}))


class _WholeModel(BaseChatModel):
    """Reports usage, and cannot stream."""

    model: str

    @property
    def _llm_type(self) -> str:
        return "counted"

    def _fields(self) -> dict:
        usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
        metadata = {"model_name": self.model}
        return {"content": "counted", "usage_metadata": usage, "response_metadata": metadata}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**self._fields()))])


class _CountedModel(_WholeModel):
    """Reports usage when streaming too."""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        yield ChatGenerationChunk(message=AIMessageChunk(**self._fields(), chunk_position="last"))


def _pin(route: str) -> dict:
    return {"configurable": {"fusion_route": route}}


# Answers and decisions


def test_invoke_when_queries_differ_then_each_goes_to_its_model(fusion):
    routed = fusion()

    assert routed.model.invoke(SUM).content == f"tiny-math heard: {SUM}"
    assert routed.model.invoke(PROSE).content == f"tiny-prose heard: {PROSE}"
    assert (len(routed.math.calls), len(routed.prose.calls)) == (1, 1)


def test_invoke_when_answered_then_message_carries_decision_cost_and_the_models_name(fusion, pipeline):
    answer = fusion().model.invoke(SUM)

    decision = answer.response_metadata["fusion"]
    assert answer.response_metadata["model_name"] == "tiny-math"
    assert {**decision, "cost_usd": None} == {**pipeline.plan(SUM).decision.to_json(), "cost_usd": None}
    # 5 words in at 1 USD and 7 words out at 2 USD a million tokens
    assert decision["cost_usd"] == pytest.approx(5 * 1e-6 + 7 * 2e-6)


def test_invoke_when_prices_are_unknown_then_cost_is_unknown(fusion, router):
    model = fusion(pipeline=FusionPipeline(router)).model

    assert model.invoke(SUM).response_metadata["fusion"]["cost_usd"] is None


async def test_answers_when_asked_in_any_way_then_agree(fusion):
    model, expected = fusion().model, f"tiny-math heard: {SUM}"

    assert (await model.ainvoke(SUM)).content == expected
    assert "".join(chunk.content for chunk in model.stream(SUM)) == expected
    assert "".join([chunk.content async for chunk in model.astream(SUM)]) == expected
    assert model.batch([SUM, PROSE])[0].content == expected
    assert (await model.abatch([PROSE, SUM]))[1].content == expected
    assert str(model.stream_events(SUM, version="v3").text) == expected
    assert (await (await model.astream_events(SUM, version="v3"))).text == expected
    assert model.generate([[HumanMessage(SUM)]]).generations[0][0].text == expected
    assert (await model.agenerate([[HumanMessage(SUM)]])).generations[0][0].text == expected
    assert model._generate([HumanMessage(SUM)]).generations[0].text == expected
    assert (await model._agenerate([HumanMessage(SUM)])).generations[0].text == expected
    assert "".join(chunk.text for chunk in model._stream([HumanMessage(SUM)])) == expected
    assert "".join([chunk.text async for chunk in model._astream([HumanMessage(SUM)])]) == expected


async def test_decision_when_answered_in_any_way_then_is_there_once(fusion):
    model = fusion().model

    chunks = list(model.stream(SUM))
    async_chunks = [chunk async for chunk in model.astream(SUM)]
    event_stream = model.stream_events(SUM, version="v3")
    async_message = await (await model.astream_events(SUM, version="v3"))

    for streamed in (chunks, async_chunks):
        assert ["fusion" in chunk.response_metadata for chunk in streamed] == [False] * 7 + [True]
        assert streamed[-1].chunk_position == "last"
        whole = sum(streamed[1:], start=streamed[0])
        assert whole.response_metadata["fusion"]["candidate"] == "calculator"
        assert whole.response_metadata["model_name"] == "tiny-math"
    assert event_stream.output.response_metadata["fusion"]["candidate"] == "calculator"
    assert async_message.response_metadata["fusion"]["candidate"] == "calculator"


def test_invoke_when_model_caches_then_cached_message_stays_free_of_the_decision(fusion):
    routed, cache = fusion(), InMemoryCache()
    routed.model.models["tiny-math"].cache = cache

    routed.model.invoke(SUM)
    again = routed.model.invoke(SUM, _pin("calculator"))

    (stored,) = cache._cache.values()
    assert "fusion" not in stored[0].message.response_metadata
    assert again.response_metadata["fusion"]["outcome"] == "pinned"
    assert again.response_metadata["fusion"]["cost_usd"] == 0.0
    assert len(routed.math.calls) == 1


# Prompt modes and histories


def test_invoke_when_prompt_mode_reasons_then_callers_messages_stay_as_they_are(fusion):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [SystemMessage("Be brief."), HumanMessage([{"type": "text", "text": PROSE}, image])]
    before = [message.model_copy(deep=True) for message in messages]
    routed = fusion()

    routed.model.invoke(messages, _pin("thinker"))

    assert messages == before
    system, user = routed.prose.calls[0]
    assert system.content == "Be brief."
    assert user.content.startswith(PROSE)
    assert len(user.content) > len(PROSE)


def test_invoke_when_another_model_answered_before_then_gets_no_provider_parts(fusion):
    seen = []

    class Noting(ChatClientModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            seen.extend(messages)
            return super()._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    models = {name: Noting(client=ScriptedChatClient(name)) for name in ("tiny-math", "tiny-prose")}
    model = fusion(models=models).model
    first = model.invoke(PROSE)
    first.content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Old."},
    ]

    model.invoke([HumanMessage(PROSE), first, HumanMessage(SUM)], _pin("calculator"))
    model.invoke([HumanMessage(PROSE), first, HumanMessage(PROSE)], _pin("writer"))

    assert seen[2].content == "Old."
    assert seen[5].content == first.content


def test_invoke_when_query_has_no_text_then_raises(fusion):
    with pytest.raises(EmptyQueryError):
        fusion().model.invoke([HumanMessage(" ")])


# Construction


def test_construct_when_a_candidates_model_is_missing_then_names_both(fusion):
    models = {"tiny-math": ChatClientModel(client=ScriptedChatClient("tiny-math"))}

    with pytest.raises(UnknownCandidateError, match=r"'thinker' needs model 'tiny-prose'.*'tiny-math'"):
        fusion(models=models)


def test_construct_when_policy_leaves_the_candidate_out_then_needs_no_model(fusion):
    models = {"tiny-math": ChatClientModel(client=ScriptedChatClient("tiny-math"))}
    policy = RoutingPolicy(allowed=frozenset({"calculator"}))

    model = fusion(models=models, policy=policy).model

    assert model.invoke(PROSE).response_metadata["fusion"]["outcome"] == "only_eligible"
    with pytest.raises(UnknownCandidateError, match="tiny-prose"):
        model.invoke(PROSE, {"configurable": {"fusion_policy": ONLY_WRITER}})


def test_construct_when_a_candidate_is_a_tool_then_says_so(fusion, router):
    first, *others = router.candidates
    tool = Candidate(id=first.id, kind="tool")
    weights = replace(router.weights, candidates=(tool, *others))

    with pytest.raises(UnknownCandidateError, match="'calculator' is a tool"):
        fusion(pipeline=FusionPipeline(replace(router, weights=weights)))


@pytest.mark.parametrize(
    "field", [{"cache": True}, {"rate_limiter": InMemoryRateLimiter(requests_per_second=1)}, {"polcy": None}]
)
def test_construct_when_a_setting_would_be_ignored_then_refuses(fusion, field):
    with pytest.raises(ValidationError, match=next(iter(field))):
        fusion(**field)


def test_construct_when_a_standard_parameter_has_no_effect_then_says_so_in_the_log(fusion, caplog):
    with caplog.at_level(logging.WARNING, logger="langchain_fusion"):
        model = fusion(timeout=3, api_key="secret").model

    assert "['api_key', 'timeout'] have no effect" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in repr(model)


def test_profile_when_models_differ_then_is_what_all_can_do(fusion):
    profiles = {
        "tiny-math": {"tool_calling": True, "structured_output": True, "max_input_tokens": 100, "name": "a"},
        "tiny-prose": {
            "tool_calling": True,
            "structured_output": False,
            "max_input_tokens": 200,
            "name": "b",
        },
    }
    models = {
        name: ChatClientModel(client=ScriptedChatClient(name), profile=profile)
        for name, profile in profiles.items()
    }

    profile = fusion(models=models).model.profile

    assert profile == {"tool_calling": True, "structured_output": False, "max_input_tokens": 100}


def test_profile_when_a_model_has_none_then_nothing_is_promised(fusion):
    assert fusion().model.profile is None


# Settings of calls


def test_settings_when_given_to_the_router_then_reach_the_model_and_the_call_wins(fusion):
    seen = []

    class Noting(ChatClientModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append({"stop": stop, **kwargs})
            return super()._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    models = {name: Noting(client=ScriptedChatClient(name)) for name in ("tiny-math", "tiny-prose")}

    fusion(models=models).model.invoke(SUM)
    model = fusion(models=models, temperature=0.5, max_tokens=3, stop=["x"]).model
    model.invoke(SUM)
    model.invoke(SUM, stop=["y"], max_tokens=4)

    assert seen == [
        {"stop": None},
        {"stop": ["x"], "temperature": 0.5, "max_tokens": 3},
        {"stop": ["y"], "temperature": 0.5, "max_tokens": 4},
    ]


def test_invoke_when_called_with_a_model_name_then_points_to_pinning(fusion):
    with pytest.raises(InvalidPolicyError, match="route"):
        fusion().model.invoke(SUM, model="gpt-5")


def test_config_when_it_pins_a_route_then_that_candidate_answers(fusion):
    answer = fusion().model.invoke(SUM, _pin("writer"))

    assert answer.content == f"tiny-prose heard: {SUM}"
    assert answer.response_metadata["fusion"]["outcome"] == "pinned"


def test_config_when_it_brings_a_policy_then_that_policy_decides(fusion):
    answer = fusion().model.invoke(SUM, {"configurable": {"fusion_policy": ONLY_WRITER}})

    assert answer.response_metadata["fusion"]["candidate"] == "writer"
    assert answer.response_metadata["fusion"]["policy"] == ONLY_WRITER.fingerprint


def test_config_when_a_route_is_unknown_then_names_the_known_ones(fusion):
    with pytest.raises(UnknownCandidateError, match="'calculator'"):
        fusion().model.invoke(SUM, _pin("gpt-7"))


def test_config_specs_when_listed_then_tell_route_and_policy(fusion):
    model = fusion().model

    assert [spec.id for spec in model.config_specs] == ["fusion_route", "fusion_policy"]
    assert model.config_schema().model_json_schema()


def test_configurable_fields_when_policy_is_made_one_then_config_sets_it(fusion):
    model = fusion().model.configurable_fields(policy=ConfigurableField(id="my_policy"))

    answer = model.invoke(SUM, {"configurable": {"my_policy": ONLY_WRITER}})

    assert answer.response_metadata["fusion"]["candidate"] == "writer"


def test_policy_when_set_on_the_model_then_replaces_the_pipelines(fusion):
    answer = fusion(policy=BALANCE).model.invoke(SUM)

    assert answer.response_metadata["fusion"]["policy"] == BALANCE.fingerprint


def test_policy_when_it_excludes_everybody_then_raises(fusion):
    with pytest.raises(NoEligibleCandidateError):
        fusion(policy=RoutingPolicy(max_cost_usd=0.0)).model.invoke(SUM)


# Runs


async def test_runs_when_asked_in_any_way_then_one_model_run_lies_in_the_routers_run(fusion, run_log):
    model, config = fusion().model, {"callbacks": [run_log], "tags": ["t"], "metadata": {"m": 1}}

    model.invoke(SUM, config)
    await model.ainvoke(SUM, config)
    list(model.stream(SUM, config))
    [chunk async for chunk in model.astream(SUM, config)]
    list(model.stream_events(SUM, config, version="v3"))
    await (await model.astream_events(SUM, config, version="v3"))
    model.generate([[HumanMessage(SUM)]], callbacks=[run_log], metadata={"m": 1})
    await model.agenerate([[HumanMessage(SUM)]], callbacks=[run_log], metadata={"m": 1})

    assert run_log.kinds() == [("chain", "FusionChatModel"), ("llm", "tiny-math")] * 8
    routers, models = run_log.starts[::2], run_log.starts[1::2]
    assert [parent for *_, parent in models] == [run_id for _, _, run_id, _ in routers]
    assert [kind for kind, _ in run_log.ends] == ["llm", "chain"] * 8
    assert all(metadata["m"] == 1 for metadata in run_log.metadata.values())
    assert all(metadata["fusion_candidate"] == "calculator" for metadata in run_log.metadata.values())


async def test_usage_when_asked_in_any_way_then_counts_once(fusion):
    model = fusion(models={name: _CountedModel(model=name) for name in ("tiny-math", "tiny-prose")}).model
    counts = []

    for call in (
        lambda config: model.invoke(SUM, config),
        lambda config: list(model.stream(SUM, config)),
        lambda config: list(model.stream_events(SUM, config, version="v3")),
        lambda config: model.generate([[HumanMessage(SUM)]], callbacks=config["callbacks"]),
    ):
        counter = UsageMetadataCallbackHandler()
        call({"callbacks": [counter]})
        counts.append(counter.usage_metadata)
    counter = UsageMetadataCallbackHandler()
    await model.ainvoke(SUM, {"callbacks": [counter]})
    counts.append(counter.usage_metadata)

    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    assert [dict(count["tiny-math"]) for count in counts] == [usage] * 5


def test_callbacks_when_given_to_the_constructor_then_see_both_runs_once(fusion, run_log):
    model = fusion(callbacks=[run_log], tags=["own"], metadata={"own": True}).model

    model.invoke(SUM)
    model.invoke(SUM, {"callbacks": [run_log]})

    assert run_log.kinds() == [("chain", "FusionChatModel"), ("llm", "tiny-math")] * 2
    assert all(metadata["own"] for metadata in run_log.metadata.values())


def test_callbacks_when_given_to_the_constructor_in_a_chain_then_join_the_chains(fusion, run_log):
    other = type(run_log)()
    chain = RunnableLambda(lambda text: text) | fusion(callbacks=[other]).model

    chain.invoke(SUM, {"callbacks": [run_log]})

    assert other.kinds() == [("chain", "FusionChatModel"), ("llm", "tiny-math")]
    assert run_log.kinds()[-2:] == other.kinds()


def test_run_id_when_given_then_is_the_routers(fusion, run_log):
    run_id = uuid.uuid4()
    fusion().model.invoke(SUM, {"callbacks": [run_log], "run_id": run_id, "run_name": "mine"})

    assert run_log.starts[0][1:3] == ("mine", run_id)
    assert run_log.starts[1][2] != run_id


def test_generate_when_several_conversations_then_routes_each_and_names_its_run(fusion, run_log):
    result = fusion().model.generate([[HumanMessage(SUM)], [HumanMessage(PROSE)]], callbacks=[run_log])

    assert [row[0].message.response_metadata["model_name"] for row in result.generations] == [
        "tiny-math",
        "tiny-prose",
    ]
    assert [info.run_id for info in result.run] == [s[2] for s in run_log.starts if s[0] == "chain"]


def test_run_when_traced_then_its_output_is_the_answer(fusion, run_log):
    model = fusion().model

    answer = model.invoke(SUM, {"callbacks": [run_log]})
    chunks = list(model.stream(SUM, {"callbacks": [run_log]}))

    outputs = [run_log.outputs[run_id] for kind, _, run_id, _ in run_log.starts if kind == "chain"]
    assert outputs[0] == answer
    assert outputs[1].content == "".join(chunk.content for chunk in chunks)


# Chains


def test_chain_when_streamed_then_words_arrive_one_by_one(fusion):
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | fusion().model | StrOutputParser()

    pieces = [piece for piece in chain.stream({"question": SUM}) if piece]

    assert pieces == ["tiny-math", " heard:", " What", " is", " 3", " plus", " 4?"]


async def test_chain_when_its_events_are_streamed_then_model_events_carry_the_models_run(fusion):
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | fusion().model | StrOutputParser()

    events = [event async for event in chain.astream_events({"question": SUM}, version="v2")]

    ends = [event for event in events if event["event"] == "on_chat_model_end"]
    tokens = [e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"]
    assert len(ends) == 1
    assert ends[0]["name"] == "ChatClientModel"
    assert "".join(tokens) == f"tiny-math heard: {SUM}"


def test_stream_when_first_word_is_there_then_does_not_wait_for_the_next(fusion):
    produced = []

    class Noting(ScriptedChatClient):
        def stream(self, messages, *, options=None):
            stream = super().stream(messages, options=options)
            for piece in stream:
                produced.append(piece)
                yield piece

    models = {name: ChatClientModel(client=Noting(name)) for name in ("tiny-math", "tiny-prose")}
    stream = fusion(models=models).model.stream(SUM)

    assert next(stream).content == "tiny-math"
    assert produced == ["tiny-math"]


@pytest.mark.parametrize("field", [{"streaming": False}, {"disable_streaming": True}])
async def test_stream_when_streaming_is_off_then_gives_the_answer_at_once(fusion, field):
    model = fusion(**field).model

    assert [chunk.content for chunk in model.stream(SUM)] == [f"tiny-math heard: {SUM}"]
    assert [chunk.content async for chunk in model.astream(SUM)] == [f"tiny-math heard: {SUM}"]


def test_stream_when_model_cannot_stream_then_gives_one_marked_message(fusion):
    models = {name: _WholeModel(model=name) for name in ("tiny-math", "tiny-prose")}

    (message,) = fusion(models=models).model.stream(SUM)

    assert message.content == "counted"
    assert message.response_metadata["fusion"]["candidate"] == "calculator"


def test_output_version_when_set_on_the_router_then_its_models_follow_and_the_callers_do_not(fusion):
    models = {name: ChatClientModel(client=ScriptedChatClient(name)) for name in ("tiny-math", "tiny-prose")}

    answer = fusion(models=models, output_version="v1").model.invoke(SUM)

    assert answer.content == [{"type": "text", "text": f"tiny-math heard: {SUM}"}]
    assert models["tiny-math"].output_version is None


def test_with_fallbacks_when_the_route_fails_then_another_chain_answers(fusion):
    def fail(messages):
        raise RuntimeError("down")

    backup = FakeListChatModel(responses=["backup"])
    model = fusion(math=fail).model.with_fallbacks([backup])

    assert model.invoke(SUM).content == "backup"
    assert "".join(chunk.content for chunk in model.stream(SUM)) == "backup"


def test_with_fallbacks_when_router_is_the_fallback_then_answers(fusion):
    model = FakeListChatModel(responses=[]).with_fallbacks([fusion().model])

    assert model.invoke(SUM).content == f"tiny-math heard: {SUM}"


def test_with_retry_when_the_route_fails_once_then_answers(fusion):
    attempts = []

    def flaky(messages):
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("flaky")
        return "fine"

    model = fusion(math=flaky).model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)

    assert model.invoke(SUM).content == "fine"


# Concurrency


def _expected(query: str) -> str:
    return f"tiny-math heard: {query}" if query.startswith("What") else f"tiny-prose heard: {query}"


QUERIES = [f"What is {i} plus {i}?" if i % 2 else "Describe old trains kindly." for i in range(40)]


def test_threads_when_twenty_ask_at_once_then_answers_and_decisions_never_mix(fusion):
    model = fusion().model

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(model.invoke, QUERIES))

    assert [answer.content for answer in answers] == [_expected(query) for query in QUERIES]
    assert all(a.response_metadata["fusion"]["model"] == a.response_metadata["model_name"] for a in answers)


async def test_tasks_when_twenty_ask_at_once_then_answers_and_decisions_never_mix(fusion):
    model = fusion().model
    gate = asyncio.Semaphore(20)

    async def ask(query: str) -> AIMessage:
        async with gate:
            chunks = [chunk async for chunk in model.astream(query)]
        return sum(chunks[1:], start=chunks[0])

    answers = await asyncio.gather(*map(ask, QUERIES))

    assert [answer.content for answer in answers] == [_expected(query) for query in QUERIES]
    assert all(a.response_metadata["fusion"]["model"] == a.response_metadata["model_name"] for a in answers)


def test_router_when_a_model_is_a_router_itself_then_routes_twice_and_counts_once(fusion, pipeline):
    inner = fusion().model
    counter = UsageMetadataCallbackHandler()
    outer = FusionChatModel(
        pipeline=FusionPipeline(pipeline.router, prices=tiny_prices()),
        models={"tiny-math": inner, "tiny-prose": inner},
    )

    answer = outer.invoke(SUM, {"callbacks": [counter]})

    assert answer.content == f"tiny-math heard: {SUM}"
    assert counter.usage_metadata["tiny-math"]["total_tokens"] == 12
