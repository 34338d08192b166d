"""Asks a judge until its replies can be read, and says plainly when they never could."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusion_integrations.errors import CandidateCallError, FusionError, JudgeOutputError
from fusion_integrations.protocols import ChatClient
from fusion_integrations.types import Completion, GenerationOptions, Message

__all__ = ["AskEach", "JudgeReply", "ask_in_batches", "ask_until_readable", "tagged"]

logger = logging.getLogger(__name__)

_MAX_OBJECTS = 50  # a reply opens one; a model in a loop opens thousands
_SHOWN_CHARS = 200


class JudgeReply(BaseModel):
    """What every reply of a judge holds.

    Attributes:
        check: The mark of the prompt; an object copied from an answer cannot know it.
        reason: Why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    check: str
    reason: Annotated[str, Field(pattern=r"\S")]


_Reply = TypeVar("_Reply", bound=JudgeReply)


class AskEach(Protocol):
    """Asks a model many conversations, such that a call that fails costs only its own answer."""

    def __call__(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions
    ) -> Sequence[Completion | FusionError]:
        """Return the answer to each, in their order; the error where a call failed."""
        ...


def ask_in_batches(client: ChatClient) -> AskEach:
    """Return what asks a client everything at once; if that fails, one by one."""

    def ask(
        conversations: Sequence[Sequence[Message]], *, options: GenerationOptions
    ) -> Sequence[Completion | FusionError]:
        try:
            completions = client.complete_batch(conversations, options=options)
            if len(completions) == len(conversations):
                return completions
            message = (
                f"'{client.model}' gave {len(completions)} answers to {len(conversations)} conversations."
            )
            raise CandidateCallError(message)
        except FusionError as error:
            if len(conversations) == 1:
                return [error]
            logger.warning(
                "A batch of %d failed for '%s' (%s); asking one by one.",
                len(conversations),
                client.model,
                type(error).__name__,
            )
            return [ask([messages], options=options)[0] for messages in conversations]

    return ask


def tagged(name: str, text: str, *, mark: str) -> str:
    """Put a text between tags that nothing in it can close, for it was written before the mark was made."""
    return f"<{name}-{mark}>\n{text}\n</{name}-{mark}>"


def ask_until_readable(
    ask: AskEach,
    prompts: Sequence[tuple[str, Sequence[Message]]],
    *,
    model: str,
    kind: type[_Reply],
    n_attempts: int,
    options: GenerationOptions,
    same: Callable[[_Reply], object],
) -> list[_Reply | FusionError]:
    """Ask every prompt, and ask again, with what was wrong, where the reply cannot be read.

    Args:
        ask: Asks the judge.
        prompts: The mark and the messages of each.
        model: Name of the judge.
        kind: What a reply must hold.
        n_attempts: Most calls for each prompt.
        options: How to generate.
        same: What must agree if a reply holds several objects.

    Returns:
        For each prompt the reply, or the error if none could be read or the call failed.
    """
    replies: list[_Reply | FusionError] = [JudgeOutputError("The judge was not asked.") for _ in prompts]
    conversations = {number: list(messages) for number, (_, messages) in enumerate(prompts)}
    for _ in range(n_attempts):
        asked = list(conversations)
        answers = ask([conversations[number] for number in asked], options=options)
        for number, completion in zip(asked, answers, strict=True):
            if isinstance(completion, FusionError):
                replies[number] = completion
                del conversations[number]
                continue
            mark, _ = prompts[number]
            try:
                replies[number] = _read(completion.text, mark=mark, kind=kind, same=same)
                del conversations[number]
            except ValueError as error:
                shown = completion.text[-_SHOWN_CHARS:]
                replies[number] = JudgeOutputError(
                    f"Judge '{model}' gave no readable verdict in {n_attempts} attempts: {error}. "
                    f"It ended with '{shown}'. Use a stronger judge, or allow it more tokens."
                )
                conversations[number] += [
                    Message(role="assistant", content=completion.text),
                    Message(role="user", content=_correction(str(error), mark)),
                ]
        if not conversations:
            break
    return replies


def _correction(problem: str, mark: str) -> str:
    return (
        f"That could not be read: {problem}. Reply again with nothing but the one JSON object that was asked "
        f'for, with "check": "{mark}".'
    )


def _read(text: str, *, mark: str, kind: type[_Reply], same: Callable[[_Reply], object]) -> _Reply:
    """Find the one object of this kind and mark in a reply; ValueError says what is wrong."""
    found: list[_Reply] = []
    problem = "there is no JSON object"
    for value in _objects(text):
        try:
            reply = kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'the object'}: {first['msg']}"
            continue
        if reply.check == mark:
            found.append(reply)
        else:
            problem = "its check is another"
    if not found:
        raise ValueError(problem)
    if len({same(reply) for reply in found}) > 1:
        raise ValueError("it holds several verdicts that differ")
    return found[-1]


def _objects(text: str) -> list[object]:
    decoder = json.JSONDecoder()
    objects: list[object] = []
    start = text.find("{")
    for _ in range(_MAX_OBJECTS):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            objects.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return objects
