import numpy as np
import pytest

from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.query_level.heads import (
    HEAD_CONFIGS,
    ClusterHeadConfig,
    HeadInputs,
    fit_head,
    head_config,
    restore_head,
)


@pytest.mark.parametrize("name", ["cluster", "xgboost"])
def test_every_head_is_found_by_its_name_fits_and_comes_back(name):
    assert HEAD_CONFIGS[name]().name == head_config(name).name == name
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 3)).astype(np.float32)
    inputs = HeadInputs(
        features=features,
        targets=(features[:, :2] > 0).astype(np.float32),
        tasks=(None,) * 24,
        n_threads=1,
        seed=0,
    )
    head = fit_head(head_config(name), inputs)
    restored = restore_head(name, head.tensors())
    np.testing.assert_array_equal(restored.predict(features), head.predict(features))


def test_head_when_unknown_lists_the_known():
    with pytest.raises(InvalidPolicyError, match=r"no head 'bert'.*\['cluster', 'xgboost'\]"):
        head_config("bert")


def test_restoring_when_the_head_is_unknown_refuses():
    with pytest.raises(ArtifactFormatError, match="'bert'"):
        restore_head("bert", {})


@pytest.mark.parametrize("name", ["cluster", "xgboost"])
def test_restoring_when_an_array_is_missing_refuses_and_names_it(name):
    with pytest.raises(ArtifactFormatError, match=rf"'{name}' head lacks the array '(weights|means)'"):
        restore_head(name, {})


def test_default_head_is_cluster():
    assert head_config("cluster") == ClusterHeadConfig()
