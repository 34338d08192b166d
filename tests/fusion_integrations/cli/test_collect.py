from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from contextlib import suppress

import pytest

from fusion_integrations.cli.inputs import read_queries
from fusion_integrations.logs.schema import collection_record_id
from fusion_integrations.logs.store import LogStore
from fusion_integrations.prompts import prompt_edit

REASONING = prompt_edit("reasoning").revision
DIRECT = prompt_edit("direct").revision


def options(queries, candidates, store, *more):
    return ("collect", "--queries", queries, "--candidates", candidates, "--store", store, *more)


@pytest.mark.usefixtures("plugin")
def test_collect_when_run_twice_stores_scored_answers_once(fusion, write_queries, write_candidates, tmp_path):
    command = options(write_queries(5), write_candidates(), tmp_path / "logs.sqlite", "--batch-size", "2")

    first, second = fusion(*command), fusion(*command, "--json")

    assert first.exit_code == second.exit_code == 0, first.stderr
    assert "10 answers stored" in first.stdout
    assert "Collection 'sums'" in first.stdout
    assert "echo:reasoning: 5 of 5, 0.000020 USD\n" in first.stderr
    document = json.loads(second.stdout)
    assert (document["n_done"], document["n_skipped"], document["collection"]) == (0, 10, "sums")
    with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
        assert [score.value for score in store.scores() if score.scorer == "numeric_match"][:5] == [1.0] * 5


@pytest.mark.usefixtures("plugin")
def test_collect_when_limited_and_named_asks_the_first_queries_under_that_name(
    fusion, write_queries, write_candidates, tmp_path
):
    command = options(write_queries(5), write_candidates(), tmp_path / "logs.sqlite")
    fusion(*command, "--limit", "2", "--collection", "mine")
    with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
        records = list(store.records())
    assert {record.messages[0].content for record in records} == {"What is 0 + 0?", "What is 1 + 0?"}
    assert {record.source for record in records} == {"mine"}


@pytest.mark.usefixtures("plugin")
def test_collect_when_some_calls_fail_says_which_and_tries_them_again(
    fusion, write_queries, write_candidates, tmp_path
):
    queries, store = write_queries(4), tmp_path / "logs.sqlite"
    failing = fusion(*options(queries, write_candidates('{fails_on: "is 3"}'), store))
    assert failing.exit_code == 0
    assert "6 answers stored" in failing.stdout
    assert "2 calls failed; the same command tries them again." in failing.stdout
    assert "'echo:direct' failed last with ValueError: refused by echo [bold]." in failing.stdout
    repaired = json.loads(fusion(*options(queries, write_candidates(), store, "--json")).stdout)
    assert (repaired["n_done"], repaired["n_skipped"], repaired["last_failures"]) == (2, 6, {})


@pytest.mark.usefixtures("plugin")
def test_collect_when_every_call_fails_exits_1_with_the_reason(
    fusion, write_queries, write_candidates, tmp_path
):
    result = fusion(
        *options(write_queries(2), write_candidates("{fails_on: What}"), tmp_path / "logs.sqlite", "--json")
    )
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "CandidateCallError"
    assert error["message"].startswith(
        "All 4 calls failed. 'echo:direct' failed last with ValueError: refused"
    )


@pytest.mark.usefixtures("plugin")
def test_collect_when_a_client_prints_to_stdout_still_gives_one_document(
    fusion, write_queries, write_candidates, tmp_path
):
    result = fusion(
        *options(write_queries(1), write_candidates("{is_noisy: true}"), tmp_path / "l.sqlite", "--json")
    )
    assert json.loads(result.stdout)["n_done"] == 2
    assert "a library that prints to stdout" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("--queries", "none.jsonl", "cannot be read"),
        ("--candidates", "none.yaml", "cannot be used"),
        ("--store", "no/such/folder/logs.sqlite", "no/such/folder"),
        ("--batch-size", "0", "batch_size must be at least 1"),
    ],
)
@pytest.mark.usefixtures("plugin")
def test_collect_when_an_input_is_bad_exits_1_with_the_message(
    field, value, says, fusion, write_queries, write_candidates, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = fusion(*options(write_queries(1), write_candidates(), "logs.sqlite"), field, value)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr


def test_collect_when_interrupted_says_how_to_go_on_and_goes_on(
    start_fusion, write_queries, write_candidates, tmp_path
):
    command = options(write_queries(500), write_candidates(), tmp_path / "l.sqlite", "--batch-size", "1")
    # A shell may have told its background jobs, and so this process and its children, to ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start_fusion(*command)
    finally:
        signal.signal(signal.SIGINT, before)
    lines = [process.stderr.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()

    # Answers of four words at a (nominal) dollar a million tokens.
    assert lines == [f"echo:direct: {n} of 500, {n * 4e-6:.6f} USD\n" for n in range(3)]
    assert process.returncode == 130
    last_words = errors.splitlines()[-1]
    assert last_words.startswith("Error: Interrupted. All finished batches are stored")
    assert last_words.endswith("run the same command again to go on.")
    with LogStore.open(tmp_path / "l.sqlite", create=False) as store:
        assert 2 <= len(list(store.records())) < 1000


@pytest.mark.slow
def test_collect_when_killed_ten_times_holds_every_answer_once_in_the_end(
    start_fusion, write_queries, write_candidates, tmp_path
):
    n_queries, path = 400, tmp_path / "logs.sqlite"
    queries = write_queries(n_queries)
    command = options(queries, write_candidates(), path, "--batch-size", "1", "--json")
    chance = random.Random(0)  # noqa: S311
    for _ in range(10):
        process = start_fusion(*command)
        lines = [process.stderr.readline() for _ in range(chance.randrange(12))]
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0, 0.05))
        process.kill()
        _, rest = process.communicate()
        assert process.returncode == -signal.SIGKILL
        _check_acknowledged([*lines, *rest.splitlines(keepends=True)], path)
    n_before = sum(_count(path).values())

    documents = [json.loads(start_fusion(*command).communicate()[0]) for _ in range(2)]

    assert 0 < n_before < 2 * n_queries
    assert [(d["n_done"], d["n_skipped"]) for d in documents] == [
        (2 * n_queries - n_before, n_before),
        (0, 2 * n_queries),
    ]
    wanted = {
        collection_record_id(
            collection="sums", query_id=query.query_id, candidate_id=candidate, revision=revision, sample=0
        )
        for query in read_queries(str(queries))
        for candidate, revision in (("echo:direct", DIRECT), ("echo:reasoning", REASONING))
    }
    with LogStore.open(path, create=False) as store:
        records = [record.record_id for record in store.records()]
        scores = [score.record_id for score in store.scores()]
    assert len(records) == len(scores) == 2 * n_queries
    assert set(records) == set(scores) == wanted


def _check_acknowledged(lines, path):
    """Compare the last complete progress line of each candidate with the store."""
    stored = _count(path)
    for line in lines:
        if line.endswith("\n"):
            candidate, _, progress = line.rpartition(": ")
            assert stored[candidate] >= int(progress.split(" of ")[0])


def _count(path):
    if not path.exists():
        return Counter()
    with LogStore.open(path) as store:
        return Counter(record.candidate_id for record in store.records())


@pytest.mark.usefixtures("plugin")
def test_collect_when_a_query_taught_a_template_is_not_guided_by_it(
    fusion, write_queries, write_candidates, library_path, tmp_path
):
    # The library holds "What is 3 + 4?": to "What is 0 + 0?" it is a near-duplicate, "What is 5 * 6?" too.
    candidates = write_candidates('{says: ["fine"]}')
    candidates.write_text(
        candidates.read_text().replace("prompt_mode: reasoning", "prompt_mode: thought")
        + f"thoughts: {{library: {library_path}, min_similarity: -1}}\n"
    )
    result = fusion(*options(write_queries(1), candidates, tmp_path / "logs.sqlite"))
    assert result.exit_code == 0, result.stderr
    with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
        record = next(each for each in store.records() if each.prompt_mode == "thought")
    assert record.candidate_revision.startswith("thought-")
    # ScriptedChatClient counts words: the prompt of one note, not of three.
    assert 4 < record.input_tokens < 60


@pytest.mark.slow
@pytest.mark.real_model
def test_collect_when_the_demo_is_named_asks_the_real_models(fusion, tmp_path):
    store = tmp_path / "logs.sqlite"
    result = fusion(*options("demo", "demo", store, "--limit", "1", "--json"))
    document = json.loads(result.stdout)
    assert (document["n_done"], document["collection"]) == (3, "fusion-demo")
    assert document["cost_usd"] > 0
    again = json.loads(fusion(*options("demo", "demo", store, "--limit", "1", "--json")).stdout)
    assert (again["n_done"], again["n_skipped"]) == (0, 3)


@pytest.mark.slow
@pytest.mark.real_model
def test_collect_when_the_levels_of_the_demo_are_named_asks_templates_and_student(fusion, tmp_path):
    result = fusion(
        *options("demo-levels", "demo-levels", tmp_path / "logs.sqlite", "--limit", "1", "--json")
    )
    document = json.loads(result.stdout)
    assert (document["n_done"], document["n_failed"], document["collection"]) == (2, 0, "fusion-demo")
