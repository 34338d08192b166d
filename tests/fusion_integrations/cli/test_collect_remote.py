"""`fusion collect` against a real server: keys, budget, dry run, and a process killed during its calls."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from fusion_integrations.logs.store import LogStore

KEY = "sk-a-key-that-nobody-may-see"
CANDIDATES = """
version: 1
models:
  tiny:
    client: {client}
    settings: {{base_url: "{url}", {settings}}}
    price: {{input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0, usd_per_call: 1.0}}
candidates:
  - {{id: tiny, model: tiny, options: {{max_tokens: 20, temperature: 0.5}}, {more}}}
"""


@pytest.fixture
def command(write_queries, openai_server, tmp_path, monkeypatch):
    """Make the arguments of a collection of so many queries from the server."""
    monkeypatch.setenv("TINY_KEY", KEY)

    def make(n_queries, *more, client="openai", settings="api_key_env: TINY_KEY", candidate="samples: 1"):
        path = tmp_path / "candidates.yaml"
        path.write_text(
            CANDIDATES.format(client=client, url=openai_server.url, settings=settings, more=candidate)
        )
        queries = write_queries(n_queries)
        places = ("--queries", queries, "--candidates", path, "--store", tmp_path / "logs.sqlite")
        return ("collect", *places, *more)

    return make


@pytest.fixture
def records(tmp_path):
    def read():
        with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
            return list(store.records())

    return read


def test_collect_when_a_server_answers_stores_scored_answers_and_shows_the_cost(
    fusion, command, openai_server, records, tmp_path
):
    result = fusion(*command(5, candidate="samples: 2, limits: {concurrency: 2}"))
    assert result.exit_code == 0, result.stderr
    # "What is 0 + 0?" has five words, the answer two more: 1 + 5e-6 + 14e-6 USD a call.
    assert "tiny: 0 of 10, 0.000000 USD\n" in result.stderr
    assert "tiny: 1 of 10, 1.000019 USD\n" in result.stderr
    assert "Collection 'sums': 10 answers stored" in result.stdout
    assert "Cost: 10.000190 USD; billed: 10.000190 USD." in result.stdout
    assert openai_server.keys == [f"Bearer {KEY}"] * 10
    assert openai_server.most_at_once <= 2
    assert sorted(record.sample for record in records()) == [0] * 5 + [1] * 5
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_collect_when_the_server_is_vllm_needs_no_key(fusion, command, openai_server):
    result = fusion(*command(2, client="vllm", settings="model: served-tiny"))
    assert result.exit_code == 0, result.stderr
    assert {request["model"] for request in openai_server.requests} == {"served-tiny"}
    assert KEY not in "".join(key or "" for key in openai_server.keys)


def test_collect_when_the_key_is_wrong_shows_it_nowhere(fusion, command, openai_server, records):
    kind = type(openai_server).answer.__globals__["Reply"]
    openai_server.reply = lambda _: kind(status=401, text=f"wrong key {KEY}")
    result = fusion(*command(3))
    assert result.exit_code == 1
    assert "All 3 calls failed" in result.stderr
    assert "wrong key ***" in result.stderr
    assert KEY not in result.stderr + result.stdout
    assert all("wrong key ***" in record.error for record in records())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("api_key_env: NO_SUCH_KEY", "'NO_SUCH_KEY', which is not set"),
        ('api_key: "sk-1234"', "models.tiny.settings: api_key: Extra inputs are not permitted"),
        (
            'extra_body: {headers: {Authorization: "sk-1234"}}',
            "'Authorization' would put a key into the file",
        ),
        ("timeout_s: 0", "timeout_s: Input should be greater than 0"),
    ],
)
def test_collect_when_settings_are_wrong_exits_before_any_call(
    fusion, command, openai_server, settings, says
):
    result = fusion(*command(1, settings=settings))
    assert result.exit_code == 1
    assert says in result.stderr
    assert "sk-1234" not in result.stderr
    assert openai_server.requests == []


def test_collect_when_the_budget_ends_says_how_to_go_on(fusion, command, openai_server):
    result = fusion(*command(5, "--budget-usd", "3"))
    assert result.exit_code == 0, result.stderr
    # A call costs a dollar and a little: two fit into three dollars.
    assert "2 answers stored" in result.stdout
    assert "Stopped before the budget was exceeded: 3 calls are left." in result.stdout
    assert len(openai_server.requests) == 2
    document = json.loads(fusion(*command(5, "--budget-usd", "100", "--json")).stdout)
    assert (document["n_done"], document["n_skipped"], document["n_left"]) == (3, 2, 0)
    assert document["billed_usd"] == pytest.approx(3 * 1.000019)


def test_collect_when_dry_asks_nobody_and_leaves_no_store(fusion, command, openai_server, tmp_path):
    result = fusion(*command(10, "--dry-run"))
    assert result.exit_code == 0, result.stderr
    # 14 characters are 3.5 tokens a question, 46 at most with what is around them; answers of 20 tokens.
    assert (
        "tiny: 10 calls, 0 answers there already; about 10.000435 USD, at most 10.000860 USD" in result.stdout
    )
    assert "Billed: about 10.000435 USD, at most 10.000860 USD without retries." in result.stdout
    assert openai_server.requests == []
    assert not (tmp_path / "logs.sqlite").exists()

    fusion(*command(10, "--budget-usd", "4.5"))
    document = json.loads(fusion(*command(10, "--dry-run", "--json")).stdout)
    (candidate,) = document["candidates"]
    assert (candidate["n_calls"], candidate["n_known"], candidate["is_billed"]) == (6, 4, True)
    assert candidate["output_tokens"] == 6 * 7  # as the answers so far
    assert document["billed_usd"] == pytest.approx(6 + 6 * 3.5e-6 + 42 * 2e-6)


@pytest.mark.slow
def test_collect_when_killed_in_the_middle_goes_on_and_asks_only_what_is_missing(
    start_fusion, command, openai_server, records
):
    held, release = threading.Event(), threading.Event()
    n_answered = 12

    def script(_):
        with openai_server.lock:
            n_asked = len(openai_server.requests)
        if n_asked > n_answered:
            held.set()
            release.wait(timeout=60)

    openai_server.reply = script
    arguments = command(40, "--json", candidate="limits: {concurrency: 3}")
    process = start_fusion(*arguments)
    assert held.wait(timeout=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    release.set()
    openai_server.reply = lambda _: None

    n_kept = len(records())
    assert n_answered - 3 <= n_kept <= n_answered
    document = json.loads(start_fusion(*arguments).communicate()[0])
    assert (document["n_done"], document["n_skipped"]) == (40 - n_kept, n_kept)
    assert len({record.record_id for record in records()}) == 40
    assert sorted(record.messages[0].content for record in records()) == sorted(
        f"What is {i} + 0?" for i in range(40)
    )
    # Asked twice were only those that were under way.
    assert len(openai_server.requests) <= 40 + 2 * 3
