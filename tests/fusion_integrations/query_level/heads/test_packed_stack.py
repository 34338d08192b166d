from dataclasses import replace

import numpy as np
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.query_level.heads import head_config
from fusion_integrations.query_level.heads.cluster import ClusterHeadConfig
from fusion_integrations.query_level.heads.packed_stack import PackedStack
from fusion_integrations.query_level.heads.stack import StackHeadConfig
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer

EMBEDDER = HashEmbedder(dimensions=64)
TEXTS = ["What is 3 + 4?", "Tell me a story about a fish.", "x" * 500, "?"]


@pytest.fixture(scope="module")
def router(logs, two_tasks):
    return RouterTrainer(RouterTrainingArguments(), embedder=EMBEDDER).train(logs(*two_tasks(120)))


def _features(router):
    from fusion_integrations.query_level.router_features import router_features

    return router_features(TEXTS, embedder=EMBEDDER, version=router.weights.text_features_version)


def test_default_router_when_packed_then_predicts_what_its_members_predict(router):
    packed = PackedStack.of(router.weights.members)
    features = _features(router)

    alone = np.stack([member.predict(features) for member in router.weights.members])

    assert packed is not None  # the default head is what packing is for
    assert np.ptp(alone, axis=1).max() > 0.05  # the queries differ
    np.testing.assert_allclose(packed.predict(features), alone, atol=2e-6)
    for row in range(len(TEXTS)):
        np.testing.assert_allclose(packed.predict(features[row : row + 1])[:, 0], alone[:, row], atol=2e-6)


def test_router_when_it_predicts_then_reads_the_packed_members(router):
    prediction = router.predict(TEXTS)

    expected = PackedStack.of(router.weights.members).predict(_features(router))

    assert np.array_equal(prediction.performance_members, np.clip(expected, 0, 1))


def test_packing_when_saved_and_loaded_then_decides_alike(router, tmp_path):
    router.save_pretrained(tmp_path / "router")

    loaded = RouterModel.from_pretrained(tmp_path / "router", embedder=EMBEDDER)

    assert np.array_equal(
        loaded.predict(TEXTS).performance_members, router.predict(TEXTS).performance_members
    )


@pytest.mark.parametrize(
    "head",
    [
        ClusterHeadConfig(),
        head_config("experts"),
        StackHeadConfig(components=("linear", "cluster")),
        StackHeadConfig(components=("linear", "cluster", "experts")),
    ],
)
def test_packing_when_members_are_others_then_is_left(head, logs, two_tasks):
    other = RouterTrainer(RouterTrainingArguments(head=head), embedder=EMBEDDER).train(logs(*two_tasks(60)))

    assert PackedStack.of(other.weights.members) is None
    assert other.predict(TEXTS).performance_members.shape[1] == len(TEXTS)


def test_packing_when_members_differ_in_their_groups_then_is_left(router):
    first, *others = router.weights.members
    base = first.components["cluster"]
    changed = replace(first, components={**first.components, "cluster": replace(base, bias=base.bias + 1)})

    assert PackedStack.of([changed, *others]) is None
    assert PackedStack.of([]) is None
