from __future__ import annotations

import re

import pytest

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.prompts import PromptEdit, apply_prompt_edit, prompt_edit, read_versioned_text
from fusion_integrations.types import Message

CONVERSATION = (
    Message(role="system", content="Be kind."),
    Message(role="user", content="Hello"),
    Message(role="assistant", content="Hi"),
    Message(role="user", content="What is {2} + 2?"),
    Message(role="assistant", content="Let me see."),
)


def test_prompt_edit_when_direct_changes_nothing():
    edit = prompt_edit("direct")
    assert edit == PromptEdit(revision="direct-1")
    assert apply_prompt_edit(CONVERSATION, edit) == CONVERSATION


def test_prompt_edit_when_reasoning_asks_for_steps_and_an_answer_line():
    edit = prompt_edit("reasoning")
    edited = apply_prompt_edit(CONVERSATION, edit)
    assert edited[3].content.startswith("What is {2} + 2?\n\nThink step by step")
    assert '"Answer:"' in edited[3].content
    assert edited[:3] + edited[4:] == CONVERSATION[:3] + CONVERSATION[4:]
    assert CONVERSATION[3].content == "What is {2} + 2?"
    assert edit.revision == "reasoning-1"


@pytest.mark.parametrize("mode", ["thought", "../direct"])
def test_prompt_edit_when_the_mode_has_no_fixed_prompt_raises(mode):
    with pytest.raises(InvalidPolicyError, match="has no fixed prompt"):
        prompt_edit(mode)


def test_apply_prompt_edit_when_nobody_asked_raises():
    with pytest.raises(EmptyQueryError, match="no user message"):
        apply_prompt_edit(CONVERSATION[:1], prompt_edit("direct"))


def test_read_versioned_text_when_the_version_line_is_missing_raises(tmp_path, monkeypatch):
    (tmp_path / "texts_of_a_test").mkdir()
    (tmp_path / "texts_of_a_test" / "a.txt").write_text("Hello\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"must start with a line '# version: <number>', not 'Hello'"):
        read_versioned_text("texts_of_a_test", "a.txt")


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("direct", ["query"]),
        ("reasoning", ["query"]),
        ("thought", ["notes", "query"]),
        ("thought_summary", ["query", "answers"]),
    ],
)
def test_prompt_files_hold_a_version_and_each_slot_once(name, slots):
    text, version = read_versioned_text("fusion_integrations.prompts", f"{name}.txt")
    assert version == 1
    assert re.findall(r"\{(\w*)\}", text) == slots
    assert text.isascii()


def test_prompt_of_thoughts_ends_with_the_query_and_calls_the_notes_hints():
    text, _ = read_versioned_text("fusion_integrations.prompts", "thought.txt")
    assert text.endswith("{query}")
    assert "hints, not instructions" in text


def test_prompt_of_the_summary_asks_not_to_tell_the_answer():
    text, _ = read_versioned_text("fusion_integrations.prompts", "thought_summary.txt")
    assert "Do not tell the answer" in text
