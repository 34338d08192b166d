from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fusion_integrations.embedders import OnnxMiniLMEmbedder, SentenceTransformerEmbedder
from fusion_integrations.embedders.minilm_weights import find_onnx_folder
from fusion_integrations.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    EmptyQueryError,
    InvalidPolicyError,
)
from fusion_integrations.protocols import EmbedderIdentity

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def embedder() -> OnnxMiniLMEmbedder:
    return OnnxMiniLMEmbedder()


def test_identity_when_made_then_says_what_must_match(embedder):
    assert embedder.identity == EmbedderIdentity(
        name="all-MiniLM-L6-v2", engine="onnx", precision="fp32", dimensions=384, max_tokens=256
    )


def test_embed_when_compared_with_sentence_transformers_then_vectors_agree(embedder, varied_texts):
    reference = SentenceTransformerEmbedder(device="cpu").embed(varied_texts)
    vectors = embedder.embed(varied_texts)
    assert (vectors * reference).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(vectors, reference, atol=1e-5)


def test_embed_when_texts_vary_then_rows_have_unit_length(embedder, varied_texts):
    vectors = embedder.embed([*varied_texts, "cut \ud83d"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 7}, {"n_threads": 2}], ids=str)
def test_embed_when_batches_or_threads_differ_then_vectors_do_not(embedder, varied_texts, settings):
    other = OnnxMiniLMEmbedder(**settings)
    np.testing.assert_allclose(other.embed(varied_texts), embedder.embed(varied_texts), atol=1e-5)


def test_embed_when_the_order_is_reversed_then_so_are_the_rows(embedder, varied_texts):
    backwards = embedder.embed(varied_texts[::-1])
    np.testing.assert_allclose(backwards[::-1], embedder.embed(varied_texts), atol=1e-5)


def test_embed_when_called_from_several_threads_then_gives_each_its_own(embedder, varied_texts):
    expected = embedder.embed(varied_texts[:12])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: embedder.embed([text])[0], varied_texts[:12]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embed_when_texts_differ_only_beyond_the_limit_then_vectors_are_equal(embedder):
    start = "word " * 254  # with the two tokens that mark start and end: 256
    first, second = embedder.embed([f"{start} one", f"{start} another ending, much longer"])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_embed_when_meaning_is_near_then_vectors_are_near(embedder):
    query, near, far = embedder.embed(["the cat sleeps", "a kitten is napping", "quarterly tax report"])
    assert query @ near > query @ far + 0.4


def test_embed_when_there_are_no_texts_then_gives_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 384)


def test_embed_when_a_text_is_blank_then_raises(embedder):
    with pytest.raises(EmptyQueryError, match="Text 1 of 2"):
        embedder.embed(["a", "\n"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_threads": 0}, "n_threads must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"precision": "int4"}, "precision must be 'fp32' or 'int8', got 'int4'"),
    ],
)
def test_embedder_when_a_setting_is_out_of_range_then_says_so(settings, message):
    with pytest.raises(InvalidPolicyError, match=message):
        OnnxMiniLMEmbedder(**settings)


def test_embedder_when_given_a_path_then_uses_that_file(tmp_path, embedder):
    shutil.copytree(find_onnx_folder(), tmp_path / "copy")
    other = OnnxMiniLMEmbedder(model_path=tmp_path / "copy" / "model.onnx")
    np.testing.assert_array_equal(other.embed(["a b c"]), embedder.embed(["a b c"]))


def test_embedder_when_the_path_does_not_exist_then_names_it(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"There is no file .*nowhere\.onnx"):
        OnnxMiniLMEmbedder(model_path=tmp_path / "nowhere.onnx")


def test_embedder_when_the_tokenizer_is_not_beside_the_model_then_names_it(tmp_path):
    shutil.copyfile(find_onnx_folder() / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(ArtifactNotFoundError, match=r"There is no file .*tokenizer\.json"):
        OnnxMiniLMEmbedder(model_path=tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("length", [0, 1000])
def test_embedder_when_a_cached_file_is_cut_then_says_what_to_delete(tmp_path, monkeypatch, name, length):
    folder = tmp_path / find_onnx_folder().name
    shutil.copytree(find_onnx_folder(), folder)
    with (folder / name).open("rb+") as stream:
        stream.truncate(length)
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    with pytest.raises(ArtifactFormatError, match=rf"{name} cannot be used .* delete the folder {folder}"):
        OnnxMiniLMEmbedder()


def test_embedder_when_the_file_holds_another_model_then_says_what_it_has(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["out"])], "other", [pixels], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(
        ArtifactFormatError, match=r"has the inputs \['pixels'\] and vectors of 3 dims, not 384"
    ):
        OnnxMiniLMEmbedder(model_path=tmp_path / "model.onnx")
