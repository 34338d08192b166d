from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion_integrations.artifacts import load_artifact, read_manifest
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError

GOLDEN = Path(__file__).parent / "golden"


def data_file(folder: Path, name: str = "head.bin") -> Path:
    return folder / read_manifest(folder).data_folder / name


def test_load_when_of_format_1_then_still_loads_with_the_same_digest():
    loaded = load_artifact(
        GOLDEN / "format_1",
        kind="router",
        expected_digest="c71cf4f200ca5986c32b862434a5aadf93046c31fa12970b2dbb042758382fd6",
    )
    assert loaded.read_bytes("head.bin") == b"golden\n"
    assert str(loaded.manifest.embedder) == "hash-v1 (hash, fp32, 8 dims)"


@pytest.mark.parametrize("missing", ["nowhere", "file", "empty"])
def test_load_when_there_is_no_artifact_then_raises_not_found(tmp_path, missing):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactNotFoundError, match="There is no artifact at"):
        load_artifact(tmp_path / missing, kind="router")


def test_load_when_of_another_kind_then_names_both(tmp_path, save_router):
    save_router(tmp_path)
    with pytest.raises(ArtifactFormatError, match="holds a router, not a student"):
        load_artifact(tmp_path, kind="student")


def test_load_when_the_digest_is_another_then_names_both(tmp_path, save_router):
    manifest = save_router(tmp_path)
    with pytest.raises(ArtifactFormatError, match=f"{manifest.digest}, expected {'0' * 64}"):
        load_artifact(tmp_path, kind="router", expected_digest="0" * 64)


def test_load_when_data_and_manifest_are_tampered_with_alike_then_only_the_digest_tells(
    tmp_path, save_router
):
    trusted = save_router(tmp_path).digest
    save_router(tmp_path, files={"head.bin": b"evil", "vocabulary.jsonl": b""})
    load_artifact(tmp_path, kind="router")
    with pytest.raises(ArtifactFormatError, match="tampered"):
        load_artifact(tmp_path, kind="router", expected_digest=trusted)


@pytest.mark.parametrize("keep", ["bytes", "paths"])
@pytest.mark.parametrize("name", ["head.bin", "vocabulary.jsonl"])
@pytest.mark.parametrize("damage", ["truncate", "append", "flip", "empty"])
def test_load_when_a_data_file_is_damaged_then_names_it(tmp_path, save_router, keep, name, damage):
    save_router(tmp_path)
    file = data_file(tmp_path, name)
    content = file.read_bytes()
    damaged = {
        "truncate": content[:-1],
        "append": content + b"\0",
        "flip": bytes([content[0] ^ 1]) + content[1:],
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(ArtifactFormatError, match=rf"{name} is damaged"):
        load_artifact(tmp_path, kind="router", keep=keep)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), mask=st.integers(1, 255), is_cut=st.booleans())
def test_load_when_the_manifest_is_damaged_anywhere_then_raises_or_means_the_same(
    tmp_path, save_router, position, mask, is_cut
):
    shutil.rmtree(tmp_path)
    manifest = save_router(tmp_path)
    file = tmp_path / "manifest.json"
    content = bytearray(file.read_bytes())
    position %= len(content)
    if is_cut:
        del content[position:]
    else:
        content[position] ^= mask
    file.write_bytes(content)
    try:
        loaded = load_artifact(tmp_path, kind="router", expected_digest=manifest.digest)
    except ArtifactFormatError:
        return
    assert loaded.manifest == manifest  # for example one kind of white space for another


def test_load_when_a_data_file_is_missing_then_names_it(tmp_path, save_router):
    save_router(tmp_path)
    data_file(tmp_path).unlink()
    with pytest.raises(ArtifactFormatError, match=r"head\.bin is missing or unreadable"):
        load_artifact(tmp_path, kind="router")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["manifest.json", "head.bin"])
def test_load_when_a_file_is_a_pipe_then_raises_and_does_not_wait(tmp_path, save_router, name):
    save_router(tmp_path)
    file = tmp_path / name if name == "manifest.json" else data_file(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ArtifactFormatError, match="not a regular file"):
        load_artifact(tmp_path, kind="router")


def test_load_when_the_manifest_is_huge_then_raises_without_parsing_it(tmp_path, save_router):
    save_router(tmp_path)
    with (tmp_path / "manifest.json").open("ab") as stream:
        stream.truncate(2**40)  # sparse: takes no disk, and must not take memory either
    with pytest.raises(ArtifactFormatError, match="is no manifest: it is larger than"):
        load_artifact(tmp_path, kind="router")


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_load_when_files_are_links_as_in_a_hub_download_then_loads(tmp_path, save_router):
    manifest = save_router(tmp_path / "blobs")
    for file in [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]:
        link = tmp_path / "snapshot" / file.relative_to(tmp_path / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    load_artifact(tmp_path / "snapshot", kind="router", expected_digest=manifest.digest)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_load_when_a_link_leads_to_other_content_then_raises(tmp_path, save_router):
    save_router(tmp_path / "router")
    (tmp_path / "secret").write_text("secret")
    file = data_file(tmp_path / "router")
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactFormatError, match="is damaged"):
        load_artifact(tmp_path / "router", kind="router")


def test_load_when_the_card_is_edited_then_still_loads(tmp_path, save_router):
    manifest = save_router(tmp_path)
    (tmp_path / "README.md").write_text("# My own words\n")
    load_artifact(tmp_path, kind="router", expected_digest=manifest.digest)


def test_load_when_the_folder_was_moved_then_still_loads(tmp_path, save_router):
    manifest = save_router(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    load_artifact(tmp_path / "there", kind="router", expected_digest=manifest.digest)


def test_read_bytes_when_the_artifact_was_replaced_meanwhile_then_gives_what_was_loaded(
    tmp_path, save_router
):
    save_router(tmp_path, files={"head.bin": b"old"})
    loaded = load_artifact(tmp_path, kind="router")
    save_router(tmp_path, files={"head.bin": b"new"})
    assert loaded.read_bytes("head.bin") == b"old"


def test_read_bytes_when_only_paths_were_kept_and_the_file_changed_then_raises(tmp_path, save_router):
    save_router(tmp_path, files={"head.bin": b"old"})
    loaded = load_artifact(tmp_path, kind="router", keep="paths")
    loaded.path("head.bin").write_bytes(b"new")
    with pytest.raises(ArtifactFormatError, match="is damaged"):
        loaded.read_bytes("head.bin")


def test_path_when_there_is_no_such_file_then_names_those_there_are(tmp_path, save_router):
    save_router(tmp_path)
    with pytest.raises(
        ArtifactFormatError, match=r"has no file 'x'\. It has: 'head\.bin', 'vocabulary\.jsonl'"
    ):
        load_artifact(tmp_path, kind="router").path("x")


def test_repr_when_shown_then_does_not_hold_the_contents(tmp_path, save_router):
    save_router(tmp_path, files={"head.bin": b"PRIVATE"})
    assert "PRIVATE" not in repr(load_artifact(tmp_path, kind="router"))


def test_manifest_when_opened_by_a_person_then_is_indented_json(tmp_path, save_router):
    save_router(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    assert text.startswith('{\n  "kind": "router",\n')
    assert json.loads(text)["embedder"]["dimensions"] == 8
