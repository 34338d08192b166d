from __future__ import annotations

import json
import re

import pytest

from fusion_integrations.logs.store import LogStore

# Twice as the tags are marked; the reply of the scripted client repeats its mark.
JUDGING = """
import json, re

from fusion_integrations.testing import ScriptedChatClient


def make(model_name, settings, folder):
    def answer(messages):
        mark = re.search(r'"check": "(\\\\w+)"', messages[0].content)[1]
        text = messages[1].content
        if settings.get("babbles"):
            return "A fine answer [bold]!"
        score = 1.0 if "answer is 1" in text else 0.25
        return json.dumps({"check": mark, "reason": "Because.", "score": score})

    return ScriptedChatClient(model_name, answer=answer)
"""
JUDGES = """
version: 1
models:
  wise: {{client: judging, settings: {settings}}}
candidates:
  - {{id: "wise:direct", model: wise}}
  - {{id: "wise:reasoning", model: wise, prompt_mode: reasoning}}
"""


@pytest.fixture
def judges(tmp_path, monkeypatch):
    """Install a client kind that judges, and write candidates files for it."""
    folder = tmp_path / "judging"
    info = folder / "judging_kind-1.dist-info"
    info.mkdir(parents=True)
    (folder / "judging_kind.py").write_text(JUDGING.replace("\\\\", "\\"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: judging-kind\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fusion_integrations.clients]\njudging = judging_kind:make\n")
    monkeypatch.syspath_prepend(folder)

    def write(settings="{}"):
        path = tmp_path / "judges.yaml"
        path.write_text(JUDGES.format(settings=settings))
        return path

    return write


@pytest.fixture
def store(fusion, plugin, write_queries, write_candidates, tmp_path):
    """Answers of two candidates to four sums, one call failed, without any score."""
    path = tmp_path / "logs.sqlite"
    fusion("collect", "--queries", write_queries(4), "--candidates", write_candidates(), "--store", path)
    bare = tmp_path / "bare.sqlite"
    with LogStore.open(path) as filled, LogStore.open(bare) as empty:
        records = list(filled.records())
        failed = records[0].model_copy(update={"record_id": "f", "response": None, "error": "x"})
        empty.add([*records, failed])
    return bare


def test_score_by_metric_when_run_twice_fills_what_is_missing_once(fusion, store):
    document = json.loads(fusion("score", store, "--json").stdout)
    assert (document["n_scored"], document["n_known"], document["n_failed"]) == (8, 0, 0)
    assert document["n_unscored"] == {"failed call": 1}
    assert (document["by"], document["agreement"]) == ("metric", None)
    again = fusion("score", store)
    assert "0 answers scored" in again.stdout
    assert "8 had their score already" in again.stdout
    assert "failed call" in again.stdout


def test_score_when_interrupted_by_a_limit_goes_on(fusion, store):
    assert json.loads(fusion("score", store, "--limit", 3, "--json").stdout)["n_scored"] == 3
    result = fusion("score", store, "--batch-size", 2, "--json")
    assert json.loads(result.stdout)["n_scored"] == 5
    assert "records: 9 of 9" in result.stderr


def test_score_by_judge_when_metrics_scored_before_shows_how_they_agree(fusion, store, judges):
    fusion("score", store)
    by_judge = ("score", store, "--by", "judge", "--candidates", judges(), "--judge", "wise:direct")
    document = json.loads(fusion(*by_judge, "--json").stdout)
    assert document["n_scored"] == 8
    assert document["agreement"]["n"] == 8
    # Right answers but two get a quarter: 6 * 0.75 below, of 8.
    assert document["agreement"]["bias"]["mean"] == pytest.approx(-0.5625)
    with LogStore.open(store) as log_store:
        judged = [score for score in log_store.scores() if score.kind == "judge"]
    assert {score.scorer for score in judged} == {"llm-judge:wise"}
    assert "Judge and metric on 8 answers that have both" in fusion(*by_judge).stdout


def test_score_by_judge_when_no_verdict_can_be_read_exits_1_and_says_so(fusion, store, judges):
    candidates = judges("{babbles: true}")
    result = fusion("score", store, "--by", "judge", "--candidates", candidates, "--judge", "wise:direct")
    assert result.exit_code == 1
    assert "None of 8 answers could be scored. JudgeOutputError" in result.stderr
    assert "A fine answer [bold]!" in result.stderr


REMOTE_JUDGE = """
version: 1
models:
  wise: {{client: openai, settings: {{base_url: "{url}", api_key_env: null}}}}
candidates:
  - {{id: "wise:direct", model: wise, limits: {{concurrency: 1, n_tries: {n_tries}, retry_wait_s: 0}}}}
"""


@pytest.mark.parametrize("n_tries", [1, 2])
def test_score_by_judge_when_a_server_is_busy_keeps_its_limits_and_pays_for_every_verdict_once(
    fusion, store, openai_server, tmp_path, n_tries
):
    kind = type(openai_server).answer.__globals__["Reply"]
    refused = set()

    def script(body):
        system, user = (message["content"] for message in body["messages"])
        question = user.split("+ 0?")[0].split()[-1]
        if question not in refused and question in "01":
            refused.add(question)
            return kind(status=429)
        mark = re.search(r'"check": "(\w+)"', system)[1]
        return kind(text=json.dumps({"check": mark, "reason": "Because.", "score": 1.0}))

    openai_server.reply = script
    path = tmp_path / "remote.yaml"
    path.write_text(REMOTE_JUDGE.format(url=openai_server.url, n_tries=n_tries))
    result = fusion("score", store, "--by", "judge", "--candidates", path, "--judge", "wise:direct", "--json")
    document = json.loads(result.stdout)
    # Of 8 answers to 4 questions, the first calls about 2 of the questions were refused.
    assert (document["n_scored"], len(openai_server.requests)) == ((6, 8) if n_tries == 1 else (8, 10))
    assert openai_server.most_at_once == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by", "judge"], "--by judge needs --candidates FILE and --judge ID"),
        (["--judge", "wise:direct"], "need --by judge"),
        (["--by", "judge", "--judge", "nobody", "--candidates", "FILE"], "nobody"),
        (["--by", "judge", "--judge", "wise:reasoning", "--candidates", "FILE"], "mode 'reasoning'"),
        (
            ["--by", "judge", "--judge", "wise:direct", "--candidates", "FILE", "--rubric", "none"],
            "cannot be read",
        ),
        (["--batch-size", "0"], "batch_size must be at least 1"),
    ],
)
def test_score_when_options_do_not_fit_exits_1_and_says_why(options, says, fusion, store, judges):
    given = [str(judges()) if option == "FILE" else option for option in options]
    result = fusion("score", store, *given)
    assert result.exit_code == 1
    assert says in result.stderr


def test_score_when_there_is_no_store_exits_1(fusion, tmp_path):
    assert fusion("score", tmp_path / "none.sqlite").exit_code == 1
    assert not (tmp_path / "none.sqlite").exists()
