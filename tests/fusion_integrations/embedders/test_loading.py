from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fusion_integrations.embedders import EMBEDDER_NAMES, HashEmbedder, check_identity, load_embedder
from fusion_integrations.errors import EmbedderMismatchError, InvalidPolicyError
from fusion_integrations.protocols import EmbedderIdentity

BGE = EmbedderIdentity(name="bge-small", engine="torch", precision="fp32", dimensions=384, max_tokens=512)


def test_names_when_listed_then_are_these():
    assert EMBEDDER_NAMES == ("hash", "minilm", "minilm-int8", "minilm-torch", "wordllama")


@pytest.mark.real_model
@pytest.mark.parametrize("name", EMBEDDER_NAMES)
def test_load_when_given_a_name_then_its_identity_loads_the_same(name):
    embedder = load_embedder(name)
    again = load_embedder(embedder.identity)
    assert again.identity == embedder.identity
    np.testing.assert_array_equal(again.embed(["one text"]), embedder.embed(["one text"]))


def test_load_when_the_identity_is_a_hash_of_other_size_then_has_that_size():
    assert load_embedder(HashEmbedder(dimensions=32).identity).embed(["a"]).shape == (1, 32)


def test_load_when_the_name_is_unknown_then_lists_the_names():
    with pytest.raises(InvalidPolicyError, match=r"no embedder 'gpt'\. Known: 'hash', 'minilm'"):
        load_embedder("gpt")


def test_load_when_no_built_in_has_the_identity_then_says_to_pass_it():
    with pytest.raises(EmbedderMismatchError, match=r"'bge-small \(torch, fp32, 384 dims\)'.*`embedder=`"):
        load_embedder(BGE)


def test_load_when_the_identity_differs_in_a_detail_then_raises():
    wanted = dataclasses.replace(HashEmbedder().identity, precision="int8")
    with pytest.raises(EmbedderMismatchError, match="precision 'int8' against 'fp32'"):
        load_embedder(wanted)


def test_load_when_the_dimensions_are_absurd_then_refuses():
    with pytest.raises(InvalidPolicyError, match="dimensions must be 1 to 65536"):
        load_embedder(dataclasses.replace(HashEmbedder().identity, dimensions=10**12))


def test_check_when_identities_are_equal_then_passes():
    check_identity(BGE, dataclasses.replace(BGE))


def test_check_when_identities_differ_then_names_both_and_every_difference():
    with pytest.raises(EmbedderMismatchError) as caught:
        check_identity(BGE, HashEmbedder().identity)
    assert str(caught.value) == (
        "Trained with embedder 'bge-small (torch, fp32, 384 dims)' but got 'hash-v1 (hash, fp32, 256 dims)': "
        "name 'bge-small' against 'hash-v1', engine 'torch' against 'hash', dimensions '384' against '256', "
        "max_tokens '512' against '0'. Pass the same embedder, or retrain."
    )
