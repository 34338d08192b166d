from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from fusion_integrations.artifacts import save_artifact
from fusion_integrations.errors import ArtifactFormatError
from fusion_integrations.model_level.student_artifact import (
    CONFIG_FILE,
    adapter_files,
    read_student,
    student_details,
)


def saved(student, folder, *, config=None, details=None, files=None):
    """Save a student with some of its content replaced, as anybody could."""
    content = adapter_files(student.adapter)
    if config is not None:
        content[CONFIG_FILE] = json.dumps(json.loads(content[CONFIG_FILE]) | config).encode()
    save_artifact(
        folder,
        kind="student",
        files=content if files is None else files,
        card="",
        details=student_details(student.adapter) if details is None else details,
    )
    return folder


def test_adapter_when_read_again_is_equal(student, tmp_path):
    _, adapter = read_student(saved(student, tmp_path / "student"))
    assert adapter == student.adapter
    assert adapter.revision == student.revision


def test_revision_changes_with_weights_configuration_and_base(student):
    adapter = student.adapter
    others = [
        replace(adapter, weights=adapter.weights + b" "),
        replace(adapter, config=adapter.config.model_copy(update={"lora_alpha": 5.0})),
        replace(adapter, base=adapter.base.model_copy(update={"weights": "gguf:" + "0" * 64})),
    ]
    assert len({adapter.revision, *(other.revision for other in others)}) == 4
    assert len(adapter.revision) == 16


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
        {"task_type": "SEQ_CLS"},
        {"bias": "all"},
        {"r": 0},
        {"r": 10**9},
        {"lora_alpha": float("nan")},
        {"target_modules": "(a+)+$"},
        {"target_modules": []},
        {"target_modules": ["../../x"]},
        {"base_model_name_or_path": "/home/me/model"},
        {"base_model_name_or_path": "other"},
        {"modules_to_save": ["lm_head"]},
        {"inference_mode": False},
    ],
)
def test_reading_when_the_configuration_says_more_or_else_refuses(student, tmp_path, config):
    with pytest.raises(ArtifactFormatError, match="Save it again"):
        read_student(saved(student, tmp_path / "student", config=config))


def test_reading_when_the_configuration_is_no_json_refuses(student, tmp_path):
    files = adapter_files(student.adapter) | {CONFIG_FILE: b"{"}
    with pytest.raises(ArtifactFormatError, match="not a student this release can read"):
        read_student(saved(student, tmp_path / "student", files=files))


@pytest.mark.parametrize("details", [{}, {"base": {"name": "x"}}, {"base": None}])
def test_reading_when_the_base_is_not_named_refuses(student, tmp_path, details):
    with pytest.raises(ArtifactFormatError, match="base"):
        read_student(saved(student, tmp_path / "student", details=details))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_reading_when_a_file_is_missing_refuses(student, tmp_path, name):
    files = {key: value for key, value in adapter_files(student.adapter).items() if key != name}
    with pytest.raises(ArtifactFormatError, match=f"no file '{name}'"):
        read_student(saved(student, tmp_path / "student", files=files))


def test_saved_student_names_no_path_of_this_machine(student, base, tmp_path):
    folder = student.save_pretrained(tmp_path / "student").folder
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(base).encode() not in content
            assert str(tmp_path).encode() not in content


def test_card_says_what_it_is_and_how_it_was_taught(student, tmp_path):
    card = (student.save_pretrained(tmp_path / "student").folder / "README.md").read_text()
    for part in ("rank 2", "`tiny-chat`", "24 logged answers to 12 queries", "| big | 12 |", "licence"):
        assert part in card


def test_reading_when_moved_finds_the_adapter(student, tmp_path):
    student.save_pretrained(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert read_student(tmp_path / "b")[1] == student.adapter
