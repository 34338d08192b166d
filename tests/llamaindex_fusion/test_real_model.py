import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings.mock_embed_model import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher

from fusion_integrations.demo.models import smollm2_client
from fusion_integrations.logs.store import LogStore
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.testing import tiny_prices
from fusion_integrations.types import GenerationOptions
from llamaindex_fusion import ChatClientLLM, FusionLLM, FusionLogEventHandler, LlamaIndexChatClient


@pytest.mark.slow
@pytest.mark.real_model
async def test_real_model_answers_through_router_stream_and_query_engine(
    model_router: RouterModel, store: LogStore
) -> None:
    options = GenerationOptions(max_tokens=24)
    leaf = ChatClientLLM(smollm2_client(1), context_window=2048, options=options)
    pipeline = FusionPipeline(model_router, prices=tiny_prices(), store=store)
    policy = RoutingPolicy(allowed=frozenset({"writer"}))
    llm = FusionLLM(pipeline, llms={"tiny-prose": leaf}, policy=policy)
    messages = [ChatMessage(content="What is the capital of France?")]

    live_store = LogStore.open(":memory:")
    with FusionLogEventHandler(live_store) as log:
        get_dispatcher().add_event_handler(log)
        direct = [leaf.chat(messages), list(leaf.stream_chat(messages))[-1]]
    whole = llm.chat(messages)
    chunks = [chunk async for chunk in await llm.astream_chat(messages)]
    index = VectorStoreIndex.from_documents(
        [Document(text="The capital of France is Paris.")], embed_model=MockEmbedding(embed_dim=4)
    )
    from_index = index.as_query_engine(llm=llm).query("What is the capital of France?")
    back = LlamaIndexChatClient(leaf, name="smollm2-135m")
    streamed_back = "".join(back.stream(pipeline.plan("What is the capital of France?").messages))

    assert "Paris" in (whole.message.content or "")
    assert whole.additional_kwargs["fusion"]["cost_usd"] > 0
    assert chunks[-1].message.content == whole.message.content == streamed_back
    assert len(chunks) > 3
    assert "Paris" in str(from_index)
    assert [record.response for record in live_store.records()] == [
        response.message.content for response in direct
    ]
    assert all((record.output_tokens or 0) > 0 for record in live_store.records())
    live_store.close()
    records = list(store.records())
    assert [record.candidate_id for record in records] == ["writer"] * 3
    assert records[0].output_tokens == whole.additional_kwargs["completion_tokens"]
