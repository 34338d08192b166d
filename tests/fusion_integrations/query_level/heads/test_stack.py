import numpy as np
import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.heads.stack import StackHeadConfig, fit_stack_members
from fusion_integrations.testing import head_inputs


def data(*, noise, n=400, seed=0):
    """Candidate 0 is right where feature 3 is high, 1 where it is low; the embedding says nothing."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    signal = rng.normal(size=(n, 1))
    right = (signal[:, 0] > 0) ^ (rng.random(n) < noise)
    targets = np.stack([right, ~right], axis=1)
    return head_inputs(np.concatenate([points, signal], axis=1), targets, n_embedding=3)


def test_corrections_count_by_what_they_predict():
    # The embedding says nothing, so neighbours have nothing to correct; the regression has all of it.
    config = StackHeadConfig(components=("cluster", "knn", "linear"), correction_share=1.0)
    head = fit_stack_members(config, data(noise=0.1), np.arange(400) % 4)[0]
    assert list(head.components) == ["cluster", "knn", "linear"]
    _, of_knn, of_linear = head.deviation_weights
    assert of_linear > 0.3
    assert of_linear > of_knn + 0.1


def test_corrections_count_only_their_share():
    whole, half = (
        fit_stack_members(StackHeadConfig(correction_share=share), data(noise=0.1), np.arange(400) % 4)[0]
        for share in (1.0, 0.5)
    )
    np.testing.assert_allclose(half.deviation_weights, whole.deviation_weights * [1, 0.5, 0.5])
    np.testing.assert_array_equal(half.level_weights, whole.level_weights)


def test_prediction_is_the_base_and_its_weighed_corrections():
    given = data(noise=0.1)
    head = fit_stack_members(StackHeadConfig(components=("knn", "linear")), given, np.arange(400) % 4)[0]
    base = head.components["knn"].predict(given.features) - head.means
    correction = head.components["linear"].predict(given.features) - head.means - base
    expected = np.tile(head.means, (400, 1))
    for part, level, deviation in zip(
        (base, correction), head.level_weights, head.deviation_weights, strict=True
    ):
        mean = part.mean(axis=1, keepdims=True)
        expected += level * mean + deviation * (part - mean)
    np.testing.assert_allclose(head.predict(given.features), expected, atol=1e-5)


def test_blend_of_pure_noise_stays_at_the_means():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6))
    given = head_inputs(features, rng.random((400, 3)) < [0.7, 0.5, 0.3], n_embedding=3)
    head = fit_stack_members(StackHeadConfig(prior_strength=0.1), given, np.arange(400) % 4)[0]
    predicted = head.predict(given.features)
    assert np.abs(predicted - head.means).mean() < 0.04
    assert (predicted.argmax(axis=1) == 0).mean() > 0.95


def test_members_share_the_weights():
    members = fit_stack_members(StackHeadConfig(), data(noise=0.3), np.arange(400) % 3)
    assert len(members) == 3
    for member in members[1:]:
        np.testing.assert_array_equal(member.deviation_weights, members[0].deviation_weights)


def test_strong_prior_predicts_the_mean_of_the_learners():
    config = StackHeadConfig(prior_strength=1e9, correction_share=1.0)
    given = data(noise=0.1)
    head = fit_stack_members(config, given, np.arange(400) % 2)[0]
    mean = np.mean([each.predict(given.features) for each in head.components.values()], axis=0)
    np.testing.assert_allclose(head.predict(given.features), mean, atol=1e-3)


@pytest.mark.parametrize(
    "components", [(), ("cluster",), ("cluster", "cluster"), ("cluster", "oracle"), ("cluster", "stack")]
)
def test_config_when_components_are_too_few_repeated_or_unknown_refuses(components):
    with pytest.raises(InvalidPolicyError, match="components must be two or more different"):
        StackHeadConfig(components=components)


def test_config_when_the_prior_is_not_positive_refuses():
    with pytest.raises(InvalidPolicyError, match="prior_strength must be above 0"):
        StackHeadConfig(prior_strength=0)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_config_when_the_share_is_out_of_range_refuses(share):
    with pytest.raises(InvalidPolicyError, match="correction_share"):
        StackHeadConfig(correction_share=share)
