"""Templates written from real log rows by scripted summarisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import CandidateCallError, LogSchemaError, NotEnoughLogsError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.store import LogStore
from fusion_integrations.testing import ScriptedChatClient, tiny_logs
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments
from fusion_integrations.thought_level.template_library import TemplateSource, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_trainer import ThoughtTemplateTrainer
from fusion_integrations.types import Completion, GenerationOptions, Message

METHOD = "Read the question, add both numbers and give the sum."


class Summariser(ScriptedChatClient):
    """A scripted client that keeps how it was called, batch by batch."""

    def __init__(self, answer: Callable[[Sequence[Message]], str] | None = None) -> None:
        super().__init__("summariser", answer=answer or (lambda _: METHOD))
        self.batches: list[list[str]] = []
        self.options: list[GenerationOptions | None] = []

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        self.batches.append([messages[-1].content for messages in conversations])
        self.options.append(options)
        return super().complete_batch(conversations, options=options)


def row(record_id, query_text, response, **values):
    """Make a log row of a right answer."""
    defaults = {
        "query_id": query_text,
        "candidate_id": "c",
        "performance": 1.0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "source": "tests",
    }
    return defaults | {
        "record_id": record_id,
        "query_text": query_text,
        "response": response,
        "reference": response,
        **values,
    }


def logs(*rows):
    return pl.DataFrame(list(rows), schema=LOG_SCHEMA)


def sums(n):
    return logs(*(row(f"r{i:03}", f"What is {100 + i} + {i}?", str(100 + 2 * i)) for i in range(n)))


def trainer(summariser=None, **arguments):
    return ThoughtTemplateTrainer(
        ThoughtTemplateTrainingArguments(**arguments),
        summariser=summariser or Summariser(),
        embedder=HashEmbedder(),
    )


def test_train_when_all_goes_well_writes_a_template_for_every_solved_query():
    summariser = Summariser()
    frame = pl.concat([sums(3), logs(row("wrong", "What is 1 + 1?", "3", performance=0.0))])
    library = trainer(summariser, batch_size=2).train(frame)
    assert [template.query for template in library.templates] == [
        f"What is {100 + i} + {i}?" for i in range(3)
    ]
    assert {template.text for template in library.templates} == {METHOD}
    assert [len(batch) for batch in summariser.batches] == [2, 1]
    assert library.metrics == {
        "n_queries": 4,
        "n_solved": 3,
        "n_kept": 3,
        "n_kept_at_once": 3,
        "n_dropped": {},
        "n_attempts_rejected": {},
    }
    assert library.embedder == HashEmbedder().identity
    assert (
        library.vectors.tolist() == HashEmbedder().embed([each.query for each in library.templates]).tolist()
    )
    assert library.log_fingerprint == log_fingerprint(frame)
    assert library.arguments == ThoughtTemplateTrainingArguments(batch_size=2).to_json() | {
        "summariser": "summariser",
        "summary_prompt_version": 1,
    }


def test_train_gives_templates_their_sources_best_first():
    query = "What is 100 + 1?"
    frame = logs(
        row("slow", query, "It is 101.", cost_usd=2.0, judge_score=0.5, task="sums"),
        row("best", query, "101", cost_usd=1.0, judge_score=0.9, candidate_id="d", task="sums"),
        row("dear", query, "101!", cost_usd=3.0, judge_score=0.5, candidate_revision="2", task="sums"),
        row("fourth", query, "101?", cost_usd=4.0, task="sums"),
    )
    (template,) = trainer().train(frame).templates
    assert template.query_id == query
    assert template.task == "sums"
    assert template.sources == (
        TemplateSource(record_id="best", candidate_id="d", performance=1.0, judge_score=0.9),
        TemplateSource(record_id="slow", candidate_id="c", performance=1.0, judge_score=0.5),
        TemplateSource(record_id="dear", candidate_id="c", performance=1.0, judge_score=0.5),
    )


def test_train_shows_the_summariser_the_query_and_each_different_answer_once():
    summariser = Summariser()
    query = "What is {answers} plus {query} plus {0}?"
    frame = logs(
        row("1", query, " 101 \n", reference="101"),
        row("2", query, "101", reference="101"),
        row("3", query, "It is {query} 101.", reference="101"),
    )
    trainer(summariser).train(frame)
    ((prompt,),) = summariser.batches
    assert f"Question: {query}\n\nAnswer 1:\n101\n\nAnswer 2:\nIt is {{query}} 101.\n\nIn one" in prompt
    assert prompt.count(query) == 1


def test_train_when_texts_are_long_shows_their_beginnings():
    summariser = Summariser()
    trainer(summariser, max_answer_chars=20).train(logs(row("1", "q" * 30, "a" * 30)))
    ((prompt,),) = summariser.batches
    assert f"Question: {'q' * 20} ...\n\nAnswer 1:\n{'a' * 20} ...\n" in prompt


def test_train_when_a_text_is_rejected_tries_again_with_sampling():
    texts = iter(["Too short.", "The sum is 102, as one can see.", f"{METHOD} {METHOD}"])
    summariser = Summariser(lambda _: next(texts))
    library = trainer(summariser, n_attempts=3, max_tokens=50, retry_temperature=0.5, seed=7).train(
        sums(2)[1:]
    )
    assert library.templates[0].text == METHOD
    assert summariser.options == [
        GenerationOptions(max_tokens=50),
        GenerationOptions(max_tokens=50, temperature=0.5, seed=8),
        GenerationOptions(max_tokens=50, temperature=0.5, seed=9),
    ]
    assert library.metrics["n_kept_at_once"] == 0
    assert library.metrics["n_attempts_rejected"] == {"leaked": 1, "too_short": 1}


def test_train_when_some_are_rejected_asks_only_those_again():
    # The second query is always answered too briefly.
    summariser = Summariser(lambda messages: "No." if "101 + 1?" in messages[-1].content else METHOD)
    library = trainer(summariser, n_attempts=3).train(sums(3))
    assert [len(batch) for batch in summariser.batches] == [3, 1, 1]
    assert [template.query for template in library.templates] == ["What is 100 + 0?", "What is 102 + 2?"]
    assert library.metrics["n_dropped"] == {"too_short": 1}
    assert library.metrics["n_attempts_rejected"] == {"too_short": 3}


@pytest.mark.parametrize("seed", range(3))
def test_train_when_outcomes_are_mixed_counts_every_solved_query_once(seed):
    rng = np.random.default_rng(seed)
    texts = (METHOD, "No.", "word " * 200, "The sum that is asked for is 100 or 102 or 104 or 106 or 108.")
    library = trainer(Summariser(lambda _: texts[rng.integers(4)]), n_attempts=2, batch_size=4).train(
        sums(30)
    )
    metrics = library.metrics
    assert metrics["n_kept"] == len(library) < metrics["n_solved"] == 30
    assert metrics["n_kept"] + sum(metrics["n_dropped"].values()) == metrics["n_solved"]
    # Every query has a kept attempt or two rejected ones.
    retried = metrics["n_kept"] - metrics["n_kept_at_once"]
    n_dropped = sum(metrics["n_dropped"].values())
    assert sum(metrics["n_attempts_rejected"].values()) == retried + 2 * n_dropped


def test_train_when_logs_have_no_references_keeps_the_answers_out_all_the_same():
    texts = iter(["One finds by adding that it is 101.", METHOD])
    frame = logs(row("1", "What is 100 + 1?", "The answer is 101, since 100 + 1 = 101.", reference=None))
    library = trainer(Summariser(lambda _: next(texts))).train(frame)
    assert library.templates[0].text == METHOD
    assert library.metrics["n_attempts_rejected"] == {"leaked": 1}


def test_train_when_all_is_repeated_gives_the_same_library():
    def answer(messages: Sequence[Message]) -> str:
        return f"{METHOD} Mind that it is question number {len(messages[-1].content)} in length."

    frame = sums(20)
    libraries = [
        trainer(Summariser(answer)).train(logs_in_some_order)
        for logs_in_some_order in (
            frame,
            frame,
            frame.reverse(),
            frame.sample(fraction=1, shuffle=True, seed=1),
        )
    ]
    assert len({library.fingerprint for library in libraries}) == 1
    assert len({library.log_fingerprint for library in libraries}) == 1
    assert all(library.templates == libraries[0].templates for library in libraries)


def test_train_when_two_queries_get_the_same_text_keeps_both():
    library = trainer().train(sums(2))
    assert library.templates[0].text == library.templates[1].text
    assert library.templates[0].id != library.templates[1].id


def test_train_from_a_store_equals_its_frame(tmp_path):
    with (
        LogStore.open(tmp_path / "logs.sqlite") as store,
        pytest.raises(NotEnoughLogsError, match="the 0 logged"),
    ):
        trainer().train(store)
    frame = tiny_logs()

    class Source:
        def to_frame(self) -> pl.DataFrame:
            return frame

    assert trainer().train(Source()).fingerprint == trainer().train(frame).fingerprint


def test_train_when_watched_reports_progress():
    seen: list[tuple[int, int]] = []
    trainer(batch_size=2).train(sums(5), on_progress=lambda *news: seen.append(news))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_train_when_the_summariser_writes_half_an_emoji_can_be_saved(tmp_path):
    library = trainer(Summariser(lambda _: f"{METHOD} Well done \ud83d")).train(sums(1))
    library.save_pretrained(tmp_path / "library")
    assert ThoughtTemplateLibrary.from_pretrained(tmp_path / "library").fingerprint == library.fingerprint


@pytest.mark.parametrize("criterion", ["performance", "judge", "hybrid"])
def test_train_when_scores_are_not_numbers_takes_them_as_unknown(tmp_path, criterion):
    other = "performance" if criterion == "judge" else "judge_score"
    frame = pl.concat(
        [
            sums(2).with_columns(judge_score=pl.lit(1.0)).with_columns(pl.lit(float("nan")).alias(other)),
            logs(row("x", "What is 1?", "1", performance=float("nan"), judge_score=float("nan"))),
        ]
    )
    library = trainer(criterion=criterion).train(frame).save_pretrained(tmp_path / "library")
    assert [getattr(each.sources[0], other) for each in library.templates] == [None] * 2


def test_train_when_the_summariser_fails_tells_why():
    answers = iter([METHOD, METHOD])

    def answer(_messages: Sequence[Message]) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise CandidateCallError("The model is overloaded.") from None

    seen: list[tuple[int, int]] = []
    with pytest.raises(CandidateCallError, match="The model is overloaded"):
        trainer(Summariser(answer), batch_size=2).train(sums(3), on_progress=lambda *news: seen.append(news))
    assert seen == [(0, 3), (2, 3)]


@pytest.mark.parametrize("change", [lambda written: written[1:], lambda written: written * 2, lambda _: []])
def test_train_when_the_summariser_gives_another_number_of_answers_says_so(change):
    class Miscounting(Summariser):
        def complete_batch(
            self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
        ) -> list[Completion]:
            return change(super().complete_batch(conversations, options=options))

    with pytest.raises(CandidateCallError, match=r"'summariser' gave \d answers to 3 conversations"):
        trainer(Miscounting()).train(sums(3))


def test_train_when_no_query_is_solved_asks_nobody():
    summariser = Summariser()
    frame = sums(2).with_columns(performance=pl.lit(0.4))
    with pytest.raises(
        NotEnoughLogsError, match=r"None of the 2 logged queries has an answer of hybrid >= 0.5"
    ):
        trainer(summariser).train(frame)
    assert summariser.batches == []


def test_train_when_nothing_can_be_kept_says_why():
    with pytest.raises(
        NotEnoughLogsError, match=r"Of 2 templates that 'summariser' wrote none .*'too_short': 2"
    ):
        trainer(Summariser(lambda _: "")).train(sums(2))


def test_train_when_columns_are_missing_names_them():
    with pytest.raises(LogSchemaError, match=r"lack the columns \['reference'\]"):
        trainer().train(sums(1).drop("reference"))


def test_train_when_logs_are_large_takes_time_in_proportion():
    # 20,000 answers to 1,000 queries; seconds, not minutes.
    copies = [
        sums(1000).with_columns(pl.format("{}-{}", "record_id", pl.lit(i)).alias("record_id"))
        for i in range(20)
    ]
    library = trainer().train(pl.concat(copies))
    assert len(library) == 1000
    assert all(len(template.sources) == 3 for template in library.templates)
