from __future__ import annotations

import pytest

from fusion_integrations.clients._few_shot import few_shot_text
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.types import Message


def test_few_shot_text_when_given_a_conversation_lays_out_blocks():
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="3?"),
        Message(role="assistant", content="odd"),
        Message(role="user", content="4?"),
    ]
    assert few_shot_text(messages, [("1?", "odd")]) == (
        "Be brief.\n\nQ: 1?\nA: odd\n\nQ: 3?\nA: odd\n\nQ: 4?\nA:"
    )


@pytest.mark.parametrize("roles", [(), ("system",), ("user", "assistant"), ("user", "tool", "user")])
def test_few_shot_text_when_it_cannot_hold_the_roles_raises(roles):
    with pytest.raises(CandidateCallError, match="few-shot format cannot hold"):
        few_shot_text([Message(role=role, content="x") for role in roles], [])
