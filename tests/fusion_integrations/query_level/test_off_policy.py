import numpy as np
import pytest

from fusion_integrations.query_level.off_policy import (
    cell_chances,
    doubly_robust,
    effective_sample_size,
    importance_weights,
    self_normalised_mean,
)

NAN = np.nan


def matrix(rows):
    return np.array(rows, dtype=np.float32)


def test_estimate_on_full_logs_is_what_was_observed():
    rng = np.random.default_rng(0)
    observed, predicted = rng.random((50, 3), dtype=np.float32), rng.random((50, 3), dtype=np.float32)
    for propensity in (np.ones((50, 3)), np.full((50, 3), NAN)):
        np.testing.assert_allclose(
            doubly_robust(observed, predicted, matrix(propensity)), observed, atol=1e-6
        )


def test_estimate_worked_by_hand():
    # Answered with probability 0.5: 0.4 + (1.0 - 0.4) / 0.5 = 1.6. Not answered: the prediction.
    estimate = doubly_robust(matrix([[1.0, NAN]]), matrix([[0.4, 0.3]]), matrix([[0.5, NAN]]))
    np.testing.assert_allclose(estimate, [[1.6, 0.3]], rtol=1e-6)
    assert estimate.dtype == np.float32


def test_estimate_when_the_propensity_is_unknown_takes_the_share_of_answers():
    # Candidate 0 answered 2 of 4 queries: 0.5 + (1.0 - 0.5) / 0.5 = 1.5 and 0.5 + (0.0 - 0.5) / 0.5 = -0.5.
    observed = matrix([[1.0], [0.0], [NAN], [NAN]])
    estimate = doubly_robust(observed, np.full_like(observed, 0.5), np.full_like(observed, NAN))
    np.testing.assert_allclose(estimate, [[1.5], [-0.5], [0.5], [0.5]], rtol=1e-6)


def test_estimate_when_a_cell_is_very_rare_is_capped():
    # 1 / 0.001 would be 1000; the weight stops at 1 / 0.002 = 500.
    estimate = doubly_robust(matrix([[1.0]]), matrix([[0.0]]), matrix([[0.001]]))
    np.testing.assert_allclose(estimate, [[500.0]], rtol=1e-6)


def test_estimate_when_nothing_is_predicted_or_observed_stays_unknown():
    estimate = doubly_robust(matrix([[NAN], [1.0]]), matrix([[NAN], [NAN]]), matrix([[NAN], [1.0]]))
    assert np.isnan(estimate).all()


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_estimate_over_many_logs_is_unbiased_even_if_the_predictions_are_not(bias):
    # One answer a query, by a policy that prefers whoever is better on that kind of query, so that the plain
    # mean of the answers overrates both. Truth: each candidate solves its half of the queries, 0.5.
    rng = np.random.default_rng(1)
    n = 40_000
    is_sum = rng.random(n) < 0.5
    truth = np.stack([is_sum, ~is_sum], axis=1).astype(np.float32)
    chance = np.where(truth == 1, 0.8, 0.2).astype(np.float32)
    chosen = (rng.random(n) >= chance[:, 0]).astype(int)
    observed = np.full((n, 2), NAN, dtype=np.float32)
    observed[np.arange(n), chosen] = truth[np.arange(n), chosen]
    assert np.nanmean(observed, axis=0).min() > 0.75  # 0.8 expected: what naive averages would say
    estimate = doubly_robust(observed, np.full((n, 2), 0.5 + bias, dtype=np.float32), chance)
    # The variance of one term is at most 1 / 0.2 = 5: the standard error of the mean is below 0.011.
    np.testing.assert_allclose(estimate.mean(axis=0), [0.5, 0.5], atol=0.04)


def test_estimates_of_candidates_that_were_explored_with_a_few_percent_are_unbiased():
    # Epsilon 0.1 among five: each is drawn with 0.02. The model is wrong by 0.4, as their answers must show.
    rng = np.random.default_rng(1)
    n = 40_000
    observed = np.full((n, 2), NAN, dtype=np.float32)
    observed[rng.random(n) < 0.02, 0] = 0.9
    few = rng.permutation(n)[: n // 50]
    observed[few, 1] = 0.9  # who was asked as seldom, nobody knows why
    propensity = np.tile(np.float32([[0.02, NAN]]), (n, 1))
    estimate = doubly_robust(observed, np.full((n, 2), 0.5, dtype=np.float32), propensity)
    np.testing.assert_allclose(estimate.mean(axis=0), [0.9, 0.9], atol=0.05)


def test_chance_of_a_cell_is_what_was_logged_else_the_share_of_answers_and_never_tiny():
    observed = matrix([[1.0, NAN], [1.0, NAN], [NAN, 1.0], [NAN, NAN]])
    chances = cell_chances(observed, matrix([[0.25, NAN], [NAN, 0.001], [NAN, NAN], [NAN, NAN]]))
    np.testing.assert_allclose(chances, [[0.25, 0.25], [0.5, 0.002], [0.5, 0.25], [0.5, 0.25]])


def test_self_normalised_mean_worked_by_hand():
    # Always candidate 0: logged values 1 and 0 with weights 1 / 0.5 and 1 / 0.25, so 2 / 6.
    observed = matrix([[1.0, NAN], [0.0, NAN], [NAN, 1.0]])
    propensity = matrix([[0.5, NAN], [0.25, NAN], [NAN, 0.5]])
    always = np.tile([1.0, 0.0], (3, 1))
    mean, size = self_normalised_mean(observed, propensity, always)
    assert mean == pytest.approx(1 / 3)
    assert size == pytest.approx(36 / 20)  # (2 + 4)^2 / (4 + 16)


def test_self_normalised_mean_on_complete_logs_is_the_mean():
    observed = matrix([[1.0, 0.0], [0.5, 1.0]])
    mean, size = self_normalised_mean(observed, np.full((2, 2), NAN), np.full((2, 2), 0.5))
    assert (mean, size) == (pytest.approx(0.625), pytest.approx(2.0))


def test_self_normalised_mean_when_nothing_chosen_was_logged_is_unknown():
    observed = matrix([[1.0, NAN]])
    assert self_normalised_mean(observed, observed, np.array([[0.0, 1.0]])) == (None, 0.0)


def test_effective_size_of_answers_worked_by_hand():
    # (1 + 1 + 2)^2 / (1 + 1 + 4); a candidate without answers has none.
    sizes = effective_sample_size(matrix([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    np.testing.assert_allclose(sizes, [16 / 6, 0.0], rtol=1e-6)


def test_importance_weights_worked_by_hand():
    # Known chances 0.5 and 0.25 give 2 and 4, mean 3; an unknown one counts 1, what is missing 0.
    weights = importance_weights(matrix([[1.0], [1.0], [1.0], [NAN]]), matrix([[0.5], [0.25], [NAN], [0.5]]))
    np.testing.assert_allclose(weights[:, 0], [2 / 3, 4 / 3, 1.0, 0.0], rtol=1e-6)
