import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.dispatcher import instrument_tags

from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.testing import ScriptedChatClient
from llamaindex_fusion import ChatClientLLM, FusionLLM

SUM = "What is 17 plus 4? Give the number only."
MESSAGES = [ChatMessage(content=SUM)]


async def call(llm: FusionLLM, way: str) -> None:
    question = SUM if "complete" in way else MESSAGES
    answer = getattr(llm, way)(question)
    if way.startswith("astream"):
        _ = [chunk async for chunk in await answer]
    elif way.startswith("a"):
        await answer
    elif way.startswith("stream"):
        list(answer)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (way, "LLMCompletion" if "complete" in way else "LLMChat")
        for way in (
            "chat",
            "complete",
            "stream_chat",
            "stream_complete",
            "achat",
            "acomplete",
            "astream_chat",
            "astream_complete",
        )
    ],
)
async def test_events_of_a_call_come_once_from_the_native_llm(
    llm: FusionLLM, events, way: str, kind: str
) -> None:
    await call(llm, way)

    starts_and_ends = [name for name in events.names("LLM") if "InProgress" not in name]
    assert starts_and_ends == [f"{kind}StartEvent", f"{kind}EndEvent"]
    assert events.first(f"{kind}StartEvent").model_dict["model_name"] == "tiny-math"
    assert events.first(f"{kind}StartEvent").model_dict["class_name"] == "ChatClientLLM"


@pytest.mark.parametrize("way", ["chat", "stream_complete", "achat", "astream_chat"])
async def test_start_event_carries_the_id_of_the_record_and_the_callers_tags(
    llm: FusionLLM, events, store: LogStore, way: str
) -> None:
    with instrument_tags({"user": "u1"}):
        await call(llm, way)

    (record,) = store.records()
    (start,) = [event for event in events._events if type(event).__name__.endswith("StartEvent")]
    assert start.tags == {"user": "u1", "fusion_run_id": record.record_id, "fusion_recorded": True}


def test_legacy_token_counter_on_a_native_llm_counts_once(pipeline: FusionPipeline) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llms = {
        name: ChatClientLLM(ScriptedChatClient(name), callback_manager=CallbackManager([counter]))
        for name in ("tiny-math", "tiny-prose")
    }

    FusionLLM(pipeline, llms=llms).chat(MESSAGES)

    # The client's own counts: 9 words asked, 11 answered.
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (9, 11)
