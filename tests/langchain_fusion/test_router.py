from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough

from fusion_integrations import FusionPipeline, Query, RouteDecision, RouterModel, RoutingPolicy
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError, UnknownCandidateError
from langchain_fusion import FusionRouter

SUM = "What is 3 plus 4?"
PROSE = "Describe old trains kindly."


class CountingEmbedder:
    """A hash embedder that notes the texts of each call."""

    def __init__(self) -> None:
        self._embedder = HashEmbedder()
        self.calls: list[list[str]] = []

    @property
    def identity(self):
        return self._embedder.identity

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return self._embedder.embed(texts)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def fusion_router(router: RouterModel, embedder: CountingEmbedder) -> FusionRouter:
    counting = RouterModel(weights=router.weights, basis=router.basis, embedder=embedder)
    return FusionRouter(pipeline=FusionPipeline(counting))


@pytest.mark.parametrize(
    "query",
    [
        SUM,
        [HumanMessage(SUM)],
        [("system", "Be brief."), ("user", SUM)],
        ChatPromptTemplate.from_messages([("user", "{q}")]).invoke({"q": SUM}),
        Query.from_text(SUM),
    ],
)
def test_invoke_when_query_takes_any_form_then_decides_alike(fusion_router, query):
    decision = fusion_router.invoke(query)

    assert isinstance(decision, RouteDecision)
    assert decision.candidate.id == "calculator"
    assert decision.to_json() == fusion_router.invoke(SUM).to_json()


async def test_ainvoke_when_awaited_then_decides_as_invoke(fusion_router):
    assert (await fusion_router.ainvoke(PROSE)).candidate == fusion_router.invoke(PROSE).candidate


def test_batch_when_one_policy_then_embeds_once_and_keeps_the_order(fusion_router, embedder):
    decisions = fusion_router.batch([SUM, PROSE, SUM])

    assert [decision.candidate.id for decision in decisions] == ["calculator", "writer", "calculator"]
    assert embedder.calls == [[SUM, PROSE, SUM]]


async def test_abatch_when_one_policy_then_embeds_once(fusion_router, embedder):
    decisions = await fusion_router.abatch([PROSE, SUM])

    assert [decision.candidate.id for decision in decisions] == ["writer", "calculator"]
    assert embedder.calls == [[PROSE, SUM]]


def test_batch_when_configs_differ_then_each_query_follows_its_own(fusion_router, embedder):
    only_writer = RoutingPolicy(allowed=frozenset({"writer"}))
    configs = [
        {},
        {"configurable": {"fusion_policy": only_writer}},
        {"configurable": {"fusion_route": "thinker"}},
    ]

    decisions = fusion_router.batch([SUM, SUM, SUM], configs)

    assert [decision.candidate.id for decision in decisions] == ["calculator", "writer", "thinker"]
    assert [decision.outcome for decision in decisions][1:] == ["only_eligible", "pinned"]
    assert [len(call) for call in embedder.calls] == [2, 1]


def test_batch_when_a_query_is_blank_then_only_that_one_fails(fusion_router):
    decisions = fusion_router.batch([SUM, " ", PROSE], return_exceptions=True)

    assert isinstance(decisions[1], EmptyQueryError)
    assert [decisions[0].candidate.id, decisions[2].candidate.id] == ["calculator", "writer"]


def test_batch_when_a_query_is_blank_and_errors_are_not_wanted_then_raises(fusion_router):
    with pytest.raises(EmptyQueryError):
        fusion_router.batch([SUM, " "])


def test_batch_when_empty_then_is_empty(fusion_router):
    assert fusion_router.batch([]) == []


def test_invoke_when_blank_then_raises(fusion_router):
    with pytest.raises(EmptyQueryError):
        fusion_router.invoke("  ")


def test_invoke_when_pinned_route_is_unknown_then_names_the_known_ones(fusion_router):
    with pytest.raises(UnknownCandidateError, match="'calculator', 'thinker', 'writer'"):
        fusion_router.invoke(SUM, {"configurable": {"fusion_route": "gpt-7"}})


@pytest.mark.parametrize("configurable", [{"fusion_route": 3}, {"fusion_policy": "cheap"}])
def test_invoke_when_override_has_the_wrong_type_then_raises(fusion_router, configurable):
    with pytest.raises(InvalidPolicyError, match="configurable"):
        fusion_router.invoke(SUM, {"configurable": configurable})


def test_policy_when_set_on_the_router_then_replaces_the_pipelines(fusion_router):
    policy = RoutingPolicy(allowed=frozenset({"thinker"}))

    decision = FusionRouter(pipeline=fusion_router.pipeline, policy=policy).invoke(SUM)

    assert decision.candidate.id == "thinker"


def test_router_when_in_a_chain_then_branches_by_the_decision(fusion_router):
    chain = RunnablePassthrough.assign(decision=RunnableLambda(lambda x: x["question"]) | fusion_router) | (
        RunnableBranch(
            (lambda x: x["decision"].candidate.id == "calculator", lambda x: f"sum: {x['question']}"),
            lambda x: f"prose: {x['question']}",
        )
        | StrOutputParser()
    )

    assert chain.batch([{"question": SUM}, {"question": PROSE}]) == [f"sum: {SUM}", f"prose: {PROSE}"]


def test_router_when_traced_then_is_one_chain_run(fusion_router, run_log):
    fusion_router.invoke(SUM, {"callbacks": [run_log], "run_name": "route"})
    fusion_router.batch([SUM, PROSE], {"callbacks": [run_log]})

    assert run_log.kinds() == [("chain", "route"), ("chain", "FusionRouter"), ("chain", "FusionRouter")]
    assert [kind for kind, _ in run_log.ends] == ["chain"] * 3


def test_router_when_asked_for_its_schema_then_tells_config_and_types(fusion_router):
    assert {spec.id for spec in fusion_router.config_specs} == {"fusion_route", "fusion_policy"}
    assert fusion_router.OutputType is RouteDecision
    assert fusion_router.config_schema().model_json_schema()
    assert fusion_router.get_graph().nodes


def test_router_when_a_field_is_misspelt_then_is_refused(fusion_router):
    with pytest.raises(ValueError, match="polcy"):
        FusionRouter(pipeline=fusion_router.pipeline, polcy=None)
