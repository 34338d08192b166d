"""What a prompt mode does to a query, read from text files so that every change has a version number."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError
from fusion_integrations.types import Message, PromptMode

__all__ = ["PromptEdit", "apply_prompt_edit", "prompt_edit", "read_versioned_text"]

_VERSION_LINE = re.compile(r"# version: (\d+)")


@dataclass(frozen=True, kw_only=True)
class PromptEdit:
    """What is put around the text of the last user message.

    Attributes:
        user_prefix: Text before it.
        user_suffix: Text after it.
        revision: Name and version of the edit, logged with every answer it led to.
    """

    user_prefix: str = ""
    user_suffix: str = ""
    revision: str


@functools.cache
def prompt_edit(mode: PromptMode) -> PromptEdit:
    """Return the edit of a prompt mode whose prompt is the same for every query.

    Args:
        mode: `"direct"` leaves the query as it is; `"reasoning"` asks for steps and a line `Answer: ...`.

    Returns:
        The edit, the same object every time.

    Raises:
        InvalidPolicyError: For `"thought"`, whose prompt depends on the templates found for the query, or an
            unknown mode.
    """
    if mode not in ("direct", "reasoning"):
        message = (
            f"Prompt mode '{mode}' has no fixed prompt; 'direct' and 'reasoning' have one. "
            "'thought' needs a thought template store, which builds the prompt for each query."
        )
        raise InvalidPolicyError(message)
    text, version = read_versioned_text(__name__, f"{mode}.txt")
    prefix, _, suffix = text.partition("{query}")
    return PromptEdit(user_prefix=prefix, user_suffix=suffix, revision=f"{mode}-{version}")


def apply_prompt_edit(messages: Sequence[Message], edit: PromptEdit) -> tuple[Message, ...]:
    """Edit the last user message of a conversation.

    Args:
        messages: The conversation, oldest first; left as it is.
        edit: What to put around the text.

    Returns:
        A conversation of the same length.

    Raises:
        EmptyQueryError: If there is no user message.
    """
    last = next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)
    if last is None:
        raise EmptyQueryError("The conversation has no user message to apply a prompt mode to.")
    content = f"{edit.user_prefix}{messages[last].content}{edit.user_suffix}"
    return (*messages[:last], replace(messages[last], content=content), *messages[last + 1 :])


def read_versioned_text(package: str, name: str) -> tuple[str, int]:
    """Read a text file of a package that starts with a line `# version: <number>`.

    Args:
        package: Dotted name of the package that holds the file.
        name: Name of the file.

    Returns:
        The text below the version line, without its last line break, and the version.

    Raises:
        ValueError: If the first line is another.
    """
    first, _, text = resources.files(package).joinpath(name).read_text(encoding="utf-8").partition("\n")
    match = _VERSION_LINE.fullmatch(first.strip())
    if match is None:
        message = f"'{name}' of {package} must start with a line '# version: <number>', not '{first}'."
        raise ValueError(message)
    return text.removesuffix("\n"), int(match.group(1))
