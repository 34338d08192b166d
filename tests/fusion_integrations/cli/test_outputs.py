from __future__ import annotations

import pytest

from fusion_integrations.cli.outputs import check_out
from fusion_integrations.errors import ArtifactWriteError
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary


def test_check_out_when_a_library_is_there_leaves_it_as_it_is(library_path):
    before = sorted(path.relative_to(library_path) for path in library_path.rglob("*"))
    check_out(library_path, kind="template_library")
    assert sorted(path.relative_to(library_path) for path in library_path.rglob("*")) == before
    ThoughtTemplateLibrary.from_pretrained(library_path)


def test_check_out_when_nothing_is_there_leaves_nothing_behind(tmp_path):
    check_out(tmp_path / "new" / "folder", kind="student")
    assert not list(tmp_path.iterdir())


def test_check_out_when_something_else_is_there_says_what(library_path, tmp_path):
    with pytest.raises(ArtifactWriteError, match="holds a template_library, which a student does not"):
        check_out(library_path, kind="student")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactWriteError, match=r"is not an artifact: it holds 'notes\.txt'"):
        check_out(tmp_path, kind="student")
    with pytest.raises(ArtifactWriteError, match="is in the way"):
        check_out(tmp_path / "notes.txt", kind="student")
