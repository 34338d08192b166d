import asyncio
import json

import pytest
from llama_index.core import Document, SummaryIndex, VectorStoreIndex
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.embeddings.mock_embed_model import MockEmbedding
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata

from fusion_integrations.errors import (
    EmptyQueryError,
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.testing import ScriptedChatClient
from llamaindex_fusion import ChatClientLLM, FusionSelector

SUM = "What is 12 plus 4?"
PROSE = "Describe rivers kindly."


class FixedEngine(CustomQueryEngine):
    answer: str

    def custom_query(self, query_str: str) -> str:
        return self.answer


def choices(*names: str) -> list[ToolMetadata]:
    return [ToolMetadata(name=name, description=f"the {name}") for name in names]


def test_select_when_query_fits_a_tool_then_its_index_reason_and_decision(
    tool_pipeline: FusionPipeline,
) -> None:
    selector = FusionSelector(tool_pipeline)

    of_sum = selector.select(choices("numbers", "texts"), SUM)
    of_prose = selector.select(choices("numbers", "texts"), QueryBundle(query_str=PROSE))

    assert (of_sum.ind, of_prose.ind) == (0, 1)
    assert of_sum.reason == of_sum.decisions[0].reason
    assert of_sum.decisions[0].candidate.id == "numbers"


def test_select_when_choices_are_reordered_then_same_candidate(tool_pipeline: FusionPipeline) -> None:
    result = FusionSelector(tool_pipeline).select(choices("texts", "numbers"), SUM)

    assert result.ind == 1
    assert result.decisions[0].candidate.id == "numbers"


def test_select_when_only_some_candidates_are_offered_then_only_they_are_chosen(
    tool_pipeline: FusionPipeline,
) -> None:
    result = FusionSelector(tool_pipeline).select(choices("texts"), SUM)

    assert result.ind == 0
    assert result.decisions[0].outcome == "only_eligible"


def test_select_equals_the_cores_plan_for_the_same_policy(tool_pipeline: FusionPipeline) -> None:
    policy = RoutingPolicy(margin_z=3.0)
    both = RoutingPolicy(margin_z=3.0, allowed=frozenset({"numbers", "texts"}))

    result = FusionSelector(tool_pipeline, policy=policy).select(choices("numbers", "texts"), PROSE)

    assert result.decisions[0] == tool_pipeline.plan(PROSE, policy=both).decision


async def test_aselect_equals_select(tool_pipeline: FusionPipeline) -> None:
    selector = FusionSelector(tool_pipeline)

    results = await asyncio.gather(
        *(selector.aselect(choices("numbers", "texts"), query) for query in (SUM, PROSE) * 8)
    )

    assert results[0] == selector.select(choices("numbers", "texts"), SUM)
    assert [result.ind for result in results] == [0, 1] * 8


def test_select_when_name_is_mapped_then_candidate_is_found(tool_pipeline: FusionPipeline) -> None:
    selector = FusionSelector(tool_pipeline, candidate_ids={"calculator_engine": "numbers"})

    assert selector.select(choices("texts", "calculator_engine"), SUM).ind == 1


def test_select_when_name_is_unmapped_then_error_names_it_and_the_known(
    tool_pipeline: FusionPipeline,
) -> None:
    with pytest.raises(UnknownCandidateError, match=r"'maths'.*\['numbers', 'texts'\]"):
        FusionSelector(tool_pipeline).select(choices("maths", "texts"), SUM)


def test_select_when_tool_has_no_name_then_error_describes_it(tool_pipeline: FusionPipeline) -> None:
    with pytest.raises(UnknownCandidateError, match=r"Choice 0 \('answers sums'\) has no name"):
        FusionSelector(tool_pipeline).select(["answers sums"], SUM)


def test_select_when_two_tools_share_a_name_then_error(tool_pipeline: FusionPipeline) -> None:
    with pytest.raises(InvalidPolicyError, match=r"Several choices are named \['texts'\]"):
        FusionSelector(tool_pipeline).select(choices("texts", "texts"), SUM)


def test_select_when_two_tools_stand_for_one_candidate_then_error(tool_pipeline: FusionPipeline) -> None:
    selector = FusionSelector(tool_pipeline, candidate_ids={"sums": "numbers"})

    with pytest.raises(InvalidPolicyError, match="Several tool names stand for"):
        selector.select(choices("sums", "numbers"), SUM)


def test_select_when_query_is_blank_then_error(tool_pipeline: FusionPipeline) -> None:
    with pytest.raises(EmptyQueryError):
        FusionSelector(tool_pipeline).select(choices("numbers", "texts"), "  ")


def test_select_when_policy_allows_none_of_the_choices_then_error(tool_pipeline: FusionPipeline) -> None:
    selector = FusionSelector(tool_pipeline, policy=RoutingPolicy(allowed=frozenset({"numbers"})))

    with pytest.raises(NoEligibleCandidateError):
        selector.select(choices("texts"), SUM)


def test_select_when_policy_allows_an_unknown_id_then_error_as_in_the_core(
    tool_pipeline: FusionPipeline,
) -> None:
    selector = FusionSelector(tool_pipeline, policy=RoutingPolicy(allowed=frozenset({"numbers", "typo"})))

    with pytest.raises(UnknownCandidateError, match="typo"):
        selector.select(choices("numbers", "texts"), SUM)


def test_constructor_when_mapping_names_an_unknown_candidate_then_error(
    tool_pipeline: FusionPipeline,
) -> None:
    with pytest.raises(UnknownCandidateError, match="'typo'"):
        FusionSelector(tool_pipeline, candidate_ids={"a": "typo"})


def test_constructor_when_two_names_map_to_one_candidate_then_error(tool_pipeline: FusionPipeline) -> None:
    with pytest.raises(InvalidPolicyError, match="stand for the candidates"):
        FusionSelector(tool_pipeline, candidate_ids={"a": "texts", "b": "texts"})


def test_constructor_when_router_knows_models_only_then_error(model_router: RouterModel) -> None:
    with pytest.raises(InvalidPolicyError, match="Use FusionLLM"):
        FusionSelector(FusionPipeline(model_router))


def test_result_when_dumped_then_it_is_json(tool_pipeline: FusionPipeline) -> None:
    result = FusionSelector(tool_pipeline).select(choices("numbers", "texts"), SUM)

    dumped = json.loads(json.dumps(result.model_dump()))

    assert dumped["decisions"][0]["candidate"] == "numbers"
    assert dumped["selections"][0]["index"] == 0


def test_prompts_of_a_selector_are_none(tool_pipeline: FusionPipeline) -> None:
    selector = FusionSelector(tool_pipeline)

    selector.update_prompts({})

    assert selector.get_prompts() == {}
    assert FusionSelector.class_name() == "FusionSelector"


def fixed_router_engine(pipeline: FusionPipeline) -> RouterQueryEngine:
    tools = [
        QueryEngineTool.from_defaults(FixedEngine(answer=f"by {name}"), name=name, description=f"the {name}")
        for name in ("numbers", "texts")
    ]
    unused = ChatClientLLM(ScriptedChatClient("unused"))
    return RouterQueryEngine(selector=FusionSelector(pipeline), query_engine_tools=tools, llm=unused)


def decided(response: RESPONSE_TYPE) -> str:
    return str(response.metadata["selector_result"].decisions[0].candidate.id)


def test_router_query_engine_asks_the_selected_engine(tool_pipeline: FusionPipeline) -> None:
    engine = fixed_router_engine(tool_pipeline)

    responses = [engine.query(SUM), engine.query(PROSE)]

    assert [str(response) for response in responses] == ["by numbers", "by texts"]
    assert [decided(response) for response in responses] == ["numbers", "texts"]


async def test_router_query_engine_when_async_then_asks_the_selected_engine(
    tool_pipeline: FusionPipeline,
) -> None:
    engine = fixed_router_engine(tool_pipeline)

    responses = await asyncio.gather(engine.aquery(SUM), engine.aquery(PROSE))

    assert [str(response) for response in responses] == ["by numbers", "by texts"]


def test_router_query_engine_over_real_indexes_answers_from_the_right_one(
    tool_pipeline: FusionPipeline,
) -> None:
    client = ScriptedChatClient("reader", answer=lambda messages: messages[-1].content)
    llm = ChatClientLLM(client)
    sums = VectorStoreIndex.from_documents(
        [Document(text="Twelve and four make sixteen.")], embed_model=MockEmbedding(embed_dim=4)
    )
    prose = SummaryIndex.from_documents([Document(text="Rivers run to the sea.")])
    tools = [
        QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name=name, description=name)
        for index, name in ((sums, "numbers"), (prose, "texts"))
    ]
    engine = RouterQueryEngine(selector=FusionSelector(tool_pipeline), query_engine_tools=tools, llm=llm)

    assert "make sixteen" in str(engine.query(SUM))
    assert "run to the sea" in str(engine.query(PROSE))


async def test_router_retriever_retrieves_from_the_selected_index(tool_pipeline: FusionPipeline) -> None:
    tools = [
        RetrieverTool.from_defaults(
            VectorStoreIndex.from_documents(
                [Document(text=text)], embed_model=MockEmbedding(embed_dim=4)
            ).as_retriever(),
            name=name,
            description=name,
        )
        for name, text in (("numbers", "Twelve and four."), ("texts", "Rivers."))
    ]
    retriever = RouterRetriever(
        selector=FusionSelector(tool_pipeline),
        retriever_tools=tools,
        llm=ChatClientLLM(ScriptedChatClient("unused")),
    )

    assert [node.text for node in retriever.retrieve(SUM)] == ["Twelve and four."]
    assert [node.text for node in await retriever.aretrieve(PROSE)] == ["Rivers."]
