"""What holds for every head."""

import numpy as np
import pytest

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.heads import HEAD_NAMES, fit_members, head_config, restore_head
from fusion_integrations.testing import head_inputs

FEATURE_HEADS = [name for name in HEAD_NAMES if name != "bert"]  # bert reads texts: see test_bert
NAN = np.nan
FOLDS = np.arange(200) % 2


def two_kinds(n=200, *, seed=0):
    """Unit vectors of two kinds; candidate 0 answers the first kind, 1 the second, 2 half of either."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n)
    points = np.eye(3)[kind] + rng.normal(0, 0.15, size=(n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    surface = rng.normal(size=(n, 2))
    targets = np.stack([kind == 0, kind == 1, rng.random(n) < 0.5], axis=1).astype(np.float32)
    return np.concatenate([points, surface], axis=1), targets, kind


def inputs(*, missing=0.0, tasks=True, seed=0):
    features, targets, kind = two_kinds()
    hidden = np.random.default_rng(1).random(targets.shape) < missing
    return head_inputs(
        features,
        np.where(hidden, NAN, targets),
        tasks=[f"kind {k}" for k in kind] if tasks else None,
        n_embedding=3,
        seed=seed,
    ), kind


def train(name, **options):
    given, kind = inputs(**options)
    return fit_members(head_config(name), given, FOLDS), given, kind


@pytest.mark.parametrize("missing", [0.0, 0.6])
@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_head_learns_who_answers_what_from_all_or_some_answers(name, missing):
    members, given, kind = train(name, missing=missing)
    unseen = FOLDS == 0
    predicted = members[0].predict(given.features[unseen])
    assert predicted.dtype == np.float32
    assert predicted.shape == (unseen.sum(), 3)
    gap = predicted[:, 0] - predicted[:, 1]
    # Heads differ in how far they dare to leave the mean, not in the direction.
    assert (np.sign(gap) == np.where(kind[unseen] == 0, 1, -1)).mean() > 0.9


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_head_without_task_names_still_learns(name):
    members, given, kind = train(name, tasks=False)
    predicted = members[0].predict(given.features[FOLDS == 0])
    assert ((predicted[:, 0] > predicted[:, 1]) == (kind[FOLDS == 0] == 0)).mean() > 0.9


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_members_are_as_many_as_folds_and_each_misses_its_own(name):
    members, given, _ = train(name)
    assert len(members) == 2
    assert not np.array_equal(members[0].predict(given.features), members[1].predict(given.features))


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_head_when_restored_predicts_bit_equal(name):
    members, given, _ = train(name)
    stored = {key: tensor.copy() for key, tensor in members[0].tensors().items()}
    restored = restore_head(name, stored)
    np.testing.assert_array_equal(restored.predict(given.features), members[0].predict(given.features))


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_fit_when_the_seed_is_equal_is_bit_equal(name):
    first, given, _ = train(name, seed=3)
    second, _, _ = train(name, seed=3)
    np.testing.assert_array_equal(first[0].predict(given.features), second[0].predict(given.features))


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_candidate_with_few_answers_stays_near_the_mean_of_all(name):
    features, targets, _ = two_kinds()
    targets[8:, 2] = NAN
    targets[:8, 2] = 1.0
    given = head_inputs(features, targets, n_embedding=3)
    predicted = fit_members(head_config(name), given, FOLDS)[0].predict(features.astype(np.float32))
    # Four answers of 1 in a fold's complement, ten of the overall mean of about 0.5.
    assert 0.4 < predicted[:, 2].mean() < 0.85


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_labels_that_are_all_equal_are_predicted(name):
    features, targets, _ = two_kinds()
    given = head_inputs(features, np.full_like(targets, 0.4), n_embedding=3)
    predicted = fit_members(head_config(name), given, FOLDS)[0].predict(given.features)
    np.testing.assert_allclose(predicted, 0.4, atol=0.03)


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_prediction_of_no_query_is_empty(name):
    members, given, _ = train(name)
    assert members[0].predict(given.features[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", FEATURE_HEADS)
def test_importance_of_answers_moves_the_mean(name):
    features, targets, _ = two_kinds()
    targets[:, 2] = np.arange(200) % 2 == np.arange(200) // 100  # half right, unrelated to the features
    given = head_inputs(features, targets, n_embedding=3)
    weights = given.weights.copy()
    weights[:, 2] = np.where(targets[:, 2] == 1, 1.9, 0.1)
    weighted = type(given)(**{**vars(given), "weights": weights})
    plain, heavy = (fit_members(head_config(name), each, FOLDS)[0] for each in (given, weighted))
    assert heavy.predict(given.features)[:, 2].mean() > plain.predict(given.features)[:, 2].mean() + 0.1


def test_head_when_unknown_lists_the_known():
    with pytest.raises(InvalidPolicyError, match=r"no head 'oracle'.*'cluster'.*'stack'"):
        head_config("oracle")


def test_restoring_when_the_head_is_unknown_refuses():
    with pytest.raises(ArtifactFormatError, match="'oracle'"):
        restore_head("oracle", {})


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_restoring_when_an_array_is_missing_refuses_and_names_it(name):
    with pytest.raises(ArtifactFormatError, match="lacks the array '"):
        restore_head(name, {})


@pytest.mark.parametrize("name", sorted(set(HEAD_NAMES) - {"stack"}))
def test_config_when_a_number_is_not_positive_refuses(name):
    config = head_config(name)
    numbers = [field for field, value in config.to_json().items() if isinstance(value, int | float)]
    assert numbers
    for field in numbers:
        if (name, field) == ("xgboost", "l2_penalty"):
            continue  # no penalty is a choice
        with pytest.raises(InvalidPolicyError, match=f"{field} must be above 0"):
            type(config)(**{field: 0})
