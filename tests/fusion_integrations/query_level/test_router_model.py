import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import (
    EmptyQueryError,
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.query_level.policy import BALANCE, PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.testing import tiny_candidates, tiny_logs, tiny_prices
from fusion_integrations.types import Price, PriceTable, Query

SUM = "What is 17 plus 4? Give the number only."
PROSE = "Write a line about rivers."


@pytest.fixture(scope="module")
def texts():
    return sorted(set(tiny_logs()["query_text"]))


def test_route_when_queries_differ_chooses_who_is_good_at_each(trained_router):
    assert trained_router.candidates == tiny_candidates()
    assert trained_router.route(SUM).candidate.id == "calculator"
    assert trained_router.route(PROSE).candidate.id == "writer"


def test_route_takes_a_text_and_a_query_alike(trained_router):
    assert trained_router.route(Query.from_text(PROSE)) == trained_router.route(PROSE)


@pytest.mark.parametrize("text", ["0\r", "\n\n  Write a poem. ", "\u2028What is 3 + 4?\t"])
def test_route_reads_a_text_without_the_white_space_around_it(trained_router, text):
    assert trained_router.route(text) == trained_router.route(Query.from_text(text))
    assert trained_router.route(text) == trained_router.route(text.strip())


def test_router_when_printed_is_short(trained_router):
    assert len(repr(trained_router)) < 2_000


def test_route_batch_keeps_the_order_of_the_queries(trained_router):
    decisions = trained_router.route_batch([PROSE, SUM, PROSE])
    assert [decision.candidate.id for decision in decisions] == ["writer", "calculator", "writer"]
    assert trained_router.route_batch([]) == []


def test_predict_of_no_queries_is_empty(router_of_each_head):
    prediction = router_of_each_head.predict([])
    assert prediction.performance.shape == prediction.logged_cost_usd.shape == (0, 3)


def test_predict_gives_performance_within_its_range_and_known_costs(router_of_each_head, texts):
    prediction = router_of_each_head.predict([*texts, "🙂", "x" * 100_000, "漢字 " * 50, "a\ud800b"])
    assert prediction.performance.shape == (len(texts) + 4, 3)
    assert prediction.performance.min() >= 0
    assert prediction.performance.max() <= 1
    for values in (prediction.input_tokens, prediction.output_tokens, prediction.logged_cost_usd):
        assert np.isfinite(values).all()
        assert (values >= 0).all()


@given(
    st.text(min_size=1, max_size=80).filter(lambda text: text.strip()),
    st.sampled_from([PERFORMANCE_FIRST, BALANCE]),
)
def test_decision_of_a_query_does_not_depend_on_its_batch(trained_router, texts, text, policy):
    batch = [SUM, text, PROSE, *texts[::8]]
    together = trained_router.route_batch(batch, policy=policy)[1]
    alone = trained_router.route(text, policy=policy)
    assert (together.candidate, together.default_id, together.outcome) == (
        alone.candidate,
        alone.default_id,
        alone.outcome,
    )
    for one, other in zip(together.ranking, alone.ranking, strict=True):
        assert one.candidate_id == other.candidate_id
        assert one.reward == pytest.approx(other.reward, abs=1e-6)


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_route_when_the_query_is_blank_refuses(trained_router, blank):
    with pytest.raises(EmptyQueryError):
        trained_router.route(blank)


def test_a_batch_when_given_as_one_text_refuses(trained_router):
    for call in (trained_router.predict, trained_router.route_batch):
        with pytest.raises(InvalidPolicyError, match=r"\[text\]"):
            call(SUM)


def test_route_obeys_the_policy(trained_router):
    decision = trained_router.route(SUM, policy=RoutingPolicy(allowed=frozenset({"thinker", "writer"})))
    assert decision.candidate.id in {"thinker", "writer"}
    decision = trained_router.route(PROSE, policy=RoutingPolicy(required_capabilities=frozenset({"tools"})))
    assert (decision.candidate.id, decision.outcome) == ("calculator", "only_eligible")
    assert trained_router.route(PROSE, policy=RoutingPolicy(margin_z=math.inf)).outcome == "default"
    with pytest.raises(UnknownCandidateError):
        trained_router.route(SUM, policy=RoutingPolicy(allowed=frozenset({"nobody"})))
    with pytest.raises(NoEligibleCandidateError):
        trained_router.route(SUM, policy=RoutingPolicy(max_cost_usd=0.0))


def test_route_when_prices_are_those_of_the_logs_costs_the_same(trained_router):
    logged = trained_router.route(PROSE, policy=BALANCE)
    priced = trained_router.route(PROSE, policy=BALANCE, prices=tiny_prices())
    assert priced.expected_cost_usd == pytest.approx(logged.expected_cost_usd, rel=0.1)


def test_route_when_a_price_explodes_avoids_it(trained_router):
    dear = PriceTable(prices={**tiny_prices().prices, "tiny-prose": Price(output_usd_per_mtok=1e6)})
    decision = trained_router.route(PROSE, policy=BALANCE, prices=dear)
    assert (decision.candidate.id, decision.default_id) == ("calculator", "calculator")


def test_route_when_no_cost_was_ever_known_refuses_to_weigh_it(trained_router):
    unpriced = replace(trained_router, basis=replace(trained_router.basis, cost_scale_usd=None))
    with pytest.raises(InvalidPolicyError, match="cost_scale_usd"):
        unpriced.route(SUM, policy=BALANCE)
    unpriced.route(SUM)


def test_router_is_immutable(trained_router):
    with pytest.raises(AttributeError):
        trained_router.basis = None
