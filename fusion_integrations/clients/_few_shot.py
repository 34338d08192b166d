"""Write a conversation as question-and-answer blocks, for base models that know no chat format."""

from __future__ import annotations

from collections.abc import Sequence

from fusion_integrations.errors import CandidateCallError
from fusion_integrations.types import Message

__all__ = ["FEW_SHOT_STOPS", "few_shot_text"]

# A base model goes on with the next block; its answer ends where that one begins.
FEW_SHOT_STOPS = ("\n\n", "\nQ:")


def few_shot_text(messages: Sequence[Message], examples: Sequence[tuple[str, str]]) -> str:
    """Lay out examples and conversation so that the answer comes next.

    Args:
        messages: The conversation, oldest first; system messages go in front of the examples.
        examples: Questions with their answers.

    Returns:
        Blocks `Q: ...` and `A: ...`, ending in an open `A:`.

    Raises:
        CandidateCallError: If the conversation does not end in a user message, or holds a tool message.
    """
    turns = [message for message in messages if message.role != "system"]
    unfit = next((turn.role for turn in turns if turn.role == "tool"), None)
    if unfit or not turns or turns[-1].role != "user":
        message = (
            f"The few-shot format cannot hold this conversation: roles {[turn.role for turn in messages]}. "
            "It takes system, user and assistant messages, the last from the user."
        )
        raise CandidateCallError(message)
    lines = [message.content for message in messages if message.role == "system"]
    lines += [f"Q: {question}\nA: {answer}" for question, answer in examples]
    text = "".join(f"{line}\n\n" for line in lines)
    for turn in turns:
        text += f"Q: {turn.content}\nA:" if turn.role == "user" else f" {turn.content}\n\n"
    return text
