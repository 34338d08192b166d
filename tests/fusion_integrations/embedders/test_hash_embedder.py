from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.protocols import EmbedderIdentity

TEXT = st.text().filter(str.strip)


def test_identity_when_made_then_says_what_must_match():
    assert HashEmbedder(dimensions=64).identity == EmbedderIdentity(
        name="hash-v1", engine="hash", precision="fp32", dimensions=64, max_tokens=0
    )


def test_embed_when_there_are_no_texts_then_gives_no_rows():
    vectors = HashEmbedder(dimensions=16).embed([])
    assert vectors.shape == (0, 16)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_embed_when_a_text_is_blank_then_says_which(blank):
    with pytest.raises(EmptyQueryError, match="Text 1 of 3 is empty or blank"):
        HashEmbedder().embed(["a", blank, "b"])


def test_embed_when_given_one_string_then_refuses():
    with pytest.raises(InvalidPolicyError, match=r"Pass \[text\]"):
        HashEmbedder().embed("not a list")


@given(texts=st.lists(TEXT, min_size=1, max_size=5), dimensions=st.sampled_from([1, 2, 7, 256]))
def test_embed_when_texts_are_anything_then_rows_have_unit_length(texts, dimensions):
    vectors = HashEmbedder(dimensions=dimensions).embed(texts)
    assert vectors.shape == (len(texts), dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@given(texts=st.lists(TEXT, min_size=2, max_size=5))
def test_embed_when_texts_come_alone_or_together_then_vectors_are_the_same(texts):
    embedder = HashEmbedder()
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_array_equal(alone, embedder.embed(texts))


def test_embed_when_run_anywhere_then_gives_these_numbers():
    # "A" has two features: "w:a" with CRC-32 0xB1E32870 and "c: a " with 0xF8E3DE8B. Modulo 4 they fall into
    # the buckets 0 and 3; the top bit of both is set, so both count as -1. Unit length: 1 / sqrt(2).
    expected = np.array([[-1, 0, 0, -1]], dtype=np.float32) / np.sqrt(np.float32(2))
    np.testing.assert_allclose(HashEmbedder(dimensions=4).embed(["A"]), expected, atol=1e-7)


def test_embed_when_words_are_shared_then_is_nearer_than_when_not():
    near, query, far = HashEmbedder().embed(
        ["How many apples are left?", "How many pears are left?", "Translate this poem into French."]
    )
    assert query @ near > 0.5 > 0.2 > query @ far


def test_embed_when_only_case_width_or_spacing_differ_then_vectors_are_equal():
    first, second = HashEmbedder().embed(["Hello  Wörld", "\uff28\uff25\uff2c\uff2c\uff2f wörld"])
    np.testing.assert_array_equal(first, second)


def test_embed_when_a_text_holds_a_lone_surrogate_then_still_works():
    assert HashEmbedder().embed(["cut \ud83d"]).shape == (1, 256)


@pytest.mark.parametrize("dimensions", [0, -1, 65537, 10**12])
def test_embedder_when_dimensions_are_out_of_range_then_refuses(dimensions):
    with pytest.raises(InvalidPolicyError, match=f"dimensions must be 1 to 65536, got {dimensions}"):
        HashEmbedder(dimensions=dimensions)
