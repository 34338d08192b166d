"""The few nouns that every part of the toolkit shares, without behaviour that could differ by framework."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter, ValidationError

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError, UnknownCandidateError

__all__ = [
    "ABANDONED",
    "MAX_AMOUNT",
    "QUERY_TEXT_VERSION",
    "Candidate",
    "CandidateKind",
    "Completion",
    "GenerationOptions",
    "Message",
    "Price",
    "PriceTable",
    "PromptMode",
    "Query",
    "Role",
    "canonical_json",
    "context_characters",
    "find_candidate",
    "fingerprint",
    "query_text",
]

Role = Literal["system", "user", "assistant", "tool"]
PromptMode = Literal["direct", "reasoning", "thought"]
CandidateKind = Literal["model", "tool"]

# Finish reason of an answer whose reader left before its end.
ABANDONED = "abandoned"

# Prices, costs and token counts above this are mistakes, and sums of more would leave the range of float32.
MAX_AMOUNT = 1e12

# Routers embed `query_text`; an artifact names the version it was trained with. Raise it with the rule.
QUERY_TEXT_VERSION = 1


# Made once: ids are hashes of canonical JSON, several for every log record.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Serialise JSON data so that equal data always gives equal text."""
    return _CANONICAL.encode(value)


def fingerprint(value: Any) -> str:
    """Hash JSON data to 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(canonical_json(value).encode(errors="backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation, text only; tools and images stay with the frameworks' own messages."""

    role: Role
    content: str


def query_text(messages: Sequence[Message]) -> str:
    """Give the text that represents a conversation to a router.

    The last user message comes first, earlier user and assistant turns follow newest first, so that an
    embedder's length limit cuts the oldest part. System and tool messages are left out: they describe the
    application, not the query.

    Args:
        messages: The conversation, oldest first.

    Returns:
        Non-blank text.

    Raises:
        EmptyQueryError: If the last user message is missing or blank.
    """
    turns = _turns(messages)
    if not turns or not turns[-1].content.strip():
        message = "The query has no text: its last user message is missing or blank. Pass at least one word."
        raise EmptyQueryError(message)
    earlier = [
        f"{turn.role}: {turn.content.strip()}" for turn in reversed(turns[:-1]) if turn.content.strip()
    ]
    return "\n\n".join([turns[-1].content.strip(), *earlier])


def context_characters(messages: Sequence[Message]) -> int:
    """Count the characters of a prompt that `query_text` leaves out, which its tokens go by all the same.

    Args:
        messages: The conversation, oldest first.

    Returns:
        Characters of system and tool messages, and of turns behind the last user message.
    """
    everything = sum(len(message.content) for message in messages)
    return everything - sum(len(turn.content) for turn in _turns(messages))


def _turns(messages: Sequence[Message]) -> list[Message]:
    """Give what users and assistants said up to the last user message."""
    turns = [message for message in messages if message.role in ("user", "assistant")]
    while turns and turns[-1].role != "user":
        turns.pop()
    return turns


# Logs hold the same question next to itself, once for every candidate.
@lru_cache(maxsize=64)
def _query_id(messages: tuple[Message, ...]) -> str:
    return fingerprint([[message.role, message.content] for message in messages])


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question to answer, and what is known about its right answer.

    Attributes:
        messages: The conversation before any prompt mode is applied, oldest first.
        task: Name of the task family, if known. Never needed at run time.
        reference: The right answer, as its metric reads it.
        metric: Name of the metric in `fusion_integrations.scoring` that scores an answer.
    """

    messages: tuple[Message, ...]
    task: str | None = None
    reference: str | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        """Refuse a query without text.

        Raises:
            EmptyQueryError: If the last user message is missing or blank.
        """
        query_text(self.messages)

    @classmethod
    def from_text(
        cls, text: str, *, task: str | None = None, reference: str | None = None, metric: str | None = None
    ) -> Self:
        """Make a query of one user message."""
        return cls(
            messages=(Message(role="user", content=text),), task=task, reference=reference, metric=metric
        )

    @property
    def text(self) -> str:
        """The text a router sees; see `query_text`."""
        return query_text(self.messages)

    @property
    def query_id(self) -> str:
        """Hash of the original messages: equal conversations are one query, whoever logged them."""
        return _query_id(self.messages)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a router can choose.

    Attributes:
        id: Unique name, for example `"smollm2:reasoning"`.
        kind: `"model"` for an LLM with a prompt mode; `"tool"` for a query engine, retriever or tool.
        model: Name of the LLM; several candidates may share it. Empty for tools.
        prompt_mode: How the LLM is prompted. Always `"direct"` for tools.
        revision: Version of what the logged answers depend on besides the model (prompt, template library,
            adapter). Logs of another revision are not trained on; empty means any.
        capabilities: What it can do beyond text, for example `"tools"`, `"vision"`, `"structured_output"`.
        context_tokens: Tokens of prompt and answer together that it takes. None: unknown, and not checked.
        description: One sentence for people.
    """

    id: str
    kind: CandidateKind = "model"
    model: str = ""
    prompt_mode: PromptMode = "direct"
    revision: str = ""
    capabilities: frozenset[str] = frozenset()
    context_tokens: int | None = None
    description: str = ""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        """Check that kind, model and prompt mode agree.

        Raises:
            InvalidPolicyError: If the id is blank, a model candidate has no model, a tool has a model or a
                prompt mode, or the context holds no token.
        """
        if not self.id.strip():
            raise InvalidPolicyError("A candidate needs a non-blank id.")
        if self.context_tokens is not None and self.context_tokens < 1:
            message = (
                f"Candidate '{self.id}' takes {self.context_tokens} tokens. Give at least 1, or None if it "
                "is unknown."
            )
            raise InvalidPolicyError(message)
        if (self.kind == "model") != bool(self.model):
            message = (
                f"Candidate '{self.id}' of kind '{self.kind}' has model '{self.model}': "
                "a model candidate names its model, a tool candidate leaves it empty."
            )
            raise InvalidPolicyError(message)
        if self.kind == "tool" and self.prompt_mode != "direct":
            message = (
                f"Tool candidate '{self.id}' has prompt mode '{self.prompt_mode}'; tools are not prompted."
            )
            raise InvalidPolicyError(message)

    @property
    def price_key(self) -> str:
        """The name its price is filed under: the model, or the id of a tool."""
        return self.model or self.id

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data; an unknown context is left out, as releases before it wrote."""
        data = asdict(self) | {"capabilities": sorted(self.capabilities)}
        if self.context_tokens is None:
            del data["context_tokens"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a candidate from `to_json`; the data may come from anybody's file.

        Args:
            data: JSON data, not trusted.

        Returns:
            The candidate.

        Raises:
            InvalidPolicyError: If a field is missing, unknown or of a wrong value.
        """
        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            wrong = "; ".join(f"{'.'.join(map(str, d['loc'])) or 'candidate'}: {d['msg']}" for d in details)
            raise InvalidPolicyError(f"This is no saved candidate: {wrong}.") from error


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model or tool charges.

    Attributes:
        input_usd_per_mtok: USD per million input tokens.
        output_usd_per_mtok: USD per million output tokens.
        usd_per_call: USD per call, whatever its length.
        is_nominal: True for a declared price that nobody is billed, as for models on your own machine.
    """

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    usd_per_call: float = 0.0
    is_nominal: bool = False

    def __post_init__(self) -> None:
        """Check the amounts.

        Raises:
            InvalidPolicyError: If an amount is none, negative, or above 1e12.
        """
        for name in ("input_usd_per_mtok", "output_usd_per_mtok", "usd_per_call"):
            amount = getattr(self, name)
            is_number = isinstance(amount, Real)
            if not is_number or not 0 <= amount <= MAX_AMOUNT:
                message = f"Price.{name} must be an amount in [0, {MAX_AMOUNT:g}], got {amount!r}."
                raise InvalidPolicyError(message)


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """Today's prices by `Candidate.price_key`; outside the candidates, so a price change retrains nothing."""

    prices: Mapping[str, Price] = field(default_factory=dict)

    def cost_usd(
        self, candidate: Candidate, *, input_tokens: float | None, output_tokens: float | None
    ) -> float | None:
        """Price one call.

        Args:
            candidate: Who answers.
            input_tokens: Prompt tokens, or None if unknown.
            output_tokens: Answer tokens, or None if unknown.

        Returns:
            USD, or None when the price or a needed token count is unknown. Unknown is never 0.
        """
        unknown = float("nan")
        cost = self.costs_usd(
            candidate,
            input_tokens=np.array([unknown if input_tokens is None else input_tokens]),
            output_tokens=np.array([unknown if output_tokens is None else output_tokens]),
        )[0]
        return None if np.isnan(cost) else float(cost)

    def costs_usd(
        self, candidate: Candidate, *, input_tokens: npt.NDArray[Any], output_tokens: npt.NDArray[Any]
    ) -> npt.NDArray[np.float64]:
        """Price n calls of one candidate.

        Args:
            candidate: Who answers.
            input_tokens: (n,) prompt tokens, NaN if unknown.
            output_tokens: (n,) answer tokens, NaN if unknown.

        Returns:
            (n,) USD, NaN when the price or a needed token count is unknown. A free direction needs no count.
        """
        price = self.prices.get(candidate.price_key)
        if price is None:
            return np.full(len(input_tokens), np.nan)
        cost = np.full(len(input_tokens), price.usd_per_call, dtype=np.float64)
        if price.input_usd_per_mtok:
            cost += input_tokens * (price.input_usd_per_mtok / 1e6)
        if price.output_usd_per_mtok:
            cost += output_tokens * (price.output_usd_per_mtok / 1e6)
        return cost


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How to generate an answer.

    Attributes:
        max_tokens: Upper bound on answer tokens.
        temperature: 0 means greedy decoding.
        stop: Texts at which the answer ends; not part of the answer.
        seed: Seed for sampling at temperature > 0; None leaves it to the model.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer of a chat client.

    Attributes:
        text: The answer.
        model: Name of the model that answered.
        input_tokens: Prompt tokens, or None if the client does not know.
        output_tokens: Answer tokens, or None if the client does not know.
        finish_reason: `"stop"` or `"length"`, or the provider's word.
        latency_s: Wall-clock seconds; for a batch, of the whole batch.
    """

    text: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str = "stop"
    latency_s: float | None = None


def find_candidate(candidates: Sequence[Candidate], candidate_id: str) -> Candidate:
    """Find a candidate by its id.

    Args:
        candidates: Where to look.
        candidate_id: The wanted id.

    Returns:
        The candidate.

    Raises:
        UnknownCandidateError: If there is none; lists those there are.
    """
    for candidate in candidates:
        if candidate.id == candidate_id:
            return candidate
    known = ", ".join(f"'{candidate.id}'" for candidate in candidates)
    raise UnknownCandidateError(f"There is no candidate '{candidate_id}'. Known: {known}.")
