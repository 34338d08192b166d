"""Write thought templates: what the best answers to a logged query show about solving others of its kind."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from fusion_integrations.errors import CandidateCallError, InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.source import LogSource, as_frame
from fusion_integrations.prompts import read_versioned_text
from fusion_integrations.protocols import ChatClient, Embedder
from fusion_integrations.scoring.top_answers import top_answers
from fusion_integrations.thought_level.template_checks import (
    Rejection,
    find_rejection,
    own_answers,
    shorten,
)
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments
from fusion_integrations.thought_level.template_library import (
    TemplateSource,
    ThoughtTemplate,
    ThoughtTemplateLibrary,
)
from fusion_integrations.types import GenerationOptions, Message, fingerprint

__all__ = ["TemplateProgressCallback", "ThoughtTemplateTrainer"]

logger = logging.getLogger(__name__)

# Called with how many solved queries are done, and how many there are.
TemplateProgressCallback = Callable[[int, int], None]

_PLACEHOLDER = re.compile(r"\{(query|answers)\}")


class ThoughtTemplateTrainer:
    """Trains a thought template library: a summariser writes a template for every solved query.

    A written template is kept if it has the wanted length and does not tell the query's own answer; else the
    summariser tries again, and after its last attempt the query is dropped. The counts are in the library's
    metrics. Nothing is stored before the library is complete.

    Args:
        arguments: How templates are written. None means the defaults.
        summariser: The LLM that writes them.
        embedder: Turns queries into the vectors that templates are found by.

    Example:
        ```python
        trainer = ThoughtTemplateTrainer(summariser=client, embedder=load_embedder("minilm"))
        library = trainer.train(load_logs("logs.sqlite")).save_pretrained("templates")
        ```

    Source:
        FusionFactory (arXiv 2507.10540), thought-level fusion.
    """

    def __init__(
        self,
        arguments: ThoughtTemplateTrainingArguments | None = None,
        *,
        summariser: ChatClient,
        embedder: Embedder,
    ) -> None:
        self.arguments = arguments or ThoughtTemplateTrainingArguments()
        self.summariser = summariser
        self.embedder = embedder

    def train(
        self, logs: pl.DataFrame | LogSource, *, on_progress: TemplateProgressCallback | None = None
    ) -> ThoughtTemplateLibrary:
        """Write a library.

        Args:
            logs: Who answered what, how well: a log store or its frame.
            on_progress: Told after every batch of queries.

        Returns:
            The library, one template for each solved query that the summariser could write one for. Its
            metrics count what was kept, dropped and why.

        Raises:
            NotEnoughLogsError: If no query is solved, or no template could be kept.
            LogSchemaError: If the frame lacks columns.
            CandidateCallError: If the summariser fails or loses answers.
        """
        frame = as_frame(logs)
        solved = self._solved(frame)
        logger.info("Writing templates for %d solved queries", len(solved))
        if on_progress is not None:
            on_progress(0, len(solved))
        outcomes: list[_Outcome] = []
        size = self.arguments.batch_size
        for first in range(0, len(solved), size):
            outcomes += self._write(solved[first : first + size])
            if on_progress is not None:
                on_progress(len(outcomes), len(solved))
        metrics = _metrics(outcomes, n_queries=frame["query_id"].n_unique())
        templates = [outcome.template for outcome in outcomes if outcome.template is not None]
        logger.info("Kept %d templates of %d", len(templates), len(outcomes))
        if not templates:
            message = (
                f"Of {len(outcomes)} templates that '{self.summariser.model}' wrote none could be kept "
                f"({metrics['n_dropped']}). Use a stronger summariser, or raise n_attempts or max_words."
            )
            raise NotEnoughLogsError(message)
        _, version = _summary_prompt()
        return ThoughtTemplateLibrary(
            templates,
            vectors=self.embedder.embed([template.query for template in templates]),
            embedder=self.embedder.identity,
            arguments=self.arguments.to_json()
            | {"summariser": self.summariser.model, "summary_prompt_version": version},
            log_fingerprint=log_fingerprint(frame),
            metrics=metrics,
        )

    def _solved(self, frame: pl.DataFrame) -> list[_SolvedQuery]:
        arguments = self.arguments
        best = top_answers(
            frame, criterion=arguments.criterion, k=arguments.top_k, min_score=arguments.min_score
        )
        if best.is_empty():
            message = (
                f"None of the {frame['query_id'].n_unique()} logged queries has an answer of "
                f"{arguments.criterion} >= {arguments.min_score}. Score the answers, or lower min_score."
            )
            raise NotEnoughLogsError(message)
        return [
            _SolvedQuery.from_answers(rows) for rows in best.partition_by("query_id", maintain_order=True)
        ]

    def _write(self, batch: Sequence[_SolvedQuery]) -> list[_Outcome]:
        """Let the summariser try until every query of a batch has a template or no attempt is left."""
        outcomes: dict[str, _Outcome] = {}
        for attempt in range(self.arguments.n_attempts):
            missing = [
                solved
                for solved in batch
                if solved.query_id not in outcomes or outcomes[solved.query_id].template is None
            ]
            if not missing:
                break
            for solved, text in zip(missing, self._ask(missing, attempt), strict=True):
                before = outcomes.get(solved.query_id, _Outcome())
                outcomes[solved.query_id] = self._judge(solved, text, before)
        return [outcomes[solved.query_id] for solved in batch]

    def _ask(self, batch: Sequence[_SolvedQuery], attempt: int) -> list[str]:
        """Let the summariser write a text for every query of a batch."""
        prompts = [[Message(role="user", content=self._prompt(solved))] for solved in batch]
        written = self.summariser.complete_batch(prompts, options=self._options(attempt))
        if len(written) != len(prompts):
            model = self.summariser.model
            message = f"The summariser '{model}' gave {len(written)} answers to {len(prompts)} conversations."
            raise CandidateCallError(message)
        # Lone surrogates fit no file: at the end they would cost the whole library.
        return [
            shorten(
                completion.text.encode(errors="replace").decode(),
                max_sentences=self.arguments.max_sentences,
                is_cut=completion.finish_reason == "length",
            )
            for completion in written
        ]

    def _judge(self, solved: _SolvedQuery, text: str, before: _Outcome) -> _Outcome:
        rejection = find_rejection(text, query=solved.text, answers=solved.secrets, arguments=self.arguments)
        if rejection is not None:
            return _Outcome(rejections=(*before.rejections, rejection))
        return _Outcome(template=solved.template(text), rejections=before.rejections)

    def _options(self, attempt: int) -> GenerationOptions:
        arguments = self.arguments
        if attempt == 0:
            return GenerationOptions(max_tokens=arguments.max_tokens)
        return GenerationOptions(
            max_tokens=arguments.max_tokens,
            temperature=arguments.retry_temperature,
            seed=arguments.seed + attempt,
        )

    def _prompt(self, solved: _SolvedQuery) -> str:
        limit = self.arguments.max_answer_chars
        answers = "\n\n".join(
            f"Answer {number}:\n{_cut(text, limit)}" for number, text in enumerate(solved.responses, start=1)
        )
        values = {"query": _cut(solved.text, limit), "answers": answers}
        # One pass: what a query or an answer holds in braces is not replaced again.
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], _summary_prompt()[0])


@dataclass(frozen=True, kw_only=True)
class _SolvedQuery:
    """A query with its best answers.

    Attributes:
        query_id: Its id.
        text: Its text, as a router and the embedder see it.
        task: Its task, if known.
        responses: The best answers, best first.
        sources: Where they come from.
        secrets: What a template must not tell.
    """

    query_id: str
    text: str
    task: str | None
    responses: tuple[str, ...]
    sources: tuple[TemplateSource, ...]
    secrets: tuple[str, ...]

    @classmethod
    def from_answers(cls, rows: pl.DataFrame) -> _SolvedQuery:
        """Gather the rows of one query, best answer first."""
        answers = list(rows.iter_rows(named=True))
        first = answers[0]
        responses = tuple(dict.fromkeys(answer["response"].strip() for answer in answers))
        return cls(
            query_id=first["query_id"],
            text=first["query_text"],
            task=first["task"],
            responses=responses,
            sources=tuple(
                TemplateSource(
                    record_id=answer["record_id"],
                    candidate_id=answer["candidate_id"],
                    performance=answer["performance"],
                    judge_score=answer["judge_score"],
                )
                for answer in answers
            ),
            secrets=own_answers(next(filter(None, (row["reference"] for row in answers)), None), responses),
        )

    def template(self, text: str) -> ThoughtTemplate:
        """Make the template of this query."""
        return ThoughtTemplate(
            id=fingerprint([self.query_id, text]),
            query_id=self.query_id,
            query=self.text,
            text=text,
            task=self.task,
            sources=self.sources,
        )


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of a solved query: a template or none, and why attempts were rejected, oldest first."""

    template: ThoughtTemplate | None = None
    rejections: tuple[Rejection, ...] = ()


@functools.cache
def _summary_prompt() -> tuple[str, int]:
    text, version = read_versioned_text("fusion_integrations.prompts", "thought_summary.txt")
    if set(_PLACEHOLDER.findall(text)) != {"query", "answers"}:
        raise InvalidPolicyError("prompts/thought_summary.txt must hold {query} and {answers}.")
    return text, version


def _metrics(outcomes: Sequence[_Outcome], *, n_queries: int) -> Mapping[str, int | dict[str, int]]:
    dropped = [outcome for outcome in outcomes if outcome.template is None]
    rejections = Counter(rejection for outcome in outcomes for rejection in outcome.rejections)
    return {
        "n_queries": n_queries,
        "n_solved": len(outcomes),
        "n_kept": len(outcomes) - len(dropped),
        "n_kept_at_once": sum(not outcome.rejections for outcome in outcomes),
        # By the reason of the last attempt.
        "n_dropped": dict(sorted(Counter(outcome.rejections[-1] for outcome in dropped).items())),
        "n_attempts_rejected": dict(sorted(rejections.items())),
    }


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ..."
