import math

import numpy as np
import pytest

from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.query_level.calibration import Outcomes, validate_quality
from fusion_integrations.query_level.choice import choose
from fusion_integrations.query_level.decision import decide
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.quality_target import RATES, QualityCurves
from fusion_integrations.types import Price, PriceTable

NAN = np.nan
HOLD_A = RoutingPolicy(quality_of="a")


def curves(*loss, rates=(0.0, 0.1, 0.5)):
    return QualityCurves(rates=np.float32(rates), loss=np.float32(loss))


def basis_with(basis, loss_of_a, **fields):
    learned = basis([0.8, 0.7], cost=[1.0, 0.2], scale=1.0)
    quality = None if loss_of_a is None else curves(loss_of_a, [NAN, NAN, NAN])
    return type(learned)(average=learned.average, cost_scale_usd=1.0, quality=quality, artifact="", **fields)


# The rate


@pytest.mark.parametrize(("max_loss", "rate"), [(0.0, 0.1), (0.019, 0.1), (0.02, 0.5), (1.0, 0.5)])
def test_rate_is_the_largest_that_kept_the_loss(max_loss, rate):
    found = curves([-0.01, 0.0, 0.02]).rate_for(0, max_loss=max_loss)
    assert found == pytest.approx(rate)


def test_rate_beyond_one_that_lost_too_much_is_not_trusted():
    assert curves([-0.01, 0.02, 0.0]).rate_for(0, max_loss=0.0) == 0.0


def test_rate_when_none_kept_the_loss_trades_nothing_and_when_none_was_tried_is_unknown():
    found = curves([0.1, 0.2, 0.3], [NAN, NAN, NAN])
    assert found.rate_for(0, max_loss=0.05) == -math.inf
    assert found.rate_for(1, max_loss=1.0) is None


def test_curves_when_columns_are_selected_keep_their_own_and_leave_new_ones_unknown():
    chosen = curves([0.0, 0.1, 0.2], [0.3, 0.4, 0.5]).select([1, None])
    np.testing.assert_allclose(chosen.loss[0], [0.3, 0.4, 0.5])
    assert np.isnan(chosen.loss[1]).all()


# Deciding at a validated rate


def test_choice_when_the_saving_is_worth_the_loss_takes_the_cheaper(predict, basis):
    # b loses 0.05 and saves 0.8 of a call of a: worth -0.05 + 0.1 * 0.8 = 0.03 at rate 0.1.
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    prediction = predict([[0.8, 0.75]], cost=[[1.0, 0.2]])
    decision = decide(prediction, HOLD_A, basis=learned)[0]
    assert (decision.candidate.id, decision.default_id, decision.outcome) == ("b", "a", "switched")
    assert decision.ranking[0].reward == pytest.approx(0.03, abs=1e-6)
    assert decision.ranking[1].reward == 0.0
    assert "'b' stands in for 'a': it is expected to reach -0.050 performance" in decision.reason
    assert "0.8 USD less" in decision.reason


def test_choice_when_the_saving_is_not_worth_the_loss_stays(predict, basis):
    # -0.1 + 0.1 * 0.8 = -0.02; but at rate 0.5, which loses 0.02 on average: -0.1 + 0.4 = 0.3.
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    prediction = predict([[0.8, 0.7]], cost=[[1.0, 0.2]])
    stays = decide(prediction, HOLD_A, basis=learned)[0]
    assert (stays.candidate.id, stays.outcome) == ("a", "default")
    assert "nobody cheaper is sure enough" in stays.reason
    looser = RoutingPolicy(quality_of="a", max_loss=0.02)
    assert choose(prediction, looser, basis=learned).chosen.tolist() == [1]


def test_choice_when_the_rival_is_uncertain_counts_its_lower_bound(predict, basis):
    # Gains 0.1 and -0.2 in the members: mean -0.05, error 0.15, bound -0.2; worth -0.2 + 0.08 < 0.
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    prediction = predict([[[0.8, 0.9]], [[0.8, 0.6]]], cost=[[1.0, 0.2]])
    assert choose(prediction, HOLD_A, basis=learned).chosen.tolist() == [0]


def test_choice_never_takes_a_dearer_one_however_good(predict, basis):
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    decision = decide(predict([[0.1, 0.9]], cost=[[0.1, 0.2]]), HOLD_A, basis=learned)[0]
    assert decision.candidate.id == "a"
    assert decision.ranking[-1].excluded == "dearer than 'a', or not sure enough to be as good"


def test_choice_when_validation_held_nothing_takes_the_candidate_itself_and_says_so(predict, basis):
    learned = basis_with(basis, [0.1, 0.1, 0.1])
    decision = decide(predict([[0.5, 0.9]], cost=[[1.0, 0.2]]), HOLD_A, basis=learned)[0]
    assert decision.candidate.id == "a"
    assert "on validation data nobody cheaper held its quality" in decision.reason


def test_choice_when_all_prices_double_is_the_same(predict, basis):
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    prediction = predict([[0.8, 0.75], [0.8, 0.6]], cost=[[1.0, 0.2]] * 2, output_tokens=1e6)
    tokens = predict([[0.0, 0.0]], output_tokens=1e6)
    average = type(prediction)(
        candidates=prediction.candidates,
        performance_members=learned.average.performance_members,
        input_tokens=tokens.input_tokens,
        output_tokens=tokens.output_tokens,
        logged_cost_usd=learned.average.logged_cost_usd,
    )
    priced = type(learned)(average=average, cost_scale_usd=1.0, quality=learned.quality)
    double = PriceTable(prices={"m-a": Price(output_usd_per_mtok=2.0), "m-b": Price(output_usd_per_mtok=0.4)})
    once = choose(prediction, HOLD_A, basis=priced)
    twice = choose(prediction, HOLD_A, basis=priced, prices=double)
    assert once.chosen.tolist() == twice.chosen.tolist() == [1, 0]
    np.testing.assert_allclose(once.rewards, twice.rewards, rtol=1e-5)


def test_choice_when_the_wanted_candidate_may_not_answer_holds_its_quality_all_the_same(predict, basis):
    average = basis([0.9, 0.7, 0.8], cost=[1.0, 0.2, 0.4], scale=1.0)
    learned = type(average)(
        average=average.average, cost_scale_usd=1.0, quality=curves([-1.0, -1.0, 0.5], *[[NAN] * 3] * 2)
    )
    policy = RoutingPolicy(quality_of="a", allowed=frozenset("bc"))
    decision = decide(predict([[0.9, 0.5, 0.88]], cost=[[1.0, 0.2, 0.4]]), policy, basis=learned)[0]
    # b is worth -0.4 + 0.1 * 0.8 = -0.32, c -0.02 + 0.1 * 0.6 = 0.04.
    assert (decision.candidate.id, decision.default_id) == ("c", "c")
    assert "'c' stands in for 'a', which may not answer" in decision.reason
    assert decision.reason.endswith("That this holds its quality on average was not validated.")


def test_choice_when_only_the_wanted_candidate_may_answer_says_so(predict, basis):
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    policy = RoutingPolicy(quality_of="a", allowed=frozenset("a"))
    decision = decide(predict([[0.8, 0.75]], cost=[[1.0, 0.2]]), policy, basis=learned)[0]
    assert (decision.outcome, decision.reason) == ("only_eligible", "'a' is the only eligible candidate.")


def test_choice_when_only_dearer_ones_may_answer_takes_the_best_worth(predict, basis):
    learned = basis_with(basis, [-0.01, 0.0, 0.02])
    policy = RoutingPolicy(quality_of="a", allowed=frozenset("b"))
    decision = decide(predict([[0.5, 0.9]], cost=[[0.1, 0.2]]), policy, basis=learned)[0]
    assert (decision.candidate.id, decision.outcome) == ("b", "only_eligible")
    assert decision.reason == "'b' is the only eligible candidate, and 'a' itself is not."


# Deciding query by query, with a margin of the caller


@pytest.mark.parametrize(
    ("margin", "max_loss", "chosen"), [(0, 0, 0), (0, 0.05, 1), (1, 0.05, 0), (1, 0.2, 1)]
)
def test_margin_of_the_caller_binds_every_query_and_needs_no_validation(
    predict, basis, margin, max_loss, chosen
):
    # Mean gain -0.05, error 0.15.
    prediction = predict([[[0.8, 0.9]], [[0.8, 0.6]]], cost=[[1.0, 0.2]])
    policy = RoutingPolicy(quality_of="a", margin_z=margin, max_loss=max_loss)
    assert choose(prediction, policy, basis=basis_with(basis, None)).chosen.tolist() == [chosen]


def test_margin_of_the_caller_takes_the_cheapest_of_those_near_enough(predict, basis):
    average = basis([0.9, 0.7, 0.8], cost=[1.0, 0.2, 0.4])
    prediction = predict([[0.8, 0.80, 0.99], [0.8, 0.79, 0.81]], cost=[[1.0, 0.2, 0.4]] * 2)
    policy = RoutingPolicy(quality_of="a", margin_z=0.0)
    choice = choose(prediction, policy, basis=average)
    assert choice.chosen.tolist() == [1, 2]
    # a infinite margin trusts nobody else
    never = RoutingPolicy(quality_of="a", margin_z=math.inf)
    assert choose(prediction, never, basis=average).chosen.tolist() == [0, 0]


# Refusals


def test_quality_when_not_validated_is_refused_with_the_way_out(predict, basis):
    prediction = predict([[0.8, 0.75]], cost=[[1.0, 0.2]])
    with pytest.raises(InvalidPolicyError, match=r"not validated .*quality of 'a'.*margin_z=1.0"):
        choose(prediction, HOLD_A, basis=basis_with(basis, None))
    with pytest.raises(InvalidPolicyError, match="not validated"):
        choose(prediction, RoutingPolicy(quality_of="b"), basis=basis_with(basis, [0.0, 0.0, 0.0]))


def test_quality_of_an_unknown_candidate_or_one_of_unknown_cost_is_refused(predict, basis):
    prediction = predict([[0.8, 0.75]], cost=[[1.0, 0.2]])
    with pytest.raises(UnknownCandidateError, match="quality of 'z'"):
        choose(prediction, RoutingPolicy(quality_of="z"), basis=basis_with(basis, None))
    with pytest.raises(InvalidPolicyError, match="cost of 'a' is unknown"):
        choose(prediction, HOLD_A, basis=basis([0.8, 0.7], cost=[NAN, 0.2]))


# Validation


def noisy_problem(predict, *, n=4000, seed=0):
    """Half easy queries, which both solve; half hard ones, which only the dear one does, 9 of 10 times."""
    rng = np.random.default_rng(seed)
    chance = np.where((np.arange(n) < n // 2)[:, None], [0.9, 0.9], [0.9, 0.3])
    reached = (rng.random((n, 2)) < chance).astype(np.float32)
    seen = np.clip(chance + rng.normal(0, 0.02, size=(5, n, 2)), 0, 1)
    cost = np.broadcast_to(np.float32([1.0, 0.1]), (n, 2))
    return predict(seen, cost=cost), Outcomes(performance=reached, cost_usd=cost)


def test_validated_rate_holds_the_average_on_other_queries_and_saves(predict, basis):
    prediction, outcomes = noisy_problem(predict)
    learned = basis([0.9, 0.6], cost=[1.0, 0.1], scale=1.0)
    quality = validate_quality(prediction, outcomes, basis=learned, seed=0)
    learned = type(learned)(average=learned.average, cost_scale_usd=1.0, quality=quality)
    other, truth = noisy_problem(predict, seed=1)
    choice = choose(other, RoutingPolicy(quality_of="a", max_loss=0.01), basis=learned)
    rows = np.arange(len(choice.chosen))
    lost = truth.performance[:, 0].mean() - truth.performance[rows, choice.chosen].mean()
    assert lost < 0.025  # of both samples together the standard error is 0.0067 * 1.4
    assert (choice.chosen == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_validated_loss_is_that_of_the_choices_it_stands_for(predict, basis):
    prediction, outcomes = noisy_problem(predict, n=200)
    learned = basis([0.9, 0.6], cost=[1.0, 0.1], scale=1.0)
    quality = validate_quality(prediction, outcomes, basis=learned, seed=0)
    assert quality.rates == pytest.approx(np.float32(RATES))
    for position in (0, 10, len(RATES) - 1):
        only = QualityCurves(rates=quality.rates[[position]], loss=np.zeros((2, 1), dtype=np.float32))
        at_rate = type(learned)(average=learned.average, cost_scale_usd=1.0, quality=only)
        choice = choose(prediction, HOLD_A, basis=at_rate)
        reached = outcomes.performance[np.arange(200), choice.chosen]
        lost = (outcomes.performance[:, 0] - reached).mean()
        assert quality.loss[0, position] == pytest.approx(lost, abs=1e-6)


def test_validation_when_costs_are_unknown_finds_nothing(predict, basis):
    prediction, outcomes = noisy_problem(predict, n=40)
    bare = predict(prediction.performance_members)
    assert validate_quality(bare, outcomes, basis=basis([0.9, 0.6]), seed=0) is None
    half = predict(prediction.performance_members, cost=[1.0, NAN])
    learned = basis([0.9, 0.6], cost=[1.0, NAN])
    assert validate_quality(half, outcomes, basis=learned, seed=0) is None


def test_trained_router_holds_the_quality_of_each_candidate_and_never_costs_more(trained_router):
    queries = ["What is 17 plus 4? Give the number only.", "Write a line about rivers."]
    for candidate in trained_router.candidates:
        for decision in trained_router.route_batch(queries, policy=RoutingPolicy(quality_of=candidate.id)):
            costs = {ranked.candidate_id: ranked.cost_usd for ranked in decision.ranking}
            assert decision.expected_cost_usd <= costs[candidate.id] + 1e-9
