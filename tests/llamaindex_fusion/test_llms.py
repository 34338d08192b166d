import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core import Document, PromptTemplate, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.embeddings.mock_embed_model import MockEmbedding
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from pydantic import BaseModel

from fusion_integrations.errors import EmptyQueryError, NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.prompts import apply_prompt_edit, prompt_edit
from fusion_integrations.query_level.policy import COST_FIRST, PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.testing import ScriptedChatClient, tiny_prices
from fusion_integrations.types import Message
from llamaindex_fusion import ChatClientLLM, FusionLLM

SUM = "What is 17 plus 4? Give the number only."
PROSE = "Write a line about rivers."
THINKER = RoutingPolicy(allowed=frozenset({"thinker"}))

Clients = dict[str, ScriptedChatClient]


def test_chat_when_query_fits_a_candidate_then_its_native_llm_answers(llm: FusionLLM) -> None:
    of_sum = llm.chat([ChatMessage(content=SUM)])
    of_prose = llm.chat([ChatMessage(content=PROSE)])

    assert of_sum.message.content == f"tiny-math heard: {SUM}"
    assert of_prose.message.content == f"tiny-prose heard: {PROSE}"


def test_chat_when_answered_then_response_carries_decision_run_id_and_cost(
    llm: FusionLLM, store: LogStore
) -> None:
    response = llm.chat([ChatMessage(content=PROSE)])

    (record,) = store.records()
    mark = response.additional_kwargs["fusion"]
    # 5 words in, 7 out ("tiny-prose heard:" and the query): 5 * 0.5 + 7 * 1.0 = 9.5 millionths of a USD.
    assert mark["cost_usd"] == pytest.approx(9.5e-6)
    assert mark["run_id"] == record.record_id
    assert (mark["candidate"], mark["model"], mark["outcome"]) == ("writer", "tiny-prose", "switched")
    assert response.additional_kwargs["completion_tokens"] == 7
    assert json.loads(json.dumps(mark)) == mark


def test_chat_when_answered_then_record_holds_the_original_messages_and_the_answer(
    llm: FusionLLM, store: LogStore
) -> None:
    llm.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(content=SUM)], policy=THINKER)

    (record,) = store.records()
    assert record.messages == (Message(role="system", content="Be brief."), Message(role="user", content=SUM))
    assert (record.candidate_id, record.prompt_mode, record.source) == ("thinker", "reasoning", "tests")
    assert record.response is not None
    assert record.response.startswith("tiny-prose heard: ")
    assert (record.assignment, record.eligible, record.finish_reason) == ("policy", ("thinker",), "stop")
    assert record.latency_s is not None
    assert record.latency_s >= 0


def test_chat_when_prompt_mode_is_reasoning_then_only_the_native_llm_sees_the_edit(
    llm: FusionLLM, clients: Clients
) -> None:
    messages = [ChatMessage(role="system", content="Be brief."), ChatMessage(content=SUM)]

    llm.chat(messages, policy=THINKER)

    original = (Message(role="system", content="Be brief."), Message(role="user", content=SUM))
    assert clients["tiny-prose"].calls == [apply_prompt_edit(original, prompt_edit("reasoning"))]
    assert messages[1].content == SUM


def test_complete_when_prompt_mode_is_reasoning_then_prompt_is_edited(
    llm: FusionLLM, clients: Clients
) -> None:
    answer = llm.complete(SUM, policy=THINKER)

    edited = apply_prompt_edit([Message(role="user", content=SUM)], prompt_edit("reasoning"))
    assert clients["tiny-prose"].calls == [edited]
    assert answer.additional_kwargs["fusion"]["prompt_mode"] == "reasoning"


async def test_all_eight_methods_give_the_same_answer_and_each_one_record(
    llm: FusionLLM, store: LogStore
) -> None:
    messages = [ChatMessage(content=SUM)]

    texts = [
        llm.chat(messages).message.content,
        llm.complete(SUM).text,
        list(llm.stream_chat(messages))[-1].message.content,
        list(llm.stream_complete(SUM))[-1].text,
        (await llm.achat(messages)).message.content,
        (await llm.acomplete(SUM)).text,
        [chunk async for chunk in await llm.astream_chat(messages)][-1].message.content,
        [chunk async for chunk in await llm.astream_complete(SUM)][-1].text,
    ]

    records = list(store.records())
    assert texts == [f"tiny-math heard: {SUM}"] * 8
    assert [record.response for record in records] == texts
    assert len({record.record_id for record in records}) == 8


@settings(max_examples=25, deadline=None)
@example(text="0\r", policy=PERFORMANCE_FIRST)
@given(text=st.text(min_size=1).filter(str.strip), policy=st.sampled_from([PERFORMANCE_FIRST, COST_FIRST]))
def test_decision_of_any_text_equals_the_cores(
    model_router: RouterModel, text: str, policy: RoutingPolicy
) -> None:
    pipeline = FusionPipeline(model_router, prices=tiny_prices())
    names = ("tiny-math", "tiny-prose")
    llm = FusionLLM(
        pipeline, llms={name: ChatClientLLM(ScriptedChatClient(name)) for name in names}, policy=policy
    )

    mark = llm.chat([ChatMessage(content=text)]).additional_kwargs["fusion"]

    planned = pipeline.plan(text, policy=policy).decision.to_json()
    assert {key: mark[key] for key in planned} == planned


def test_policy_of_the_llm_and_of_the_call_replace_the_pipelines(
    pipeline: FusionPipeline, llm: FusionLLM
) -> None:
    math = RoutingPolicy(allowed=frozenset({"calculator"}))
    own = FusionLLM(pipeline, llms=llm.llms, policy=math)

    assert own.complete(PROSE).additional_kwargs["fusion"]["candidate"] == "calculator"
    assert own.complete(PROSE, policy=THINKER).additional_kwargs["fusion"]["candidate"] == "thinker"


def test_route_when_given_then_candidate_is_pinned_and_recorded_as_the_users_choice(
    llm: FusionLLM, store: LogStore
) -> None:
    response = llm.chat([ChatMessage(content=SUM)], route="writer")

    (record,) = store.records()
    assert response.additional_kwargs["fusion"]["outcome"] == "pinned"
    assert (record.candidate_id, record.assignment, record.propensity) == ("writer", "user", None)


def test_route_when_unknown_then_error_and_no_record(llm: FusionLLM, store: LogStore) -> None:
    with pytest.raises(UnknownCandidateError, match="'poet'"):
        llm.chat([ChatMessage(content=SUM)], route="poet")

    assert list(store.records()) == []


def test_chat_when_there_is_no_text_then_error(llm: FusionLLM) -> None:
    with pytest.raises(EmptyQueryError):
        llm.chat([ChatMessage(blocks=[ImageBlock(url="http://x/y.png")])])


def test_chat_when_message_has_an_image_then_native_llm_gets_it(pipeline: FusionPipeline) -> None:
    class Recorder(MockLLM):
        def chat(self, messages, **kwargs):
            seen.extend(messages)
            return super().chat(messages, **kwargs)

    seen: list[ChatMessage] = []
    image = ImageBlock(url="http://x/y.png")
    llm = FusionLLM(pipeline, llms={"tiny-math": Recorder(), "tiny-prose": Recorder()})

    llm.chat([ChatMessage(blocks=[TextBlock(text=SUM), image])], policy=THINKER)

    assert seen[0].blocks[1] == image
    assert seen[0].blocks[0].text != SUM


def test_generation_kwargs_reach_the_native_llm(llm: FusionLLM) -> None:
    response = llm.chat([ChatMessage(content=SUM)], max_tokens=2)

    assert response.message.content == "tiny-math heard:"


@pytest.mark.parametrize("way", ["chat", "complete", "stream_chat", "stream_complete"])
def test_failure_of_the_native_llm_is_recorded_and_raised_again(
    pipeline: FusionPipeline, store: LogStore, way: str
) -> None:
    llm = failing_llm(pipeline)
    question = SUM if "complete" in way else [ChatMessage(content=SUM)]

    with pytest.raises(RuntimeError, match="out of memory"):
        list(getattr(llm, way)(question))

    (record,) = store.records()
    assert (record.candidate_id, record.error, record.response) == (
        "calculator",
        "RuntimeError: out of memory",
        None,
    )


@pytest.mark.parametrize("way", ["achat", "acomplete", "astream_chat", "astream_complete"])
async def test_failure_when_async_is_recorded_and_raised_again(
    pipeline: FusionPipeline, store: LogStore, way: str
) -> None:
    llm = failing_llm(pipeline)
    question = SUM if "complete" in way else [ChatMessage(content=SUM)]

    async def ask() -> None:
        answer = await getattr(llm, way)(question)
        _ = [chunk async for chunk in answer]

    with pytest.raises(RuntimeError, match="out of memory"):
        await ask()

    (record,) = store.records()
    assert record.error == "RuntimeError: out of memory"


def failing_llm(pipeline: FusionPipeline) -> FusionLLM:
    def fail(messages: object) -> str:
        raise RuntimeError("out of memory")

    names = ("tiny-math", "tiny-prose")
    return FusionLLM(
        pipeline, llms={name: ChatClientLLM(ScriptedChatClient(name, answer=fail)) for name in names}
    )


def test_metadata_is_what_holds_for_every_reachable_llm(pipeline: FusionPipeline) -> None:
    small = ChatClientLLM(ScriptedChatClient("tiny-math"), context_window=512)
    large = MockLLM(max_tokens=64)  # no chat model, context of 3900

    both = FusionLLM(pipeline, llms={"tiny-math": small, "tiny-prose": large}).metadata
    only = FusionLLM(pipeline, llms={"tiny-prose": large}, policy=THINKER).metadata

    assert (both.context_window, both.num_output, both.is_chat_model) == (512, 64, False)
    assert (only.context_window, only.is_function_calling_model, only.model_name) == (3900, False, "fusion")


def test_constructor_when_a_reachable_model_has_no_llm_then_error_names_it(pipeline: FusionPipeline) -> None:
    with pytest.raises(UnknownCandidateError, match=r"'thinker'.*'tiny-prose'"):
        FusionLLM(pipeline, llms={"tiny-math": MockLLM()})


def test_constructor_when_policy_leaves_nobody_then_error(pipeline: FusionPipeline) -> None:
    with pytest.raises(NoEligibleCandidateError, match="flying"):
        FusionLLM(pipeline, llms={}, policy=RoutingPolicy(required_capabilities=frozenset({"flying"})))


def test_constructor_when_router_knows_tools_then_error_points_to_the_selector(
    tool_pipeline: FusionPipeline,
) -> None:
    with pytest.raises(UnknownCandidateError, match="FusionSelector"):
        FusionLLM(tool_pipeline, llms={"numbers": MockLLM()})


def test_call_when_its_policy_reaches_a_model_without_llm_then_error_and_no_record(
    pipeline: FusionPipeline, store: LogStore
) -> None:
    llm = FusionLLM(pipeline, llms={"tiny-prose": MockLLM()}, policy=THINKER)

    with pytest.raises(UnknownCandidateError, match="no LLM for candidate 'calculator'"):
        llm.complete(SUM, policy=PERFORMANCE_FIRST)

    assert list(store.records()) == []


def test_serialised_and_printed_forms_hold_no_credentials(pipeline: FusionPipeline) -> None:
    class Keyed(MockLLM):
        api_key: str = "sk-secret"

    llm = FusionLLM(pipeline, llms={"tiny-math": Keyed(), "tiny-prose": Keyed()})

    forms = [repr(llm), str(llm), llm.to_json(), str(llm.to_dict()), str(llm.to_payload())]

    assert not any("sk-secret" in form for form in forms)
    assert llm.to_payload()["class_name"] == llm.to_dict()["class_name"] == "FusionLLM"


def test_prompt_when_predicted_is_formatted_by_the_chosen_completion_model(pipeline: FusionPipeline) -> None:
    # `predict` calls prompts of a model that is no chat model formatted; here nobody has formatted them yet.
    class Instruct(MockLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs):
            return super().complete(prompt if formatted else f"[INST]{prompt}[/INST]", formatted=True)

    llm = FusionLLM(pipeline, llms={"tiny-math": Instruct(), "tiny-prose": Instruct()})

    assert llm.predict(PromptTemplate("{q}"), q=SUM) == f"[INST]{SUM}[/INST]"


def test_rate_limiter_of_the_router_is_asked_once_a_call(pipeline: FusionPipeline, llm: FusionLLM) -> None:
    class Counting(TokenBucketRateLimiter):
        n: int = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.n += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.n += 1

    limiter = Counting(requests_per_minute=600)
    limited = FusionLLM(pipeline, llms=llm.llms, rate_limiter=limiter)

    limited.complete(SUM)
    asyncio.run(limited.acomplete(SUM))

    assert limiter.n == 2


def test_calls_when_made_from_threads_and_tasks_then_each_is_answered_and_recorded(
    pipeline: FusionPipeline, llm: FusionLLM, store: LogStore
) -> None:
    queries = [f"{SUM} {n}" if n % 2 else f"{PROSE} {n}" for n in range(24)]

    with ThreadPoolExecutor(max_workers=6) as pool:
        from_threads = list(pool.map(llm.complete, queries))

    async def from_tasks() -> list[str]:
        answers = await asyncio.gather(*(llm.acomplete(query) for query in queries))
        return [answer.text for answer in answers]

    expected = [f"{pipeline.plan(query).candidate.model} heard: {query}" for query in queries]
    assert [answer.text for answer in from_threads] == expected
    assert asyncio.run(from_tasks()) == expected
    assert sorted(record.response or "" for record in store.records()) == sorted(expected * 2)


async def test_achat_when_the_client_waits_then_the_event_loop_is_free(pipeline: FusionPipeline) -> None:
    meeting = asyncio.Barrier(2)

    class Meeting(ScriptedChatClient):
        async def acomplete(self, messages, *, options=None):
            async with asyncio.timeout(10):
                await meeting.wait()  # both calls must be under way at once
            return self.complete(messages, options=options)

    llm = FusionLLM(
        pipeline, llms={name: ChatClientLLM(Meeting(name)) for name in ("tiny-math", "tiny-prose")}
    )

    answers = await asyncio.gather(llm.achat([ChatMessage(content=SUM)]), llm.acomplete(PROSE))

    assert len(answers) == 2


def test_structured_predict_goes_through_the_router(pipeline: FusionPipeline, store: LogStore) -> None:
    class Total(BaseModel):
        total: int

    clients = [ScriptedChatClient(n, answer=lambda _: '{"total": 21}') for n in ("tiny-math", "tiny-prose")]
    llm = FusionLLM(pipeline, llms={client.model: ChatClientLLM(client) for client in clients})

    result = llm.structured_predict(Total, PromptTemplate("{q}"), q=SUM)

    assert result == Total(total=21)
    assert [record.response for record in store.records()] == ['{"total": 21}']


async def test_query_engine_over_a_real_index_answers_through_the_router(
    pipeline: FusionPipeline, llm: FusionLLM, store: LogStore
) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="The answer is twenty-one.")], embed_model=MockEmbedding(embed_dim=4)
    )
    engine = RetrieverQueryEngine.from_args(index.as_retriever(), llm=llm)
    streaming = RetrieverQueryEngine.from_args(index.as_retriever(), llm=llm, streaming=True)

    response = engine.query(SUM)
    async_response = await engine.aquery(SUM)
    streamed = "".join(streaming.query(SUM).response_gen)

    assert "The answer is twenty-one." in str(response)
    assert str(async_response) == str(response) == streamed
    assert [record.response for record in store.records()] == [str(response)] * 3
