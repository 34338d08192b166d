"""The int8 precision of `OnnxMiniLMEmbedder`: near fp32, independent of the batch, never mistaken for it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fusion_integrations.embedders import OnnxMiniLMEmbedder, check_identity, load_embedder
from fusion_integrations.embedders.minilm_weights import find_onnx_folder, find_packaged_folder
from fusion_integrations.errors import ArtifactFormatError, EmbedderMismatchError
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.testing import tiny_logs

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def int8() -> OnnxMiniLMEmbedder:
    return OnnxMiniLMEmbedder(precision="int8")


@pytest.fixture(scope="module")
def fp32() -> OnnxMiniLMEmbedder:
    return OnnxMiniLMEmbedder()


def test_embed_when_compared_with_fp32_then_vectors_are_near(int8, fp32, varied_texts):
    vectors, reference = int8.embed(varied_texts), fp32.embed(varied_texts)
    cosines = (vectors * reference).sum(axis=1)
    assert cosines.mean() > 0.985
    assert cosines.min() > 0.96
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_embed_when_texts_share_a_batch_then_each_vector_is_that_of_its_text_alone(
    int8, varied_texts, batch_size
):
    together = OnnxMiniLMEmbedder(precision="int8", batch_size=batch_size).embed(varied_texts)
    alone = np.concatenate([int8.embed([text]) for text in varied_texts])
    np.testing.assert_array_equal(together, alone)


def test_identity_when_int8_then_differs_from_fp32_in_the_precision_only(int8, fp32):
    assert int8.identity.precision == "int8"
    assert int8.identity.name == fp32.identity.name
    with pytest.raises(EmbedderMismatchError, match="precision 'int8' against 'fp32'"):
        check_identity(int8.identity, fp32.identity)


def test_load_when_given_the_name_or_its_identity_then_is_int8(int8):
    assert load_embedder("minilm-int8").identity == int8.identity
    assert load_embedder(int8.identity).identity == int8.identity


def test_router_when_trained_in_one_precision_then_refuses_the_other(tmp_path, int8, fp32):
    RouterTrainer(embedder=int8).train(tiny_logs()).save_pretrained(tmp_path / "router")
    with pytest.raises(EmbedderMismatchError, match="precision 'int8' against 'fp32'"):
        RouterModel.from_pretrained(tmp_path / "router", embedder=fp32)
    assert RouterModel.from_pretrained(tmp_path / "router").embedder.identity == int8.identity


def test_find_when_made_twice_then_files_are_equal_and_the_root_logger_is_left_alone(tmp_path, monkeypatch):
    made_before = find_onnx_folder("int8")
    shutil.copytree(find_onnx_folder("fp32"), tmp_path / find_onnx_folder("fp32").name)
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    handlers = list(logging.getLogger().handlers)
    folder = find_onnx_folder("int8")
    assert folder == tmp_path / "all-MiniLM-L6-v2-onnx-int8"
    assert (folder / "model.onnx").read_bytes() == (made_before / "model.onnx").read_bytes()
    assert logging.getLogger().handlers == handlers
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "all-MiniLM-L6-v2-onnx-fp32"}


def test_find_when_one_byte_of_the_cached_weights_differs_then_says_what_to_delete(tmp_path, monkeypatch):
    folder = tmp_path / find_onnx_folder("int8").name
    shutil.copytree(find_onnx_folder("int8"), folder)
    with (folder / "model.onnx").open("rb+") as stream:
        stream.seek(10_000_000)
        byte = stream.read(1)
        stream.seek(10_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    with pytest.raises(
        ArtifactFormatError, match=rf"is damaged: its SHA-256 is .* Delete the folder {folder}"
    ):
        OnnxMiniLMEmbedder(precision="int8")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_embedder_when_a_cached_file_is_cut_then_says_what_to_delete(tmp_path, monkeypatch, name):
    folder = tmp_path / find_onnx_folder("int8").name
    shutil.copytree(find_onnx_folder("int8"), folder)
    with (folder / name).open("rb+") as stream:
        stream.truncate(1000)
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    with pytest.raises(ArtifactFormatError, match=rf"(?i)delete the folder {folder}"):
        OnnxMiniLMEmbedder(precision="int8")


def test_find_when_the_cached_folder_is_incomplete_then_says_to_delete_it(tmp_path, monkeypatch):
    folder = tmp_path / "all-MiniLM-L6-v2-onnx-int8"
    folder.mkdir()
    shutil.copyfile(find_packaged_folder() / "tokenizer.json", folder / "tokenizer.json")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    with pytest.raises(ArtifactFormatError, match=f"{folder} are incomplete. Delete that folder"):
        find_onnx_folder("int8")


def test_find_when_onnx_is_not_installed_then_names_the_extra_and_makes_nothing(tmp_path):
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "from fusion_integrations.embedders import OnnxMiniLMEmbedder\n"
        "from fusion_integrations.errors import MissingDependencyError\n"
        "try:\n    OnnxMiniLMEmbedder(precision='int8')\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "FUSION_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "'onnx', which is not installed. Run: pip install 'fusion-integrations[embed-int8]'" in (
        finished.stdout
    )
    assert list(tmp_path.iterdir()) == []
