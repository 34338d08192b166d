from __future__ import annotations

import numpy as np
import pytest

from fusion_integrations.embedders import SentenceTransformerEmbedder
from fusion_integrations.embedders.minilm_weights import find_packaged_folder
from fusion_integrations.errors import ArtifactNotFoundError, EmptyQueryError, InvalidPolicyError
from fusion_integrations.protocols import EmbedderIdentity

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def embedder() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(device="cpu")


def test_identity_when_no_model_is_named_then_is_minilm_on_torch(embedder):
    assert embedder.identity == EmbedderIdentity(
        name="all-MiniLM-L6-v2", engine="torch", precision="fp32", dimensions=384, max_tokens=256
    )


def test_identity_when_the_model_is_a_folder_then_holds_its_name_and_not_its_path(tmp_path):
    folder = tmp_path / "my-model"
    folder.symlink_to(find_packaged_folder())
    assert SentenceTransformerEmbedder(folder, device="cpu").identity.name == "my-model"


def test_embed_when_texts_vary_then_rows_have_unit_length(embedder, varied_texts):
    vectors = embedder.embed([*varied_texts, "cut \ud83d"])
    assert vectors.shape == (51, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_embed_when_there_are_no_texts_then_gives_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 384)


def test_embed_when_a_text_is_blank_then_raises(embedder):
    with pytest.raises(EmptyQueryError):
        embedder.embed(["a", ""])


def test_embedder_when_there_is_no_such_model_then_says_what_to_pass(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="Pass a model folder, or a name the hub knows"):
        SentenceTransformerEmbedder(tmp_path / "nowhere")


def test_embedder_when_batch_size_is_zero_then_refuses():
    with pytest.raises(InvalidPolicyError, match="batch_size must be at least 1, got 0"):
        SentenceTransformerEmbedder(batch_size=0)
