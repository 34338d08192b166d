from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest

from fusion_integrations.clients.gguf_weights import (
    file_sha256,
    find_converted,
    safetensors_from_gguf,
    weights_identity,
)
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def finished(cache, *, digest: str):
    folder = cache / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"12345")
    marker = {"gguf_file": "tiny.gguf", "gguf_sha256": digest, "sizes": {"model.safetensors": 5}}
    (folder / "converted.json").write_text(json.dumps(marker))
    return folder


def test_file_sha256_when_given_a_file_hashes_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


def test_safetensors_from_gguf_when_converted_before_reuses_it(cache, tmp_path):
    gguf = tmp_path / "tiny.gguf"
    gguf.write_bytes(b"weights")
    folder = finished(cache, digest=file_sha256(gguf))
    assert safetensors_from_gguf(gguf, cache_name="tiny") == folder


@pytest.mark.parametrize("damage", ["no marker", "cut marker", "cut weights", "lost weights", "other source"])
def test_find_converted_when_incomplete_finds_nothing(cache, damage):
    folder = finished(cache, digest="abc")
    if damage == "no marker":
        (folder / "converted.json").unlink()
    elif damage == "cut marker":
        (folder / "converted.json").write_text('{"gguf_sha256": "ab')
    elif damage == "cut weights":
        (folder / "model.safetensors").write_bytes(b"123")
    elif damage == "lost weights":
        (folder / "model.safetensors").unlink()
    assert find_converted("tiny", gguf_sha256="other" if damage == "other source" else "abc") is None


def test_find_converted_when_nothing_was_converted_finds_nothing(cache):
    assert find_converted("tiny", gguf_sha256="abc") is None


def test_safetensors_from_gguf_when_the_file_is_no_gguf_says_so_and_leaves_nothing(cache, tmp_path):
    gguf = tmp_path / "tiny.gguf"
    gguf.write_bytes(b"this is no model at all, whatever its name says")
    with pytest.raises(ArtifactFormatError, match=r"cannot read the GGUF file '.*tiny\.gguf'"):
        safetensors_from_gguf(gguf, cache_name="tiny")
    assert list((cache / "models").iterdir()) == []


def test_safetensors_from_gguf_when_the_file_is_missing_raises(cache, tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="no GGUF file"):
        safetensors_from_gguf(tmp_path / "none.gguf", cache_name="tiny")


def saved_tensors(folder, parts, *, metadata=None):
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    for number, tensors in enumerate(parts):
        save_file(tensors, folder / f"model-{number}.safetensors", metadata=metadata)
    return folder


def test_weights_identity_depends_on_the_tensors_and_on_nothing_else(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(2.5, dtype=np.float16)
    whole = weights_identity(saved_tensors(tmp_path / "whole", [{"a": a, "b": b}]))
    split = saved_tensors(tmp_path / "split", [{"b": b}, {"a": a}], metadata={"format": "pt"})
    assert weights_identity(split) == whole
    assert re.fullmatch("safetensors:[0-9a-f]{64}", whole)
    others = [
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a.view(np.int32), "b": b},
        {"a": np.nextafter(a, np.float32(9)), "b": b},
        {"a": a},
    ]
    found = {weights_identity(saved_tensors(tmp_path / f"o{i}", [other])) for i, other in enumerate(others)}
    assert len(found | {whole}) == 6


def test_weights_identity_of_a_finished_conversion_is_that_of_its_gguf_file(cache):
    folder = finished(cache, digest="ab" * 32)
    assert weights_identity(folder) == "gguf:" + "ab" * 32


def test_weights_identity_when_a_conversion_was_changed_is_that_of_its_tensors(cache):
    folder = finished(cache, digest="ab" * 32)
    saved_tensors(folder, [{"a": np.ones(2)}])
    (folder / "model.safetensors").unlink()
    assert weights_identity(folder).startswith("safetensors:")


def test_weights_identity_when_weights_are_missing_damaged_or_doubled_says_so(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="no safetensors"):
        weights_identity(tmp_path)
    twice = saved_tensors(tmp_path / "twice", [{"a": np.ones(2)}, {"a": np.ones(2)}])
    with pytest.raises(ArtifactFormatError, match="a tensor twice"):
        weights_identity(twice)
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(ArtifactFormatError, match="damaged"):
        weights_identity(tmp_path)
