import numpy as np
import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.choice import choose
from fusion_integrations.query_level.decision import decide
from fusion_integrations.query_level.exploration import generators_for
from fusion_integrations.query_level.policy import RoutingPolicy

EPSILON = RoutingPolicy(exploration="epsilon", epsilon=0.3, margin_z=0.0)
THOMPSON = RoutingPolicy(exploration="thompson")


def seeded(n, seed=0):
    return generators_for(np.random.default_rng(seed), [""] * n)


def test_epsilon_takes_each_candidate_as_often_as_it_says(predict, basis):
    n = 20_000
    prediction = predict(np.broadcast_to([0.2, 0.9, 0.5], (n, 3)))
    choice = choose(prediction, EPSILON, basis=basis([0.5, 0.4, 0.3]), generators=seeded(n))
    # The favourite 0.7 + 0.3 / 3 = 0.8, the others 0.1 each; standard error 0.003.
    shares = np.bincount(choice.chosen, minlength=3) / n
    np.testing.assert_allclose(shares, [0.1, 0.8, 0.1], atol=0.012)
    np.testing.assert_allclose(choice.propensity, np.float64([0.1, 0.8, 0.1])[choice.chosen])
    assert set(choice.favourite.tolist()) == {1}


def test_epsilon_stays_among_the_eligible_and_within_the_budget(predict, basis):
    n = 500
    prediction = predict(np.broadcast_to([0.2, 0.9, 0.5], (n, 3)), cost=[0.1, 9.0, 0.1])
    policy = RoutingPolicy(exploration="epsilon", epsilon=1.0, max_cost_usd=1.0)
    choice = choose(prediction, policy, basis=basis([0.5, 0.4, 0.3]), generators=seeded(n))
    assert set(choice.chosen.tolist()) == {0, 2}
    assert set(choice.propensity.tolist()) == {0.5}


def test_inverse_propensity_estimate_from_explored_choices_is_unbiased(predict, basis):
    # Candidate c always reaches 0.5; weighing what was seen of it by 1 / propensity gives that back.
    n = 20_000
    prediction = predict(np.broadcast_to([[[0.2, 0.9, 0.5]], [[0.6, 0.7, 0.9]]], (2, n, 3)))
    for policy in (EPSILON, THOMPSON):
        choice = choose(prediction, policy, basis=basis([0.5, 0.4, 0.3]), generators=seeded(n))
        estimate = np.where(choice.chosen == 2, 0.5 / choice.propensity, 0.0).mean()
        assert estimate == pytest.approx(0.5, abs=0.03)


def test_thompson_takes_each_candidate_as_often_as_it_may_be_best(predict, basis):
    # Members differ by 0.2 in b alone: gain 0.1 with a jackknife error of 0.1, so b is better with
    # probability Phi(1) = 0.841.
    n = 20_000
    prediction = predict(np.broadcast_to([[[0.5, 0.5]], [[0.5, 0.7]]], (2, n, 2)))
    choice = choose(prediction, THOMPSON, basis=basis([0.9, 0.1]), generators=seeded(n))
    assert (choice.chosen == 1).mean() == pytest.approx(0.841, abs=0.01)
    of_b = choice.propensity[choice.chosen == 1]
    assert of_b.mean() == pytest.approx(0.841, abs=0.01)


def test_thompson_when_everything_is_certain_takes_the_best_for_sure(predict, basis):
    choice = choose(predict([[0.5, 0.7, 0.6]]), THOMPSON, basis=basis([0.9, 0.1, 0.1]), generators=seeded(1))
    assert (choice.chosen.tolist(), choice.propensity.tolist()) == ([1], [1.0])


def test_thompson_stays_among_the_eligible(predict, basis):
    members = np.random.default_rng(0).random((5, 200, 3))
    policy = RoutingPolicy(exploration="thompson", allowed=frozenset("ac"))
    choice = choose(predict(members), policy, basis=basis([0.5, 0.5, 0.5]), generators=seeded(200))
    assert 1 not in choice.chosen
    assert choice.propensity.min() >= 1 / 256


def test_exploration_when_seeded_depends_on_the_query_not_on_its_batch(trained_router):
    policy = RoutingPolicy(exploration="epsilon", epsilon=1.0)
    texts = [f"Write a line about {topic}." for topic in ("rivers", "trains", "bread", "winter", "figs")]
    together = trained_router.route_batch(texts, policy=policy, random=7)
    alone = [trained_router.route(text, policy=policy, random=7) for text in texts]
    assert [d.candidate for d in together] == [d.candidate for d in alone]
    other = trained_router.route_batch(texts, policy=policy, random=8)
    assert [d.candidate for d in together] != [d.candidate for d in other]


def test_exploration_when_a_generator_is_passed_goes_on_drawing(trained_router):
    policy = RoutingPolicy(exploration="epsilon", epsilon=1.0)
    generator = np.random.default_rng(0)
    drawn = {trained_router.route("Hello", policy=policy, random=generator).candidate.id for _ in range(40)}
    assert drawn == {"calculator", "thinker", "writer"}


def test_decision_when_explored_says_so_with_its_probability(predict, basis):
    policy = RoutingPolicy(exploration="epsilon", epsilon=1.0, margin_z=0.0)
    n = 50
    prediction = predict(np.broadcast_to([0.2, 0.9], (n, 2)))
    decisions = decide(prediction, policy, basis=basis([0.5, 0.4]), generators=seeded(n))
    explored = [decision for decision in decisions if decision.candidate.id == "a"]
    assert {decision.outcome for decision in explored} == {"explored"}
    assert "'a' was taken to explore (epsilon), with a probability of 0.5." in explored[0].reason
    assert "'b' is expected to gain" in explored[0].reason
    assert {d.propensity for d in decisions} == {0.5}
    kept = [decision for decision in decisions if decision.candidate.id == "b"]
    assert {decision.outcome for decision in kept} == {"switched"}


def test_exploration_without_a_random_source_is_refused(trained_router):
    with pytest.raises(InvalidPolicyError, match="random=<seed"):
        trained_router.route("Hello", policy=THOMPSON)
    for seed in (-1, 0.5):
        with pytest.raises(InvalidPolicyError, match=f"at least 0, got {seed}"):
            trained_router.route("Hello", policy=THOMPSON, random=seed)


def test_policy_that_does_not_explore_leaves_the_random_source_alone(trained_router):
    generator = np.random.default_rng(0)
    trained_router.route("Hello", random=generator)
    assert generator.random() == np.random.default_rng(0).random()
