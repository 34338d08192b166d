from __future__ import annotations

import hashlib
import json

import pytest

from fusion_integrations.clients.gguf_weights import file_sha256, find_converted, safetensors_from_gguf
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
