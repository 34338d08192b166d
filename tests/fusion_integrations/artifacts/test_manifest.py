from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from fusion_integrations.artifacts import FORMAT_VERSION, ArtifactManifest
from fusion_integrations.errors import ArtifactFormatError

SOURCE = Path("router/manifest.json")


@pytest.fixture
def manifest(tmp_path, save_router) -> ArtifactManifest:
    return save_router(tmp_path / "router")


def changed(manifest: ArtifactManifest, **changes: object) -> str:
    return json.dumps({**json.loads(manifest.to_text()), **changes})


def test_text_when_read_back_then_gives_the_same_manifest(manifest):
    assert ArtifactManifest.from_text(manifest.to_text(), source=SOURCE) == manifest


def test_digest_when_only_the_location_of_the_data_differs_then_is_the_same(manifest):
    moved = manifest.model_copy(update={"data_folder": "data-0000000000000000"})
    assert moved.digest == manifest.digest


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "student"},
        {"candidates": []},
        {"embedder": None},
        {"query_text_version": 2},
        {"arguments": {}},
        {"log_fingerprint": ""},
        {"metrics": {"reward": 0.25}},
        {"details": {}},
        {"files": {"head.bin": "f" * 64}},
        {"created_at": "2026-01-02T03:04:06Z"},
        {"library_version": "9"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_when_content_differs_then_differs(manifest, change):
    other = ArtifactManifest.from_text(changed(manifest, **change), source=SOURCE)
    assert other.digest != manifest.digest


def test_digest_when_keys_are_in_another_order_then_is_the_same(manifest):
    reordered = json.dumps(dict(reversed(json.loads(manifest.to_text()).items())))
    assert ArtifactManifest.from_text(reordered, source=SOURCE).digest == manifest.digest


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "\xff", '"x"', "[" * 100_000, "1" * 10_000])
def test_from_text_when_it_is_no_manifest_then_raises_a_format_error(text):
    with pytest.raises(ArtifactFormatError, match=r"router/manifest\.json is not an artifact's manifest"):
        ArtifactManifest.from_text(text.encode("latin-1"), source=SOURCE)


def test_from_text_when_of_a_newer_release_then_says_to_upgrade(manifest):
    newer = changed(manifest, format_version=FORMAT_VERSION + 1, new_field="unknown here")
    with pytest.raises(
        ArtifactFormatError, match=r"written by a newer release: format 2.*up to 1.*--upgrade"
    ):
        ArtifactManifest.from_text(newer, source=SOURCE)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, None])
def test_from_text_when_the_version_never_existed_then_raises_a_format_error(manifest, version):
    with pytest.raises(ArtifactFormatError, match="which never existed"):
        ArtifactManifest.from_text(changed(manifest, format_version=version), source=SOURCE)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"kind": "pickle"}, "kind"),
        ({"created_at": "2026-01-02T03:04:05"}, "created_at"),
        ({"files": {"../head.bin": "0" * 64}}, "files"),
        ({"files": {"/etc/passwd": "0" * 64}}, "files"),
        ({"files": {"a/b": "0" * 64}}, "files"),
        ({"files": {"a\\b": "0" * 64}}, "files"),
        ({"files": {".hidden": "0" * 64}}, "files"),
        ({"files": {"a\n": "0" * 64}}, "files"),
        ({"files": {"": "0" * 64}}, "files"),
        ({"files": {"head.bin": "0" * 63}}, "files"),
        ({"data_folder": ".."}, "data_folder"),
        ({"data_folder": "data-0000000000000000/.."}, "data_folder"),
        ({"data_folder": "data-0000000000000000\n"}, "data_folder"),
        ({"embedder": {"name": "hash-v1"}}, "embedder"),
        ({"candidates": {}}, "candidates"),
    ],
)
def test_from_text_when_a_field_is_wrong_then_names_it(manifest, change, field):
    with pytest.raises(ArtifactFormatError, match=rf"is malformed: .*{re.escape(field)}"):
        ArtifactManifest.from_text(changed(manifest, **change), source=SOURCE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_from_text_when_a_number_is_not_finite_then_raises_a_format_error(manifest, value):
    with pytest.raises(ArtifactFormatError, match="holds NaN, infinity"):
        ArtifactManifest.from_text(changed(manifest, metrics={"nested": [{"reward": value}]}), source=SOURCE)


def test_from_text_when_a_field_is_wrong_then_does_not_repeat_its_value(manifest):
    with pytest.raises(ArtifactFormatError) as caught:
        ArtifactManifest.from_text(changed(manifest, created_at="a private query"), source=SOURCE)
    assert "private" not in str(caught.value)
