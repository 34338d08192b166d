import numpy as np
import pytest

from fusion_integrations.query_level.novelty import NoveltyDetector, fit_novelty


def clouds(n, *, centers, seed=0, dimensions=4):
    """n points around each center, one a task."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 0.1, (n, dimensions)) + np.eye(dimensions)[center] for center in centers]
    return np.concatenate(parts).astype(np.float32)


def fitted(features, tasks, *, share=0.05, n_folds=3):
    return fit_novelty(
        features,
        tasks=tasks,
        folds=np.arange(len(features)) % n_folds,
        n_embedding=features.shape[1],
        share=share,
        seed=0,
    )


@pytest.fixture(scope="module")
def detector():
    return fitted(clouds(100, centers=(0, 1)), ["sums"] * 100 + ["prose"] * 100)


def test_queries_of_the_known_tasks_are_new_about_as_often_as_allowed(detector):
    again = detector.is_novel(clouds(500, centers=(0, 1), seed=1))
    assert 0.01 < again.mean() < 0.12  # 5% of 1,000; the threshold itself rests on 200


def test_queries_of_another_kind_are_new(detector):
    assert detector.is_novel(clouds(100, centers=(2,), seed=2)).mean() > 0.9


def test_queries_between_the_tasks_are_new(detector):
    middle = clouds(100, centers=(0,), seed=3) + (np.eye(4)[1] - np.eye(4)[0]).astype(np.float32) / 2
    assert detector.is_novel(middle).mean() > 0.9


@pytest.mark.parametrize("tasks", [[None] * 200, ["one"] * 200, ["rare"] * 7 + [None] * 193])
def test_without_two_frequent_tasks_the_distance_is_that_from_all_queries(tasks):
    detector = fitted(clouds(200, centers=(0,)), tasks)
    assert detector.is_novel(clouds(100, centers=(2,), seed=2)).mean() > 0.9
    assert detector.is_novel(clouds(500, centers=(0,), seed=1)).mean() < 0.12


def test_distance_worked_by_hand():
    # |x|^2 * 2 less the nearer of 0 and 4 x0 - 1: at x = (1, 0) 2 + min(0, -4 + 1).
    detector = NoveltyDetector(
        center=np.zeros(2, dtype=np.float32),
        scale=np.ones(2, dtype=np.float32),
        quadratic=2 * np.eye(2, dtype=np.float32),
        linear=np.array([[0.0, -4.0], [0.0, 0.0]], dtype=np.float32),
        offset=np.array([0.0, 1.0], dtype=np.float32),
        threshold=np.array([-0.5], dtype=np.float32),
    )
    features = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert detector.distance(features).tolist() == [-1.0, 2.0]
    assert detector.is_novel(features).tolist() == [False, True]


def test_threshold_rests_on_queries_it_was_not_fitted_on(detector):
    # A share of 0 would make the farthest query of all just not new.
    features = clouds(100, centers=(0, 1))
    strict = fitted(features, ["sums"] * 100 + ["prose"] * 100, share=0.0)
    assert strict.threshold[0] > detector.threshold[0]
    assert not strict.is_novel(features).any()


def test_detector_survives_its_tensors(detector):
    again = NoveltyDetector.from_tensors(detector.tensors())
    features = clouds(5, centers=(0, 2))
    np.testing.assert_array_equal(again.distance(features), detector.distance(features))
    assert {array.dtype for array in detector.tensors().values()} == {np.dtype(np.float32)}
