"""Scores answers by asking a language model: for tasks whose right answer no metric can compare."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field

from fusion_integrations.errors import FusionError, InvalidPolicyError, JudgeOutputError
from fusion_integrations.logs.schema import Score
from fusion_integrations.prompts import read_versioned_text
from fusion_integrations.protocols import ChatClient
from fusion_integrations.scoring._judge_calls import (
    AskEach,
    JudgeReply,
    ask_in_batches,
    ask_until_readable,
    tagged,
)
from fusion_integrations.scoring.judge_attacks import addresses_judge, without_address
from fusion_integrations.types import GenerationOptions, Message, fingerprint

__all__ = ["AskEach", "JudgeComparison", "JudgeItem", "JudgeVerdict", "LLMJudge", "ReferenceOrder"]

ReferenceOrder = Literal["first", "both"]
"""Where the reference stands: before the answer, or asked both ways and averaged."""

_PROMPTS = "fusion_integrations.prompts"
_DEFAULT_OPTIONS = GenerationOptions(max_tokens=256)
_MIN_ANSWER_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class JudgeItem:
    """One answer to judge.

    Attributes:
        query: The question.
        response: The answer.
        reference: The right answer, if known.
    """

    query: str
    response: str
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class JudgeVerdict:
    """What a judge thinks of an answer.

    Attributes:
        score: From 0 to 1.
        reason: Why, in the judge's words.
        scorer: Who judged: `"llm-judge:"` and the model.
        version: Version of the prompt, and what else the score depends on.
        is_addressed_to_judge: Whether the answer speaks to its judge; the score is that without those
            sentences if it is lower.
    """

    score: float
    reason: str
    scorer: str
    version: str
    is_addressed_to_judge: bool = False

    def to_score(self, record_id: str, *, created_at: datetime) -> Score:
        """Return the verdict as a score of a log record."""
        note = "The answer speaks to its judge. " if self.is_addressed_to_judge else ""
        return Score(
            record_id=record_id,
            kind="judge",
            scorer=self.scorer,
            version=self.version,
            value=self.score,
            reason=note + self.reason,
            created_at=created_at,
        )


@dataclass(frozen=True, kw_only=True)
class JudgeComparison:
    """Which of two answers a judge prefers.

    Attributes:
        better: `"first"`, `"second"`, or `"equal"`, also if the judge contradicts itself.
        is_consistent: Whether the preference was the same in both orders.
        reasons: Why, of each order.
    """

    better: Literal["first", "second", "equal"]
    is_consistent: bool
    reasons: tuple[str, str]


class _ScoreReply(JudgeReply):
    score: Annotated[float, Field(ge=0, le=1, strict=True)]


class _ComparisonReply(JudgeReply):
    better: Literal["A", "B", "equal"]


class LLMJudge:
    """Judges answers with a language model.

    Against position bias, a comparison is asked in both orders and a reference may be. Against verbosity
    bias, the prompt says that length is worth nothing and long answers are cut in the middle; what is left of
    either bias is measured by `judge_agreement`. Answers cannot close the tags they stand between, nor forge
    a verdict: both carry a mark that is made for each call. Sentences that speak to the judge never raise a
    score: such answers are judged with and without them, and the lower score counts.

    Args:
        client: The model that judges; it should not judge its own answers.
        rubric: What makes a good answer. Default: agreement with the reference, else correctness.
        reference_order: `"first"`, or `"both"` for two calls an answer that has a reference.
        n_attempts: Most calls until a reply can be read.
        max_answer_chars: Longer answers lose their middle.
        options: How the judge generates. Default: greedy, 256 tokens.
        make_mark: Makes the mark of a call; must not be foreseeable.
        ask_each: Makes the calls, for example `PacedCalls` to keep limits and try again. Default: the
            client's batches, and one by one what fails as a batch.

    Raises:
        InvalidPolicyError: If a number is out of range, or the rubric blank.

    Example:
        >>> from fusion_integrations.testing import ScriptedChatClient
        >>> says = lambda messages: '{"check": "m1", "reason": "Same number.", "score": 1}'
        >>> judge = LLMJudge(ScriptedChatClient("judge-model", answer=says), make_mark=lambda: "m1")
        >>> verdict = judge.judge("What is 2 + 2?", "It is 4.", reference="4")
        >>> verdict.score, verdict.scorer
        (1.0, 'llm-judge:judge-model')

    Source:
        The judge score of FusionFactory (arXiv 2507.10540), section 3. The biases: Zheng et al. 2023.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        rubric: str | None = None,
        reference_order: ReferenceOrder = "first",
        n_attempts: int = 3,
        max_answer_chars: int = 8_000,
        options: GenerationOptions = _DEFAULT_OPTIONS,
        make_mark: Callable[[], str] = lambda: secrets.token_hex(4),
        ask_each: AskEach | None = None,
    ) -> None:
        if n_attempts < 1:
            raise InvalidPolicyError(f"n_attempts must be at least 1, got {n_attempts}.")
        if max_answer_chars < _MIN_ANSWER_CHARS:
            raise InvalidPolicyError(
                f"max_answer_chars must be at least {_MIN_ANSWER_CHARS}, got {max_answer_chars}."
            )
        if rubric is not None and not rubric.strip():
            raise InvalidPolicyError("The rubric is blank. Leave it out, or say what makes a good answer.")
        self._model = client.model
        self._ask = ask_each or ask_in_batches(client)
        self._prompt, prompt_version = read_versioned_text(_PROMPTS, "judge.txt")
        self._comparison_prompt, _ = read_versioned_text(_PROMPTS, "judge_comparison.txt")
        default_rubric, rubric_version = read_versioned_text(_PROMPTS, "judge_rubric.txt")
        self._rubric = default_rubric if rubric is None else rubric
        self._reference_order = reference_order
        self._n_attempts = n_attempts
        self._max_answer_chars = max_answer_chars
        self._options = options
        self._make_mark = make_mark
        named = f"rubric-{rubric_version}" if rubric is None else f"rubric-{fingerprint(rubric)}"
        settings = fingerprint(
            [reference_order, max_answer_chars, options.max_tokens, options.temperature, options.seed]
        )
        self._version = f"judge-{prompt_version}+{named}+{settings}"

    @property
    def scorer(self) -> str:
        """Who judges, as stored with every score."""
        return f"llm-judge:{self._model}"

    @property
    def version(self) -> str:
        """What scores depend on besides the model: prompt, rubric and settings."""
        return self._version

    def judge(self, query: str, response: str, *, reference: str | None = None) -> JudgeVerdict:
        """Judge one answer.

        Args:
            query: The question.
            response: The answer.
            reference: The right answer, if known.

        Returns:
            The verdict. Blank answers, and those that only speak to the judge, score 0 without a call.

        Raises:
            JudgeOutputError: If no reply of the judge could be read.
            CandidateCallError: If a call of the judge failed.
        """
        verdict = self.judge_all([JudgeItem(query=query, response=response, reference=reference)])[0]
        if isinstance(verdict, JudgeOutputError):
            raise verdict
        return verdict

    def judge_all(self, items: Sequence[JudgeItem]) -> list[JudgeVerdict | JudgeOutputError]:
        """Judge several answers, in as few batches of calls as the replies allow.

        Args:
            items: n answers.

        Returns:
            n verdicts, in their order; an error where no reply could be read.

        Raises:
            CandidateCallError: If a call of the judge failed; `judge_each` keeps the other verdicts.
        """
        verdicts: list[JudgeVerdict | JudgeOutputError] = []
        for verdict in self.judge_each(items):
            if isinstance(verdict, FusionError) and not isinstance(verdict, JudgeOutputError):
                raise verdict
            verdicts.append(verdict)
        return verdicts

    def judge_each(self, items: Sequence[JudgeItem]) -> list[JudgeVerdict | FusionError]:
        """Judge several answers; a call that fails costs only the verdict it was made for.

        Args:
            items: n answers.

        Returns:
            n verdicts, in their order; the error where a call failed or no reply could be read.
        """
        texts = [_texts(item) for item in items]
        # An answer's calls: each of its texts, each in every order.
        calls = [
            (number, text, order)
            for number, item in enumerate(items)
            for text in texts[number]
            for order in self._orders(item)
        ]
        replies = ask_until_readable(
            self._ask,
            [self._score_prompt(items[number], text, order) for number, text, order in calls],
            model=self._model,
            kind=_ScoreReply,
            n_attempts=self._n_attempts,
            options=self._options,
            same=lambda reply: reply.score,
        )
        verdicts: list[JudgeVerdict | FusionError] = []
        for number, item in enumerate(items):
            of_item = [
                (call[1], reply) for call, reply in zip(calls, replies, strict=True) if call[0] == number
            ]
            verdicts.append(self._verdict(item, of_item))
        return verdicts

    def compare(
        self, query: str, first: str, second: str, *, reference: str | None = None
    ) -> JudgeComparison:
        """Say which of two answers is better, asked in both orders.

        Args:
            query: The question.
            first: An answer. Sentences that speak to the judge are left out.
            second: Another answer.
            reference: The right answer, if known.

        Returns:
            The preference that holds in both orders; equal if they contradict each other.

        Raises:
            JudgeOutputError: If a reply of the judge could not be read.
            CandidateCallError: If a call of the judge failed.
        """
        texts = [_texts(JudgeItem(query=query, response=response))[-1:] for response in (first, second)]
        shown = [self._cut(text[0]) if text else "" for text in texts]
        replies = ask_until_readable(
            self._ask,
            [
                self._comparison(query, shown[0], shown[1], reference),
                self._comparison(query, shown[1], shown[0], reference),
            ],
            model=self._model,
            kind=_ComparisonReply,
            n_attempts=self._n_attempts,
            options=self._options,
            same=lambda reply: reply.better,
        )
        forward, backward = replies
        if isinstance(forward, FusionError):
            raise forward
        if isinstance(backward, FusionError):
            raise backward
        names: dict[str, Literal["first", "second", "equal"]]
        names = {"A": "first", "B": "second", "equal": "equal"}
        swapped = {"A": "second", "B": "first", "equal": "equal"}
        is_consistent = names[forward.better] == swapped[backward.better]
        return JudgeComparison(
            better=names[forward.better] if is_consistent else "equal",
            is_consistent=is_consistent,
            reasons=(forward.reason, backward.reason),
        )

    def _orders(self, item: JudgeItem) -> tuple[Literal["reference first", "answer first"], ...]:
        if item.reference is not None and self._reference_order == "both":
            return ("reference first", "answer first")
        return ("reference first",)

    def _score_prompt(self, item: JudgeItem, text: str, order: str) -> tuple[str, list[Message]]:
        mark = self._make_mark()
        parts = [tagged("answer", self._cut(text), mark=mark)]
        if item.reference is not None:
            parts.insert(
                0 if order == "reference first" else 1, tagged("reference", item.reference, mark=mark)
            )
        return mark, self._messages(self._prompt, item.query, parts, mark)

    def _comparison(
        self, query: str, first: str, second: str, reference: str | None
    ) -> tuple[str, list[Message]]:
        mark = self._make_mark()
        parts = [] if reference is None else [tagged("reference", reference, mark=mark)]
        parts += [tagged("answer-A", first, mark=mark), tagged("answer-B", second, mark=mark)]
        return mark, self._messages(self._comparison_prompt, query, parts, mark)

    def _messages(self, prompt: str, query: str, parts: Sequence[str], mark: str) -> list[Message]:
        instructions = prompt.replace("{mark}", mark).replace("{rubric}", self._rubric)
        material = "\n\n".join([tagged("question", query, mark=mark), *parts])
        return [Message(role="system", content=instructions), Message(role="user", content=material)]

    def _cut(self, text: str) -> str:
        """Leave out the middle of a long answer: its beginning and its result are what is judged."""
        if len(text) <= self._max_answer_chars:
            return text
        half = self._max_answer_chars // 2
        return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"

    def _verdict(
        self, item: JudgeItem, replies: Sequence[tuple[str, _ScoreReply | FusionError]]
    ) -> JudgeVerdict | FusionError:
        if not replies:
            is_blank = not item.response.strip()
            return JudgeVerdict(
                score=0.0,
                reason="The answer is blank." if is_blank else "There is nothing besides words to the judge.",
                scorer=self.scorer,
                version=self.version,
                is_addressed_to_judge=not is_blank,
            )
        by_text: dict[str, list[_ScoreReply]] = {}
        for text, reply in replies:
            if isinstance(reply, FusionError):
                return reply
            by_text.setdefault(text, []).append(reply)
        means = {text: fmean(reply.score for reply in of_text) for text, of_text in by_text.items()}
        lowest = min(means, key=lambda text: means[text])
        return JudgeVerdict(
            score=means[lowest],
            reason=" | ".join(dict.fromkeys(reply.reason for reply in by_text[lowest])),
            scorer=self.scorer,
            version=self.version,
            is_addressed_to_judge=len(by_text) > 1,
        )


def _texts(item: JudgeItem) -> list[str]:
    """Return the texts to judge: the answer, and if it speaks to its judge, what is left without that.

    Where the question itself is about judging, words about it may well be the answer.
    """
    if not item.response.strip():
        return []
    if not addresses_judge(item.response) or addresses_judge(item.query):
        return [item.response]
    rest = without_address(item.response)
    return [item.response, rest] if rest else []
