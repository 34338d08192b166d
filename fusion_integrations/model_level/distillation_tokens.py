"""Turn pairs into tokens so that training sees exactly the prompt that the client will send.

TRL could do this itself, but renders prompt and answer as one text, where tokens may merge across the border,
and puts whatever the template writes after the end of a turn into the loss. Here the prompt is the token
sequence of `TransformersClient`, and the loss covers the answer and the one token that ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusion_integrations._optional import require
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.model_level.distillation_dataset import SftPair
from fusion_integrations.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORED_LABEL", "TokenizedPair", "tokenize_pairs"]

IGNORED_LABEL = -100
"""The label of a token that does not count for the loss, as torch defines it."""


@dataclass(frozen=True, kw_only=True)
class TokenizedPair:
    """A pair as a model sees it.

    Attributes:
        pair: Query and answer as texts.
        prompt: Tokens of the conversation up to where the answer begins.
        answer: Tokens of the answer, the last one ends it.
    """

    pair: SftPair
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    def to_example(self) -> dict[str, list[int]]:
        """Return input and labels of one training example."""
        return {
            "input_ids": [*self.prompt, *self.answer],
            "labels": [IGNORED_LABEL] * len(self.prompt) + list(self.answer),
        }


def tokenize_pairs(
    pairs: Sequence[SftPair],
    *,
    tokenizer: PreTrainedTokenizerBase,
    end_tokens: Sequence[int],
    max_tokens: int,
) -> tuple[list[TokenizedPair], dict[str, int]]:
    """Tokenize pairs with the chat template of the base.

    Args:
        pairs: What to learn.
        tokenizer: The base's, with a chat template.
        end_tokens: The tokens that end an answer, as the base's generation config names them.
        max_tokens: Most tokens of prompt and answer together.

    Returns:
        The pairs that can be learned, in order, and how many were dropped by reason: `"too_long"`;
        `"control_tokens"` (the answer holds control tokens as text, which would end or forge a turn);
        `"refused_by_template"` (for example a system message where the template knows none).

    Raises:
        InvalidPolicyError: If the tokenizer has no chat template, or one that writes something else before an
            answer than it does before a generation.
    """
    if not tokenizer.chat_template:
        message = "The base's tokenizer has no chat template: distil into an instruction-tuned model."
        raise InvalidPolicyError(message)
    template_error: type[Exception] = require("jinja2", extra="distill").TemplateError
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    kept, dropped = [], {"too_long": 0, "control_tokens": 0, "refused_by_template": 0}
    for pair in pairs:
        if control & set(_tokens(tokenizer, pair.answer)):
            dropped["control_tokens"] += 1
            continue
        try:
            tokenized = _tokenize(tokenizer, pair, end_tokens)
        except template_error:
            dropped["refused_by_template"] += 1
            continue
        if len(tokenized) > max_tokens:
            dropped["too_long"] += 1
            continue
        kept.append(tokenized)
    return kept, dropped


def _tokenize(tokenizer: Any, pair: SftPair, end_tokens: Sequence[int]) -> TokenizedPair:
    before = _render(tokenizer, pair.messages, is_prompt=True)
    whole = _render(
        tokenizer, (*pair.messages, Message(role="assistant", content=pair.answer)), is_prompt=False
    )
    if not whole.startswith(before):
        message = (
            "The base's chat template does not continue its own prompt: it ends a prompt with "
            f"{before[-40:]!r} but writes a past answer otherwise. Use a base whose template does."
        )
        raise InvalidPolicyError(message)
    prompt, joint = _tokens(tokenizer, before), _tokens(tokenizer, whole)
    # Tokenized as one text if that leaves the prompt alone; else the border splits what would merge.
    is_prefix = joint[: len(prompt)] == prompt
    answer = joint[len(prompt) :] if is_prefix else _tokens(tokenizer, whole[len(before) :])
    n_answer = next((i for i, token in enumerate(answer) if token in end_tokens), len(answer))
    # A template without an end of turn still needs one here, or the student would never stop.
    end = answer[n_answer] if n_answer < len(answer) else end_tokens[0]
    return TokenizedPair(pair=pair, prompt=tuple(prompt), answer=(*answer[:n_answer], end))


def _render(tokenizer: Any, messages: Sequence[Message], *, is_prompt: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=is_prompt)
    return text


def _tokens(tokenizer: Any, text: str) -> list[int]:
    # The template has written all special tokens that belong there.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
