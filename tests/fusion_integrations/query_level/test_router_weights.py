import numpy as np
import pytest

from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.query_level.heads.cluster import ClusterHead
from fusion_integrations.query_level.router_weights import RouterWeights
from fusion_integrations.query_level.usage import UsageModel


def head(means):
    """A head of one group: it predicts its means for every query."""
    return ClusterHead(
        weights=np.zeros((2, 1), dtype=np.float32),
        bias=np.zeros(1, dtype=np.float32),
        means=np.float32([means]),
    )


@pytest.fixture
def weights(named):
    usage = UsageModel(
        input_fit=np.float32([[1, 2], [0.5, 0]]),
        head=head([3, 4, 5, 6]),
        scale=np.float32([1, 1, 0.1, np.nan]),
    )
    return RouterWeights(
        candidates=named("ab"),
        head_name="cluster",
        members=(head([0.2, 1.5]), head([0.4, -0.5])),
        usage=usage,
    )


def test_prediction_holds_every_member_clipped_to_the_range_of_performance(weights):
    prediction = weights.predict(["four"], np.zeros((1, 2), dtype=np.float32))
    np.testing.assert_allclose(prediction.performance_members, [[[0.2, 1.0]], [[0.4, 0.0]]], rtol=1e-6)
    assert prediction.candidates == weights.candidates


def test_prediction_holds_usage_in_its_units(weights):
    # 1 + 0.5 * 4 characters = 3 tokens; USD 5 * 0.1; an unknown scale stays unknown.
    prediction = weights.predict(["four"], np.zeros((1, 2), dtype=np.float32))
    np.testing.assert_allclose(prediction.input_tokens, [[3, 2]])
    np.testing.assert_allclose(prediction.output_tokens, [[3, 4]])
    np.testing.assert_allclose(prediction.logged_cost_usd, [[0.5, np.nan]])


def test_prediction_of_no_queries_is_empty(weights):
    assert weights.predict([], np.zeros((0, 2), dtype=np.float32)).performance.shape == (0, 2)


def test_weights_when_restored_from_their_tensors_predict_bit_equal(weights):
    restored = RouterWeights.from_tensors(
        weights.tensors(),
        candidates=weights.candidates,
        head_name="cluster",
        n_members=2,
        text_features_version=2,
    )
    features = np.float32([[0.3, 0.7]])
    before, after = (w.predict(["text"], features) for w in (weights, restored))
    np.testing.assert_array_equal(before.performance_members, after.performance_members)
    np.testing.assert_array_equal(before.logged_cost_usd, after.logged_cost_usd)


def test_members_beyond_ten_keep_their_order(weights, named):
    many = RouterWeights(
        candidates=named("ab"),
        head_name="cluster",
        members=tuple(head([i / 100, 0]) for i in range(12)),
        usage=weights.usage,
    )
    restored = RouterWeights.from_tensors(
        many.tensors(), candidates=many.candidates, head_name="cluster", n_members=12, text_features_version=2
    )
    assert [float(member.means[0, 0]) for member in restored.members] == pytest.approx(
        [i / 100 for i in range(12)]
    )


@pytest.mark.parametrize("missing", ["member.1.bias", "usage.scale", "usage.input_fit", "usage.head.means"])
def test_restoring_when_an_array_is_missing_refuses_and_names_it(weights, missing):
    tensors = weights.tensors()
    del tensors[missing]
    with pytest.raises(ArtifactFormatError, match=missing.rsplit(".", 1)[1]):
        RouterWeights.from_tensors(
            tensors, candidates=weights.candidates, head_name="cluster", n_members=2, text_features_version=2
        )


def test_restoring_when_the_head_is_unknown_refuses(weights):
    with pytest.raises(ArtifactFormatError, match="bert"):
        RouterWeights.from_tensors(
            weights.tensors(),
            candidates=weights.candidates,
            head_name="bert",
            n_members=2,
            text_features_version=2,
        )
