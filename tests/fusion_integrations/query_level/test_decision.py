import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusion_integrations.errors import InvalidPolicyError, NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.query_level.decision import choose, decide, reward
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Candidate, Price, PriceTable

NAN = np.nan
ALWAYS = RoutingPolicy(margin_z=0.0)


# Reward


def test_reward_worked_by_hand():
    # (1 - 0.25) * 0.8 - 0.25 * 0.01 / 0.02 = 0.6 - 0.125.
    value = reward(np.float32([0.8]), np.float32([0.01]), cost_weight=0.25, cost_scale_usd=0.02)
    np.testing.assert_allclose(value, [0.475], rtol=1e-6)


def test_reward_when_cost_is_unknown_is_unknown_only_if_cost_counts():
    performance, cost = np.float32([0.8]), np.float32([NAN])
    assert reward(performance, cost, cost_weight=0.0, cost_scale_usd=1.0) == performance
    assert np.isnan(reward(performance, cost, cost_weight=0.5, cost_scale_usd=1.0)).all()


@given(st.floats(0, 1), st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_reward_when_cost_is_within_the_scale_lies_between_minus_one_and_one(weight, performance, cost):
    value = reward(np.float32([performance]), np.float32([cost]), cost_weight=weight, cost_scale_usd=1.0)
    assert -1 <= value[0] <= 1


# The default and the margin


def test_choice_when_the_gain_is_certain_leaves_the_default(predict, basis):
    choice = choose(predict([[0.5, 0.9]]), RoutingPolicy(margin_z=2.0), basis=basis([0.6, 0.4]))
    assert (choice.default.tolist(), choice.chosen.tolist()) == ([0], [1])
    np.testing.assert_allclose(choice.gain, [[0.0, 0.4]], atol=1e-6)


@pytest.mark.parametrize(("margin", "chosen"), [(0.0, 1), (0.9, 1), (1.1, 0), (math.inf, 0)])
def test_choice_when_the_gain_is_uncertain_depends_on_the_margin(predict, basis, margin, chosen):
    # Gains 0.0 and 0.6 in the two members: mean 0.3, standard error 0.3, so one error decides.
    members = [[[0.2, 0.2]], [[0.2, 0.8]]]
    choice = choose(predict(members), RoutingPolicy(margin_z=margin), basis=basis([0.5, 0.4]))
    assert choice.chosen.tolist() == [chosen]


def test_choice_takes_the_largest_of_the_convincing_gains(predict, basis):
    # b gains 0.2 in both members, c 0.1 and 0.5: 0.3 +- 0.2, not convincing at 2 errors.
    members = [[[0.2, 0.4, 0.3]], [[0.2, 0.4, 0.7]]]
    average = basis([0.9, 0.1, 0.1])
    assert choose(predict(members), RoutingPolicy(margin_z=2.0), basis=average).chosen.tolist() == [1]
    assert choose(predict(members), ALWAYS, basis=average).chosen.tolist() == [2]


def test_choice_when_predictions_tie_keeps_the_default(predict, basis):
    choice = choose(predict([[0.5, 0.5, 0.5]]), ALWAYS, basis=basis([0.1, 0.9, 0.1]))
    assert choice.chosen.tolist() == [1]


def test_choice_when_predictions_tie_up_to_rounding_keeps_the_default(predict, basis):
    # Two matrix products of equal numbers may differ in the last bits, by batch size for instance.
    almost = np.nextafter(np.float32(0.5), np.float32(1))
    choice = choose(predict([[almost, 0.5]]), ALWAYS, basis=basis([0.1, 0.9]))
    assert choice.chosen.tolist() == [1]


def test_choice_when_rivals_tie_takes_the_first(predict, basis):
    assert choose(predict([[0.1, 0.9, 0.9]]), ALWAYS, basis=basis([0.9, 0, 0])).chosen.tolist() == [1]


def test_default_when_averages_tie_is_the_first(predict, basis):
    assert choose(predict([[0.5, 0.5, 0.5]]), ALWAYS, basis=basis([0.4, 0.4, 0.4])).default.tolist() == [0]


def test_margin_when_the_policy_has_none_is_the_validated_one_of_the_nearest_cost_weight(basis):
    learned = basis([0.5], margins={0.0: 1.0, 0.5: 2.0, 0.8: math.inf})
    weights = (0.0, 0.2, 0.3, 0.6, 0.7, 1.0)
    margins = [learned.margin_for(RoutingPolicy(cost_weight=weight)) for weight in weights]
    assert margins == [1.0, 1.0, 2.0, 2.0, math.inf, math.inf]
    assert learned.margin_for(RoutingPolicy(cost_weight=0.8, margin_z=0.5)) == 0.5
    assert basis([0.5]).margin_for(RoutingPolicy()) == 1.0


# Cost


def test_choice_when_cost_counts_weighs_it(predict, basis):
    # Rewards 0.5 * 0.6 - 0.5 * 0.1 = 0.25 and 0.5 * 0.9 - 0.5 * 1.0 = -0.05.
    average = basis([0.6, 0.9], cost=[0.1, 1.0], scale=1.0)
    prediction = predict([[0.6, 0.9]], cost=[[0.1, 1.0]])
    assert choose(prediction, ALWAYS, basis=average).chosen.tolist() == [1]
    choice = choose(prediction, RoutingPolicy(cost_weight=0.5, margin_z=0.0), basis=average)
    assert (choice.default.tolist(), choice.chosen.tolist()) == ([0], [0])
    np.testing.assert_allclose(choice.rewards, [[0.25, -0.05]], rtol=1e-5)


def test_scale_of_the_policy_goes_before_the_routers(predict, basis):
    # 0.5 * 0.9 - 0.5 * 0.1 / 10 = 0.445 with the policy's scale of 10 USD.
    policy = RoutingPolicy(cost_weight=0.5, cost_scale_usd=10.0)
    choice = choose(predict([[0.9]], cost=0.1), policy, basis=basis([0.9], cost=0.1, scale=0.1))
    np.testing.assert_allclose(choice.rewards, [[0.445]], rtol=1e-6)


def test_choice_when_cost_counts_but_no_scale_is_known_refuses(predict, basis):
    prediction, average = predict([[0.6, 0.9]]), basis([0.6, 0.9])
    with pytest.raises(InvalidPolicyError, match="cost_scale_usd"):
        choose(prediction, RoutingPolicy(cost_weight=0.5), basis=average)
    assert choose(prediction, ALWAYS, basis=average).chosen.tolist() == [1]


def test_choice_when_a_cost_is_unknown_excludes_that_candidate_only_if_cost_counts(predict, basis):
    prediction = predict([[0.5, 0.9]], cost=[[0.1, NAN]])
    average = basis([0.5, 0.9], cost=[0.1, NAN], scale=1.0)
    assert choose(prediction, RoutingPolicy(), basis=average).default.tolist() == [1]
    for policy in (RoutingPolicy(cost_weight=0.1), RoutingPolicy(max_cost_usd=5.0)):
        choice = choose(prediction, policy, basis=average)
        assert choice.chosen.tolist() == [0]
        assert "cost unknown" in choice.excluded[0, 1]


def test_default_when_only_its_usual_cost_is_unknown_is_another(predict, basis):
    # Priced for this query, but not on average: it may be chosen, it is not what is chosen blindly.
    prediction = predict([[0.5, 0.9]], cost=[[0.1, 0.1]])
    average = basis([0.5, 0.9], cost=[0.1, NAN], scale=1.0)
    choice = choose(prediction, RoutingPolicy(cost_weight=0.1, margin_z=0.0), basis=average)
    assert (choice.default.tolist(), choice.chosen.tolist()) == ([0], [1])


def test_default_when_prices_change_changes(predict, basis):
    prediction = predict([[0.5, 0.5]], input_tokens=1000, output_tokens=1000)
    average = basis([0.6, 0.5], scale=1.0, input_tokens=1000, output_tokens=1000)
    policy = RoutingPolicy(cost_weight=0.5, margin_z=math.inf)

    def default_at(a, b):
        prices = {f"m-{name}": Price(output_usd_per_mtok=usd) for name, usd in (("a", a), ("b", b))}
        return decide(prediction, policy, basis=average, prices=PriceTable(prices=prices))[0].default_id

    # 1000 tokens at 100 USD a million cost 0.1 USD: at equal prices a leads by 0.1, then b does by 0.4.
    assert default_at(100, 100) == "a"
    assert default_at(600, 100) == "b"


def test_budget_excludes_what_is_dearer_and_keeps_what_is_exactly_as_dear(predict, basis):
    prediction = predict([[0.9, 0.5, 0.4]], cost=[[0.2, 0.1, 0.05]])
    decision = decide(
        prediction, RoutingPolicy(max_cost_usd=0.1, margin_z=0.0), basis=basis([0.9, 0.5, 0.4])
    )[0]
    assert decision.candidate.id == "b"
    assert decision.expected_cost_usd == pytest.approx(0.1)
    excluded = {ranked.candidate_id: ranked.excluded for ranked in decision.ranking}
    assert excluded == {"b": None, "c": None, "a": "over the budget of 0.1 USD a call"}


# Wanted performance, allowed candidates, capabilities


def test_min_performance_keeps_those_who_reach_it(predict, basis):
    # Cheapest first, but at least 0.7: b reaches it exactly, a is cheaper and below.
    prediction = predict([[0.6, 0.7, 0.9]], cost=[[0.0, 0.5, 1.0]])
    policy = RoutingPolicy(cost_weight=1.0, min_performance=0.7, margin_z=0.0)
    decision = decide(prediction, policy, basis=basis([0.6, 0.7, 0.9], cost=[0, 0.5, 1], scale=1.0))[0]
    assert decision.candidate.id == "b"
    assert "wanted performance" not in decision.reason
    assert decision.ranking[-1].excluded == "expected performance below 0.7"


def test_min_performance_when_nobody_reaches_it_keeps_the_nearest_and_says_so(predict, basis):
    prediction = predict([[0.6, 0.7, 0.5]])
    decision = decide(prediction, RoutingPolicy(min_performance=0.9), basis=basis([0.9, 0.1, 0.1]))[0]
    assert (decision.candidate.id, decision.default_id, decision.outcome) == ("b", "b", "only_eligible")
    assert decision.reason.endswith("No eligible candidate is expected to reach the wanted performance 0.9.")


def test_min_performance_when_the_nearest_is_over_budget_keeps_the_nearest_within(predict, basis):
    prediction = predict([[0.9, 0.5, 0.4]], cost=[[9.0, 0.1, 0.1]])
    policy = RoutingPolicy(min_performance=0.7, max_cost_usd=1.0)
    assert decide(prediction, policy, basis=basis([0.9, 0.5, 0.4]))[0].candidate.id == "b"


def test_allowed_limits_the_choice_and_the_default(predict, basis):
    policy = RoutingPolicy(allowed=frozenset({"b", "c"}), margin_z=math.inf)
    decision = decide(predict([[0.9, 0.1, 0.2]]), policy, basis=basis([0.9, 0.3, 0.2]))[0]
    assert (decision.candidate.id, decision.default_id) == ("b", "b")
    assert decision.ranking[-1].excluded == "not allowed"


def test_allowed_when_it_names_an_unknown_candidate_refuses(predict, basis):
    policy = RoutingPolicy(allowed=frozenset({"a", "z", "y"}))
    with pytest.raises(UnknownCandidateError, match=r"allows \['y', 'z'\].*Known: \['a', 'b'\]"):
        choose(predict([[0.9, 0.1]]), policy, basis=basis([0.9, 0.3]))


def test_required_capabilities_exclude_who_lacks_one(predict, basis):
    able = (
        Candidate(id="a", model="x", capabilities=frozenset({"tools"})),
        Candidate(id="b", model="x", capabilities=frozenset({"tools", "vision"})),
    )
    policy = RoutingPolicy(required_capabilities=frozenset({"tools", "vision"}))
    decision = decide(predict([[0.9, 0.1]], candidates=able), policy, basis=basis([0.9, 0.3]))[0]
    assert (decision.candidate.id, decision.outcome) == ("b", "only_eligible")
    assert decision.ranking[-1].excluded == "lacks vision"


def test_choice_when_nobody_is_eligible_lists_every_reason(predict, basis):
    prediction = predict([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5]], cost=[[0.1, 0.1, 0.1], [9.0, 0.1, NAN]])
    policy = RoutingPolicy(allowed=frozenset({"a", "c"}), max_cost_usd=1.0)
    with pytest.raises(NoEligibleCandidateError) as caught:
        choose(prediction, policy, basis=basis([0.9, 0.3, 0.2]))
    message = str(caught.value)
    assert "for 1 of 2 queries" in message
    for part in ("'a': over the budget of 1 USD", "'b': not allowed", "'c': cost unknown"):
        assert part in message


def test_choice_when_nobody_is_allowed_refuses(predict, basis):
    with pytest.raises(NoEligibleCandidateError, match="'a': not allowed"):
        choose(predict([[0.9]]), RoutingPolicy(allowed=frozenset()), basis=basis([0.9]))


# Explanations


def test_decision_when_switched_explains_itself(predict, basis):
    policy = RoutingPolicy(margin_z=1.0)
    decision = decide(predict([[0.5, 0.9]]), policy, basis=basis([0.6, 0.4]))[0]
    assert decision.outcome == "switched"
    assert (decision.candidate.id, decision.default_id) == ("b", "a")
    assert "gain 0.400 reward over the best single candidate 'a'" in decision.reason
    assert [ranked.candidate_id for ranked in decision.ranking] == ["b", "a"]
    assert (decision.propensity, decision.margin_z, decision.artifact) == (1.0, 1.0, "digest")
    assert decision.policy_fingerprint == policy.fingerprint


@pytest.mark.parametrize(
    ("performance", "margin", "words"),
    [
        ([0.6, 0.4], 0.0, "also the best prediction"),
        ([0.4, 0.4], 0.0, "also the best prediction"),
        ([0.4, 0.6], math.inf, "'a' is expected to gain only 0.200 reward over it"),
    ],
)
def test_decision_when_the_default_is_kept_explains_itself(predict, basis, performance, margin, words):
    # b is the default and comes second, so that a tie is not hidden by the order.
    prediction = predict([performance[::-1]])
    decision = decide(prediction, RoutingPolicy(margin_z=margin), basis=basis([0.4, 0.6]))[0]
    assert (decision.candidate.id, decision.outcome) == ("b", "default")
    assert words in decision.reason


def test_decision_of_one_candidate_says_there_was_no_choice(predict, basis):
    decision = decide(predict([[0.5]]), RoutingPolicy(), basis=basis([0.5]))[0]
    assert decision.outcome == "only_eligible"


def test_decision_as_json_is_json_even_where_numbers_are_infinite_or_unknown(predict, basis):
    policy = RoutingPolicy(margin_z=math.inf, allowed=frozenset("a"))
    decision = decide(predict([[0.5, 0.9]]), policy, basis=basis([0.5, 0.9]))[0]
    data = json.loads(json.dumps(decision.to_json(), allow_nan=False))
    assert data["candidate"] == "a"
    assert data["margin_z"] is data["expected_cost_usd"] is data["ranking"][1]["reward"] is None


def test_decision_gives_intervals_from_the_calibrated_error_within_0_and_1(predict, basis):
    # Members 0.4 and 0.6: mean 0.5, error 0.1, calibrated 0.2, so 0.5 -/+ 0.392; the other 0.95 -/+ 0.392.
    prediction = predict([[[0.4, 0.85]], [[0.6, 1.05]]])
    learned = replace(basis([0.5, 0.5]), se_scale=2.0)
    ranked = {r.candidate_id: r for r in decide(prediction, ALWAYS, basis=learned)[0].ranking}
    assert ranked["a"].performance_se == pytest.approx(0.1)
    assert (ranked["a"].performance_low, ranked["a"].performance_high) == pytest.approx((0.108, 0.892))
    assert (ranked["b"].performance_low, ranked["b"].performance_high) == pytest.approx((0.558, 1.0))


# Properties


@st.composite
def problems(draw):
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    tenths = st.integers(0, 10).map(lambda i: i / 10)
    members = draw(st.lists(tenths, min_size=2 * n * k, max_size=2 * n * k))
    costs = draw(st.lists(st.one_of(tenths, st.just(NAN)), min_size=n * k, max_size=n * k))
    average = draw(st.lists(tenths, min_size=k, max_size=k, unique=True))
    policy = RoutingPolicy(
        cost_weight=draw(st.sampled_from([0.0, 0.2, 1.0])),
        min_performance=draw(st.sampled_from([None, 0.0, 0.5, 1.0])),
        max_cost_usd=draw(st.sampled_from([None, 0.5])),
        margin_z=draw(st.sampled_from([0.0, 1.0, math.inf])),
    )
    return np.reshape(members, (2, n, k)), np.reshape(costs, (n, k)), average, policy


@given(problems(), st.randoms(use_true_random=False))
def test_decisions_when_candidates_are_permuted_are_the_same(predict, basis, named, problem, random):
    members, costs, average, policy = problem
    assume(policy.cost_weight < 1)  # where cost alone counts, equal costs are equal rewards
    k = members.shape[2]
    # Distinct rewards: among equal ones the order of the candidates decides, as documented.
    costs = costs + np.arange(k) / 1000
    members = members + np.arange(k) / 100 + np.array([0, 1e-3])[:, None, None] * np.arange(k)
    order = random.sample(range(k), k)
    names = [named("abcde")[i] for i in range(k)]
    average_cost = np.array([NAN, 0.6, 0.7, 0.8, 0.9])[:k]

    def outcome(columns):
        prediction = predict(
            members[:, :, columns], cost=costs[:, columns], candidates=[names[i] for i in columns]
        )
        learned = basis([average[i] for i in columns], cost=average_cost[columns], scale=1.0)
        try:
            decisions = decide(prediction, policy, basis=learned)
        except NoEligibleCandidateError:
            return None
        return [(d.candidate.id, d.default_id, d.outcome, d.expected_cost_usd) for d in decisions]

    assert outcome(order) == outcome(list(range(k)))


@given(problems())
def test_decisions_obey_the_policy_and_do_not_depend_on_the_batch(predict, basis, problem):
    members, costs, average, policy = problem
    learned = basis(average, cost=0.5, scale=1.0)
    try:
        together = decide(predict(members, cost=costs), policy, basis=learned)
    except NoEligibleCandidateError:
        assert policy.needs_cost
        return
    for row, decision in enumerate(together):
        alone = decide(predict(members[:, [row]], cost=costs[[row]]), policy, basis=learned)
        assert alone == [decision]
        chosen = {ranked.candidate_id: ranked for ranked in decision.ranking}[decision.candidate.id]
        assert chosen.excluded is None
        assert not (policy.needs_cost and chosen.cost_usd is None)
        assert not (policy.max_cost_usd is not None and chosen.cost_usd > policy.max_cost_usd + 1e-6)
        rewards = [ranked.reward for ranked in decision.ranking if ranked.reward is not None]
        assert rewards == sorted(rewards, reverse=True)
        assert (decision.outcome == "switched") == (decision.candidate.id != decision.default_id)
        assert not (policy.margin_z == math.inf and decision.outcome == "switched")
