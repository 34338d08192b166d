import threading

import numpy as np
import pytest

from fusion_integrations.query_level.heads.xgboost import XGBoostHead, XGBoostHeadConfig, fit_xgboost_head
from fusion_integrations.testing import head_inputs

CONFIG = XGBoostHeadConfig(n_rounds=60, learning_rate=0.2, column_share=1.0, l2_penalty=0.1)


@pytest.fixture(scope="module")
def head_and_inputs():
    """Target 0 is the sign of feature 0; 1 has too few answers; 2 is constant; 3 was never seen."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3))
    targets = np.full((80, 4), np.nan)
    targets[:, 0] = features[:, 0] > 0
    targets[:19, 1] = np.arange(19) % 2
    targets[:, 2] = 0.25
    inputs = head_inputs(features, targets)
    return fit_xgboost_head(CONFIG, inputs), inputs


def test_prediction_learns_what_can_be_learned(head_and_inputs):
    head, _ = head_and_inputs
    predicted = head.predict(np.float32([[2, 0, 0], [-2, 0, 0]]))
    assert predicted.dtype == np.float32
    assert predicted[0, 0] > 0.8
    assert predicted[1, 0] < 0.2


def test_candidate_with_few_or_no_answers_differs_from_its_mean_by_the_querys_level_only(head_and_inputs):
    head, inputs = head_and_inputs
    predicted = head.predict(inputs.features)
    overall = np.nanmean(inputs.targets)
    excess = predicted[:, [1, 3]] - [(9 + 10 * overall) / (19 + 10), overall]
    np.testing.assert_allclose(excess[:, 0], excess[:, 1], atol=1e-5)
    assert np.abs(excess).max() > 0.01


def test_candidate_whose_answers_are_all_equal_is_predicted_near_them(head_and_inputs):
    head, inputs = head_and_inputs
    np.testing.assert_allclose(head.predict(inputs.features)[:, 2], 0.25, atol=0.2)


def test_head_stored_without_a_level_predicts_as_its_release_did(head_and_inputs):
    # Routers of release 0.1: boosters of the values themselves, no level.
    head, inputs = head_and_inputs
    stored = {name: tensor for name, tensor in head.tensors().items() if name != "level"}
    old = XGBoostHead.from_tensors(stored)
    shifted = head.predict(inputs.features)[:, 0] - old.predict(inputs.features)[:, 0]
    level = head.predict(inputs.features)[:, 3] - head.means[3]
    np.testing.assert_allclose(shifted, head.means[0] + level, atol=1e-5)


def test_prediction_of_a_row_does_not_depend_on_the_batch(head_and_inputs):
    head, inputs = head_and_inputs
    alone = np.concatenate([head.predict(inputs.features[[i]]) for i in range(len(inputs.features))])
    np.testing.assert_array_equal(head.predict(inputs.features), alone)
    assert head.predict(inputs.features[:0]).shape == (0, 4)


def test_prediction_from_many_threads_is_the_same(head_and_inputs):
    head, inputs = head_and_inputs
    fresh, expected = XGBoostHead.from_tensors(head.tensors()), head.predict(inputs.features)
    results = [None] * 8

    def work(i):
        results[i] = fresh.predict(inputs.features)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_fit_when_the_seed_is_equal_is_bit_equal(head_and_inputs):
    head, inputs = head_and_inputs
    again = fit_xgboost_head(CONFIG, inputs)
    np.testing.assert_array_equal(again.predict(inputs.features), head.predict(inputs.features))


def test_head_when_restored_from_its_tensors_predicts_bit_equal(head_and_inputs):
    head, inputs = head_and_inputs
    restored = XGBoostHead.from_tensors({name: tensor.copy() for name, tensor in head.tensors().items()})
    np.testing.assert_array_equal(restored.predict(inputs.features), head.predict(inputs.features))


def test_head_when_it_only_knows_means_predicts_them():
    head = fit_xgboost_head(CONFIG, head_inputs(np.eye(2), [[1.0], [0.0]]))
    assert head.predict(np.eye(2, dtype=np.float32)).tolist() == [[0.5], [0.5]]
