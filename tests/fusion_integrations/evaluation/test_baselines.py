import numpy as np
import pytest

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.baselines import (
    best_per_task,
    best_single,
    oracle,
    random_baseline,
    select_columns,
    training_means,
)

NAN = np.nan
UNKNOWN = np.full((3, 2), NAN)
# Training means 1/3 and 3/4; on "math" 1/8 and 1, on "prose" 3/4 and 1/4.
TRAIN = np.array([[0.0, 1.0], [0.25, 1.0], [0.75, 0.25]])
TRAIN_TASKS = ("math", "math", "prose")


def test_random_when_all_are_available_is_the_row_mean():
    values = np.array([[0.0, 1.0], [0.5, 0.0]])
    assert random_baseline(values).expected(values).tolist() == [0.5, 0.25]


def test_random_when_one_is_unavailable_leaves_it_out():
    selection = random_baseline(np.array([[0.2, NAN, 0.4]]))
    assert selection.weights.tolist() == [[0.5, 0.0, 0.5]]


def test_best_single_takes_the_best_training_mean_for_every_query():
    assert best_single(TRAIN, propensity=UNKNOWN, n_queries=2).weights.tolist() == [[0, 1], [0, 1]]


def test_best_single_when_tied_takes_the_earlier_candidate():
    tied = np.array([[0.25, 0.5, 0.5]])
    assert best_single(tied, propensity=np.full((1, 3), NAN), n_queries=1).weights.tolist() == [[0, 1, 0]]


def test_best_single_when_nothing_is_known_refuses():
    with pytest.raises(NotEnoughLogsError, match="no reward of any candidate"):
        best_single(UNKNOWN, propensity=UNKNOWN, n_queries=1)


def test_best_per_task_follows_the_label_and_falls_back_where_it_is_new_or_missing():
    selection = best_per_task(
        ("math", "prose", "chess", None), train_rewards=TRAIN, train_tasks=TRAIN_TASKS, propensity=UNKNOWN
    )
    assert selection.weights.argmax(axis=1).tolist() == [1, 0, 1, 1]


def test_best_per_task_when_the_task_has_no_training_reward_falls_back():
    rewards = np.array([[NAN, NAN], [0.25, 1.0], [0.75, 0.25]])  # means 0.5 and 0.625
    selection = best_per_task(
        ("chess",), train_rewards=rewards, train_tasks=("chess", "math", "prose"), propensity=UNKNOWN
    )
    assert selection.weights.tolist() == [[0, 1]]


def test_oracle_takes_the_row_maximum_and_ignores_what_is_unavailable():
    rewards = np.array([[0.25, 0.5, NAN], [NAN, -0.5, -0.25]])
    assert oracle(rewards, cost_usd=np.zeros((2, 3))).weights.argmax(axis=1).tolist() == [1, 2]


def test_oracle_when_tied_takes_the_cheaper_then_the_earlier():
    rewards = np.ones((3, 3))
    cost = np.array([[3.0, 1.0, 2.0], [NAN, 2.0, 2.0], [NAN, NAN, NAN]])
    assert oracle(rewards, cost_usd=cost).weights.argmax(axis=1).tolist() == [1, 1, 0]


def test_expected_when_an_unchosen_value_is_unknown_ignores_it():
    selection = select_columns("any", np.array([0, 1]), n_candidates=2)
    values = selection.expected(np.array([[0.5, NAN], [0.5, NAN]]))
    assert values[0] == 0.5
    assert np.isnan(values[1])


def test_training_means_when_complete_are_plain_means():
    propensity = np.full((3, 2), 0.5)
    np.testing.assert_allclose(training_means(TRAIN, propensity=propensity), [1 / 3, 0.75])


def test_training_means_when_partial_weigh_by_propensity():
    # (0 / 0.2 + 1 / 0.8) / (1 / 0.2 + 1 / 0.8) = 1.25 / 6.25 = 0.2; the plain mean would be 0.5.
    values, propensity = np.array([[0.0], [1.0], [NAN]]), np.array([[0.2], [0.8], [NAN]])
    np.testing.assert_allclose(training_means(values, propensity=propensity), [0.2])


def test_training_means_when_a_candidate_never_answered_is_nan():
    means = training_means(np.array([[0.5, NAN]]), propensity=np.full((1, 2), NAN))
    assert means[0] == 0.5
    assert np.isnan(means[1])
