from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from fusion_integrations.collection.collector import CollectionProgress, CollectionReport, LogCollector
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    CandidateCallError,
    InvalidPolicyError,
    LogSchemaError,
    UnknownCandidateError,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
from fusion_integrations.types import (
    Candidate,
    Completion,
    GenerationOptions,
    Message,
    Price,
    PriceTable,
    Query,
)

DIRECT = Candidate(id="calc:direct", model="calc", revision="direct-1")
REASONING = Candidate(id="calc:reasoning", model="calc", prompt_mode="reasoning", revision="reasoning-1")
PRICES = PriceTable(prices={"calc": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})


def sums(n: int) -> list[Query]:
    return [
        Query.from_text(f"{i}+1=?", task="sums", metric="numeric_match", reference=str(i + 1))
        for i in range(n)
    ]


class Calculator:
    """A client that adds one, and does what its test wants on prompts with certain texts."""

    def __init__(self, answer: Callable[[str], str] | None = None) -> None:
        self.model = "calc"
        self.batches: list[list[str]] = []
        self.options: list[GenerationOptions | None] = []
        self._answer = answer or (lambda text: str(int(text.split("+")[0]) + 1))

    def complete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        return self.complete_batch([messages], options=options)[0]

    async def acomplete(
        self, messages: Sequence[Message], *, options: GenerationOptions | None = None
    ) -> Completion:
        return self.complete(messages, options=options)

    def complete_batch(
        self, conversations: Sequence[Sequence[Message]], *, options: GenerationOptions | None = None
    ) -> list[Completion]:
        texts = [messages[-1].content for messages in conversations]
        self.batches.append(texts)
        self.options.append(options)
        return [
            Completion(
                text=self._answer(text), model="calc", input_tokens=1000, output_tokens=500, latency_s=1.0
            )
            for text in texts
        ]


@pytest.fixture
def store(tmp_path):
    with LogStore.open(tmp_path / "logs.sqlite") as opened:
        yield opened


def collector(client, store, **settings) -> LogCollector:
    ticks = iter(range(10**6))
    return LogCollector(
        {"calc": client},
        **{
            "candidates": [DIRECT, REASONING],
            "store": store,
            "collection": "test",
            "prices": PRICES,
            "clock": lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks)),
            **settings,
        },
    )


def test_collect_when_all_goes_well_logs_every_cell_with_score_and_cost(store):
    client = Calculator()
    report = collector(client, store, batch_size=4).collect(sums(6))

    # A call costs 1000 tokens at 1 USD and 500 at 2 USD per million: 0.002 USD; there are 2 x 6 of them.
    assert report == CollectionReport(
        n_done=12, cost_usd=pytest.approx(0.024), billed_usd=pytest.approx(0.024)
    )
    frame = store.to_frame()
    assert sorted(frame["candidate_id"].to_list()) == ["calc:direct"] * 6 + ["calc:reasoning"] * 6
    assert frame["performance"].to_list() == [1.0] * 12
    assert frame["cost_usd"].to_list() == pytest.approx([0.002] * 12)
    record = next(record for record in store.records() if record.candidate_id == "calc:direct")
    assert record.assignment == "factorial"
    assert record.propensity == 1.0
    assert record.eligible == ("calc:direct", "calc:reasoning")
    assert (record.source, record.candidate_revision, record.prompt_mode) == ("test", "direct-1", "direct")
    score = next(iter(store.scores()))
    assert (score.kind, score.scorer, score.version) == ("performance", "numeric_match", "3")


def test_collect_when_in_batches_shares_the_latency_among_them(store):
    collector(Calculator(), store, candidates=[DIRECT], batch_size=4).collect(sums(6))
    assert sorted(record.latency_s for record in store.records()) == [0.25] * 4 + [0.5] * 2


def test_collect_when_the_mode_is_reasoning_edits_the_prompt_but_logs_the_query(store):
    client = Calculator()
    collector(client, store, candidates=[REASONING]).collect(sums(1))
    assert client.batches[0][0].startswith("0+1=?\n\nThink step by step")
    record = next(iter(store.records()))
    assert record.messages == sums(1)[0].messages
    assert record.query_id == sums(1)[0].query_id


def test_collect_when_lengths_differ_asks_long_queries_first(store):
    client = Calculator()
    collector(client, store, candidates=[DIRECT], batch_size=2).collect(
        [Query.from_text(text) for text in ("1+1", "100000+1", "1000+1")]
    )
    assert client.batches == [["100000+1", "1000+1"], ["1+1"]]


def test_collect_when_options_are_given_passes_them_to_their_candidate_only(store):
    client, options = Calculator(), GenerationOptions(max_tokens=5)
    collector(client, store, options={"calc:direct": options}).collect(sums(1))
    assert client.options == [options, None]


def test_collect_when_run_again_asks_only_what_is_missing(store):
    collector(Calculator(), store).collect(sums(3))
    client = Calculator()
    report = collector(client, store).collect(sums(5))
    assert (report.n_done, report.n_skipped) == (4, 6)
    assert sorted(text[0] for batch in client.batches for text in batch) == ["3", "3", "4", "4"]
    assert store.stats().n_records == 10


def test_collect_when_a_revision_changes_asks_again(store):
    collector(Calculator(), store, candidates=[DIRECT]).collect(sums(2))
    newer = Candidate(id=DIRECT.id, model="calc", revision="direct-2")
    assert collector(Calculator(), store, candidates=[newer]).collect(sums(2)).n_done == 2


def test_collect_when_one_query_fails_records_it_and_keeps_the_rest(store):
    def answer(text: str) -> str:
        if text.startswith("2"):
            raise CandidateCallError("no twos today")
        return "1"

    report = collector(Calculator(answer), store, candidates=[DIRECT], batch_size=4).collect(sums(6))

    assert (report.n_done, report.n_failed) == (5, 1)
    failed = [record for record in store.records() if record.error]
    assert [record.messages[0].content for record in failed] == ["2+1=?"]
    assert failed[0].error == "CandidateCallError: no twos today"
    assert failed[0].response is None
    assert failed[0].cost_usd is None
    # Those asked one by one, after their batch had failed, have a call of their own.
    assert sorted(record.latency_s for record in store.records() if not record.error) == [0.5] * 2 + [1.0] * 3


def test_collect_when_run_again_after_failures_tries_them_again(store):
    def fail(text: str) -> str:
        raise OSError(text)

    assert collector(Calculator(fail), store, candidates=[DIRECT]).collect(sums(2)).n_failed == 2
    later = collector(
        Calculator(), store, candidates=[DIRECT], clock=lambda: datetime(2026, 1, 2, tzinfo=UTC)
    ).collect(sums(2))
    assert (later.n_done, later.n_skipped) == (2, 0)
    assert store.stats().n_failed == 2


def test_collect_when_a_client_loses_answers_counts_failures(store):
    class Forgetful(Calculator):
        def complete_batch(self, conversations, *, options=None):
            return super().complete_batch(conversations[1:], options=options)

    report = collector(Forgetful(), store, candidates=[DIRECT]).collect(sums(2))
    assert report.n_failed == 2
    assert "0 answers to 1 conversations" in next(iter(store.records())).error


def test_collect_when_an_answer_fits_no_record_counts_a_failure(store):
    report = collector(Calculator(lambda _: "\ud800"), store, candidates=[DIRECT]).collect(sums(1))
    assert (report.n_done, report.n_failed) == (0, 1)


def test_collect_when_interrupted_keeps_the_batches_before(store):
    def answer(text: str) -> str:
        if text.startswith("3"):
            raise KeyboardInterrupt
        return "1"

    with pytest.raises(KeyboardInterrupt):
        collector(Calculator(answer), store, candidates=[DIRECT], batch_size=2).collect(sums(4))
    assert store.stats().n_records == 2
    report = collector(Calculator(), store, candidates=[DIRECT]).collect(sums(4))
    assert (report.n_done, report.n_skipped) == (2, 2)


def test_collect_when_nothing_can_be_scored_says_so(store):
    queries = [Query.from_text("1+1", metric="numeric_match"), Query.from_text("2+1")]
    report = collector(Calculator(), store, candidates=[DIRECT]).collect(queries)
    assert (report.n_done, report.n_unscored) == (2, 1)
    assert store.stats().n_scores == 0


def test_collect_when_a_price_is_unknown_leaves_the_cost_unknown(store):
    report = collector(Calculator(), store, candidates=[DIRECT], prices=None).collect(sums(1))
    assert report.cost_usd is None
    assert next(iter(store.records())).cost_usd is None


def test_collect_when_watched_reports_progress(store):
    collector(Calculator(), store, candidates=[DIRECT]).collect(sums(1))
    seen: list[CollectionProgress] = []
    collector(Calculator(), store, candidates=[DIRECT], batch_size=2, on_progress=seen.append).collect(
        sums(4)
    )
    assert {news.candidate_id for news in seen} == {"calc:direct"}
    # A call costs 0.002 USD; the one of the run before is not this run's.
    assert [(news.n_done, news.n_total, round(news.cost_usd, 9)) for news in seen] == [
        *((1, 4, 0), (3, 4, 0.004), (4, 4, 0.006))
    ]


def test_collect_when_queries_repeat_asks_once(store):
    assert collector(Calculator(), store, candidates=[DIRECT]).collect(sums(2) + sums(2)).n_done == 2


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (Query.from_text("0+1=?", task="sums", metric="numeric_match", reference="7"), "differ in task"),
        (Query.from_text("x", metric="no_such_metric", reference="1"), "no metric 'no_such_metric'"),
        (Query.from_text("x", metric="numeric_match", reference="many"), "got 'many'"),
    ],
)
def test_collect_when_a_query_cannot_be_scored_fails_before_any_call(store, query, problem):
    client = Calculator()
    with pytest.raises(LogSchemaError, match=problem):
        collector(client, store).collect([*sums(1), query])
    assert client.batches == []


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({"candidates": [DIRECT, DIRECT]}, InvalidPolicyError, "must be distinct"),
        ({"candidates": [Candidate(id="search", kind="tool")]}, InvalidPolicyError, "'search' is a tool"),
        ({"candidates": [Candidate(id="x", model="y")]}, UnknownCandidateError, "model 'y'"),
        (
            {"candidates": [Candidate(id="x", model="calc", prompt_mode="thought")]},
            InvalidPolicyError,
            "'x' is prompted with thought templates. Pass LogCollector",
        ),
        ({"options": {"z": GenerationOptions()}}, UnknownCandidateError, "'z'"),
        ({"batch_size": 0}, InvalidPolicyError, "at least 1, got 0"),
    ],
)
def test_collector_when_arguments_do_not_fit_raises(store, settings, error, problem):
    with pytest.raises(error, match=problem):
        collector(Calculator(), store, **settings)


# Thought templates


def prompter(*queries: str, text: str = "Count on.", **settings) -> ThoughtPrompter:
    embedder = HashEmbedder()
    templates = [
        ThoughtTemplate(id=f"t{i}", query_id=f"q{i}", query=query, text=f"{text} {i}")
        for i, query in enumerate(queries)
    ]
    library = ThoughtTemplateLibrary(templates, vectors=embedder.embed(queries), embedder=embedder.identity)
    return ThoughtPrompter(InMemoryThoughtTemplateStore(library, embedder=embedder), **settings)


def guided(thoughts: ThoughtPrompter) -> Candidate:
    return Candidate(id="calc:thought", model="calc", prompt_mode="thought", revision=thoughts.revision)


def test_collect_when_the_mode_is_thought_guides_but_logs_the_query(store):
    client, thoughts = Calculator(lambda _: "1"), prompter("0+1=? Say it.", "Rivers and rain")
    candidate = guided(thoughts)
    report = collector(client, store, candidates=[candidate], thoughts=thoughts).collect(sums(1))
    ((asked,),) = client.batches
    assert "Question: 0+1=? Say it.\nHow to solve it: Count on. 0\n" in asked
    assert "Rivers" not in asked
    assert asked.endswith("\n\n0+1=?")
    assert report.n_done == 1
    record = next(iter(store.records()))
    assert record.messages == sums(1)[0].messages
    assert (record.candidate_revision, record.prompt_mode) == (thoughts.revision, "thought")
    assert store.to_frame()["performance"].to_list() == [1.0]


def test_collect_when_templates_come_from_the_query_or_a_near_duplicate_leaves_them_out(store):
    client = Calculator(lambda _: "1")
    thoughts = prompter("0+1=?", " 7 + 1 = ?", "0+1=? Say it.", k=3, min_similarity=-1.0)
    collector(client, store, candidates=[guided(thoughts)], thoughts=thoughts).collect(sums(1))
    ((asked,),) = client.batches
    assert asked.count("<note>") == 1
    assert "Count on. 2" in asked


def test_collect_when_all_templates_are_near_duplicates_asks_the_query_as_it_is(store):
    client, thoughts = Calculator(lambda _: "1"), prompter("0+1=?", "1+1=?")
    collector(client, store, candidates=[guided(thoughts)], thoughts=thoughts).collect(sums(2))
    assert client.batches == [["0+1=?", "1+1=?"]]


def test_collect_when_guided_gives_every_query_its_own_templates(store):
    client = Calculator(lambda _: "1")
    texts = ["What do whales eat?", "Where do rivers end?"]
    thoughts = prompter(*(f"{text} Be brief." for text in texts), k=1)
    collector(client, store, candidates=[guided(thoughts)], thoughts=thoughts).collect(
        [Query.from_text(text) for text in texts]
    )
    asked = {text.rsplit("\n", 1)[-1]: text for batch in client.batches for text in batch}
    assert {query: text.count("Count on. 0") for query, text in asked.items()} == {texts[0]: 1, texts[1]: 0}
    assert {query: text.count("Count on. 1") for query, text in asked.items()} == {texts[0]: 0, texts[1]: 1}


def test_collect_when_guided_and_run_again_asks_only_what_is_missing(store):
    thoughts = prompter("0+1=? Say it.")

    def answer(text: str) -> str:
        if text.endswith("2+1=?"):
            raise KeyboardInterrupt
        return "1"

    settings = {"candidates": [guided(thoughts)], "thoughts": thoughts, "batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        collector(Calculator(answer), store, **settings).collect(sums(4))
    client = Calculator(lambda _: "1")
    report = collector(client, store, **settings).collect(sums(4))
    assert (report.n_done, report.n_skipped) == (2, 2)
    assert [batch[0][-5:] for batch in client.batches] == ["2+1=?", "3+1=?"]


def test_collect_when_the_library_changes_asks_again(store):
    for n_done, thoughts in enumerate((prompter("0+1=? Say it."), prompter("0+1=? Say it.", text="Add.")), 1):
        report = collector(
            Calculator(lambda _: "1"), store, candidates=[guided(thoughts)], thoughts=thoughts
        ).collect(sums(2))
        assert (report.n_done, report.n_skipped) == (2, 0)
        assert store.to_frame()["candidate_revision"].n_unique() == n_done


@pytest.mark.parametrize("revision", ["", "thought-1"])
def test_collector_when_the_revision_is_not_that_of_the_guidance_names_both(store, revision):
    thoughts = prompter("0+1=?")
    candidate = Candidate(id="calc:thought", model="calc", prompt_mode="thought", revision=revision)
    with pytest.raises(InvalidPolicyError) as caught:
        collector(Calculator(), store, candidates=[candidate], thoughts=thoughts)
    message = str(caught.value)
    assert all(part in message for part in ("'calc:thought'", f"'{revision}'", f"'{thoughts.revision}'"))


def test_collect_when_some_candidates_are_guided_leaves_the_others_alone(store):
    client, thoughts = Calculator(lambda _: "1"), prompter("0+1=? Say it.")
    report = collector(client, store, candidates=[DIRECT, guided(thoughts)], thoughts=thoughts).collect(
        sums(1)
    )
    assert report.n_done == 2
    assert client.batches[0] == ["0+1=?"]
    assert client.batches[1][0].startswith("These notes")
