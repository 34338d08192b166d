import numpy as np
import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.heads.cluster import ClusterHead, ClusterHeadConfig, fit_cluster_head
from fusion_integrations.testing import head_inputs

NAN = np.nan


def two_groups(n=20, *, jitter=0.05, n_tasks=2, seed=0):
    """2n points around (1, 0) and (0, 1); targets (1, 0) in the first group and (0, 1) in the second."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(np.eye(2), n, axis=0)
    tasks = ["first"] * n + ["second" if n_tasks == 2 else "first"] * n
    return centers + rng.normal(0, jitter, size=(2 * n, 2)), centers, tasks


@pytest.mark.parametrize("n_tasks", [0, 1, 2])
def test_prediction_follows_the_groups_with_and_without_task_names(n_tasks):
    features, targets, tasks = two_groups(n_tasks=n_tasks)
    config = ClusterHeadConfig(n_clusters=2, shrinkage=1.0, task_regularization=1.0)
    head = fit_cluster_head(config, head_inputs(features, targets, tasks=tasks if n_tasks else None))
    predicted = head.predict(np.float32([[1, 0], [0, 1]]))
    assert predicted.dtype == np.float32
    assert predicted[0, 0] > 0.85 > 0.15 > predicted[0, 1]
    assert predicted[1, 1] > 0.85 > 0.15 > predicted[1, 0]


def test_prediction_of_three_tasks_follows_each():
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(3), 20, axis=0)
    tasks = np.repeat(["red", "green", "blue"], 20).tolist()
    features = centers + rng.normal(0, 0.05, size=centers.shape)
    config = ClusterHeadConfig(shrinkage=1.0, task_regularization=1.0)
    head = fit_cluster_head(config, head_inputs(features, centers, tasks=tasks))
    assert head.predict(np.eye(3, dtype=np.float32)).argmax(axis=1).tolist() == [0, 1, 2]
    assert head.weights.shape == (3, 3)


def test_means_are_shrunk_by_hand():
    # One cluster, answers 1, 1, 0 of candidate 0 and one 1 of candidate 1; all values average 3/4. Columns,
    # shrunk toward that by 10 values: (2 + 7.5) / 13 = 9.5/13 and (1 + 7.5) / 11 = 8.5/11. The cluster,
    # shrunk toward those by 1: (2 + 9.5/13) / 4 and (1 + 8.5/11) / 2.
    targets = [[1, 1], [1, NAN], [0, NAN]]
    head = fit_cluster_head(ClusterHeadConfig(shrinkage=1.0), head_inputs(np.zeros((3, 2)), targets))
    np.testing.assert_allclose(head.means, [[(2 + 9.5 / 13) / 4, (1 + 8.5 / 11) / 2]], rtol=1e-6)


def test_means_of_a_group_without_answers_are_the_overall_mean():
    features, _, _ = two_groups(10)
    targets = np.concatenate([np.full((10, 1), NAN), np.full((10, 1), 0.75)])
    head = fit_cluster_head(ClusterHeadConfig(n_clusters=2), head_inputs(features, targets))
    np.testing.assert_allclose(head.predict(np.eye(2, dtype=np.float32)), 0.75, rtol=1e-5)


def test_prediction_of_a_target_never_seen_is_the_mean_of_all_others():
    features, targets, _ = two_groups(10)
    targets[:, 1] = NAN
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs(features, targets))
    # Half of the other target's answers are 1.
    np.testing.assert_allclose(head.predict(features.astype(np.float32))[:, 1], 0.5, rtol=1e-6)


def test_prediction_when_all_labels_are_equal_is_that_label():
    features, _, tasks = two_groups(10)
    for names in (None, tasks):
        head = fit_cluster_head(
            ClusterHeadConfig(), head_inputs(features, np.full((20, 3), 0.4), tasks=names)
        )
        np.testing.assert_allclose(head.predict(features.astype(np.float32)), 0.4, atol=1e-6)


def test_prediction_stays_within_the_range_of_the_labels():
    rng = np.random.default_rng(1)
    targets = np.where(rng.random((60, 4)) < 0.5, rng.random((60, 4)), NAN)
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs(rng.normal(size=(60, 8)), targets))
    predicted = head.predict(100 * rng.normal(size=(200, 8)).astype(np.float32))
    assert predicted.min() >= np.nanmin(targets) - 1e-5
    assert predicted.max() <= np.nanmax(targets) + 1e-5


def test_prediction_of_a_row_hardly_depends_on_the_batch():
    features, targets, _ = two_groups(20)
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs(features, targets))
    rows = features.astype(np.float32)
    alone = np.concatenate([head.predict(rows[[i]]) for i in range(len(rows))])
    np.testing.assert_allclose(head.predict(rows), alone, atol=1e-6)
    assert head.predict(rows[:0]).shape == (0, 2)


def test_rare_tasks_are_not_groups():
    # "rare" has 7 queries, one too few to be a group; its queries join the two others.
    features, targets, tasks = two_groups(10)
    tasks = [*tasks[:-7], *["rare"] * 7] + ["second"] * 5
    features = np.concatenate([features, features[-5:]])
    targets = np.concatenate([targets, targets[-5:]])
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs(features, targets, tasks=tasks))
    assert head.weights.shape[1] == 2


def test_kmeans_when_points_repeat_does_not_ask_for_more_clusters_than_points():
    # Warnings are errors here: k-means warns when it cannot fill its clusters.
    features = np.repeat(np.eye(3), 20, axis=0)
    head = fit_cluster_head(
        ClusterHeadConfig(n_clusters=8), head_inputs(features, np.repeat([[0], [1], [0.5]], 20, axis=0))
    )
    assert head.means.shape == (3, 1)
    assert np.isfinite(head.predict(np.eye(3, dtype=np.float32))).all()


def test_fit_of_one_query_works():
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs([[1.0, 2.0]], [[0.5]]))
    np.testing.assert_allclose(head.predict(np.float32([[5, 5]])), [[0.5]])


def test_fit_when_the_seed_is_equal_is_bit_equal():
    features, targets, _ = two_groups(40, jitter=0.5)
    first, second = (
        fit_cluster_head(ClusterHeadConfig(), head_inputs(features, targets, seed=3)) for _ in "ab"
    )
    for name, tensor in first.tensors().items():
        np.testing.assert_array_equal(tensor, second.tensors()[name])


def test_head_when_restored_from_its_tensors_predicts_bit_equal():
    features, targets, tasks = two_groups(10)
    head = fit_cluster_head(ClusterHeadConfig(), head_inputs(features, targets, tasks=tasks))
    restored = ClusterHead.from_tensors({name: tensor.copy() for name, tensor in head.tensors().items()})
    rows = features.astype(np.float32)
    np.testing.assert_array_equal(restored.predict(rows), head.predict(rows))


@pytest.mark.parametrize("field", ["n_clusters", "shrinkage", "sharpness", "task_regularization"])
@pytest.mark.parametrize("value", [0, -1, NAN])
def test_config_when_a_value_is_not_positive_refuses(field, value):
    with pytest.raises(InvalidPolicyError, match=f"ClusterHeadConfig.{field} must be above 0"):
        ClusterHeadConfig(**{field: value})
