import numpy as np
import pytest

from fusion_integrations.embedders import CachingEmbedder, HashEmbedder
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError


class CountingEmbedder(HashEmbedder):
    """Remembers what it was asked for."""

    def __init__(self):
        super().__init__(dimensions=16)
        self.asked = []

    def embed(self, texts):
        self.asked.append(texts)
        return super().embed(texts)


@pytest.fixture
def counting():
    return CountingEmbedder()


def test_vectors_are_those_of_the_embedder_inside(counting):
    texts = ["one", "two", "one"]
    found = CachingEmbedder(counting).embed(texts)
    np.testing.assert_array_equal(found, HashEmbedder(dimensions=16).embed(texts))
    assert found.dtype == np.float32


def test_each_text_is_embedded_once(counting):
    embedder = CachingEmbedder(counting)
    embedder.embed(["one", "two", "one"])
    embedder.embed(["two", "three"])
    embedder.embed(["one", "three"])
    assert counting.asked == [["one", "two"], ["three"]]


def test_vectors_that_a_caller_changes_stay_what_they_were(counting):
    embedder = CachingEmbedder(counting)
    embedder.embed(["one"])[:] = 0.0
    assert embedder.embed(["one"]).any()


def test_texts_in_an_array_or_none_at_all_are_embedded(counting):
    embedder = CachingEmbedder(counting)
    assert embedder.embed(np.array(["one", "two"])).shape == (2, 16)
    assert embedder.embed([]).shape == (0, 16)


def test_identity_is_that_of_the_embedder_inside(counting):
    assert CachingEmbedder(counting).identity == HashEmbedder(dimensions=16).identity


@pytest.mark.parametrize(("texts", "error"), [("one", InvalidPolicyError), (["one", " "], EmptyQueryError)])
def test_errors_are_those_of_the_embedder_inside_and_nothing_is_kept(texts, error, counting):
    embedder = CachingEmbedder(counting)
    for _ in range(2):
        with pytest.raises(error):
            embedder.embed(texts)
    assert embedder.embed(["one"]).any()
