import numpy as np
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.text_features import TEXT_FEATURES, text_features

EMBEDDER = HashEmbedder(dimensions=8)


def test_features_are_the_embedding_beside_the_surface_features():
    texts = ["What is 2 + 2?", "Write a line."]
    features = router_features(texts, embedder=EMBEDDER)
    np.testing.assert_array_equal(features[:, :8], EMBEDDER.embed(texts))
    np.testing.assert_array_equal(features[:, 8:], text_features(texts))
    assert features.dtype == np.float32
    assert features.flags["C_CONTIGUOUS"]


def test_features_of_no_texts_are_an_empty_table():
    assert router_features([], embedder=EMBEDDER).shape == (0, 8 + len(TEXT_FEATURES))


@pytest.mark.parametrize("blank", ["", " \n\t", "\u2003"])
def test_features_when_a_text_is_blank_refuse_and_say_which(blank):
    with pytest.raises(EmptyQueryError, match="Query 1 of 2"):
        router_features(["fine", blank], embedder=EMBEDDER)
