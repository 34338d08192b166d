"""`train student`, `inspect` of a student, and `collect` from one, on a network of random weights."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fusion_integrations.cli.main import app
from fusion_integrations.embedders import load_embedder
from fusion_integrations.logs.store import LogStore
from fusion_integrations.model_level.student_artifact import read_student
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore

QUICK = ("--epochs", "1", "--rank", "2", "--alpha", "4", "--threads", "1", "--max-tokens", "128")


def training(logs, base, out, *more):
    return ("train", "student", logs, "--base", base, "--out", out, *QUICK, *more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, logs_path, tiny_base):
    """One run of the verb, and where it saved."""
    out = tmp_path_factory.mktemp("student") / "student"
    command = [str(each) for each in training(logs_path, tiny_base, out)]
    return CliRunner().invoke(app, command, catch_exceptions=False), out


def test_train_student_when_run_saves_a_student_and_says_what_it_was_taught(trained, tiny_base):
    result, out = trained
    assert result.exit_code == 0, result.stderr
    artifact, adapter = read_student(out)
    # All candidates answer "scripted", which teaches once a query: by the cheapest that solved it.
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line for line in lines if line[:1] in (["teacher"], ["task"])] == [
        ["teacher", "pairs"],
        ["task", "pairs"],
    ]
    assert all(line in lines for line in (["calculator", "20"], ["writer", "20"], ["prose", "20"]))
    assert "Taught 40 pairs of 40 queries, 40 of them solved. Left out: " in result.stdout
    assert f"revision {adapter.revision}." in result.stdout
    assert f"Saved to '{out}', digest {artifact.manifest.digest}.\n" in result.stdout
    assert f"It runs on its base 'tiny-chat' in '{tiny_base}'." in result.stdout
    assert "training steps: 5 of 5, loss " in result.stderr


def test_inspect_when_it_is_a_student_shows_base_and_revision(trained, fusion):
    _, out = trained
    document = json.loads(fusion("inspect", out, "--json").stdout)
    _, adapter = read_student(out)
    assert document["particulars"]["revision"] == adapter.revision
    assert document["particulars"]["base"] == "tiny-chat"
    assert document["particulars"]["rank"] == 2
    assert "adapter_model.safetensors" in fusion("inspect", out).stdout


@pytest.mark.usefixtures("plugin")
def test_collect_when_all_levels_are_candidates_stores_answers_under_their_revisions(
    trained, tiny_base, library_path, fusion, write_queries, tmp_path
):
    _, student = trained
    candidates = tmp_path / "levels.yaml"
    candidates.write_text(
        f"""
version: 1
thoughts: {{library: {library_path}}}
models:
  tiny-student: {{client: student, settings: {{path: {student}, base: {tiny_base}, n_threads: 1}}}}
  echo: {{client: scripted, settings: {{says: [fine]}}}}
candidates:
  - {{id: "student:direct", model: tiny-student, options: {{max_tokens: 4}}}}
  - {{id: "echo:thought", model: echo, prompt_mode: thought}}
"""
    )
    command = ("collect", "--queries", write_queries(2), "--candidates", candidates, "--json", "--store")

    document = json.loads(fusion(*command, tmp_path / "logs.sqlite").stdout)

    assert (document["n_done"], document["n_failed"]) == (4, 0)
    with LogStore.open(tmp_path / "logs.sqlite", create=False) as store:
        revisions = {record.candidate_id: record.candidate_revision for record in store.records()}
        models = {record.candidate_id: record.model for record in store.records()}
    library = ThoughtTemplateLibrary.from_pretrained(library_path)
    store = InMemoryThoughtTemplateStore(library, embedder=load_embedder(library.embedder))
    assert revisions == {
        "student:direct": f"direct-1+{read_student(student)[1].revision}",
        "echo:thought": ThoughtPrompter(store).revision,
    }
    assert models["student:direct"] == "tiny-student"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--teacher", "typist"), "The teachers ['typist'] answered no query."),
        (("--rank", "0"), "lora_rank must be between 1 and 1024, got 0."),
        (("--criterion", "judge"), "reaches min_score=0.5 by criterion 'judge'"),
        (("--base-name", "/models/x"), "base_name must be a name such as"),
        (("--base", "nowhere"), "no safetensors weights in 'nowhere'"),
    ],
)
def test_train_student_when_it_cannot_be_trained_exits_1_and_saves_nothing(
    more, says, fusion, logs_path, tiny_base, tmp_path
):
    result = fusion(*training(logs_path, tiny_base, tmp_path / "out", *more))
    assert result.exit_code == 1
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


def test_train_student_when_the_folder_holds_something_else_says_so_before_training(
    fusion, logs_path, tiny_base, router_path
):
    result = fusion(*training(logs_path, tiny_base, router_path))
    assert result.exit_code == 1
    assert "holds a router, which a student does not replace" in result.stderr
    assert "training steps" not in result.stderr


@pytest.mark.slow
@pytest.mark.real_model
def test_train_student_when_the_demo_is_named_teaches_its_base_its_own_answers(fusion, tmp_path):
    more = ("--max-pairs-per-task", "1", "--epochs", "1", "--json")
    result = fusion("train", "student", "demo", "--base", "demo", "--out", tmp_path / "out", *more)
    document = json.loads(result.stdout)
    assert document["base"]["name"] == "smollm2-135m"
    assert set(document["chosen_pairs"]["task"].values()) == {1}
    assert document["metrics"]["n_queries"] == 392


@pytest.mark.slow
def test_train_student_when_other_logs_are_given_measures_the_loss_on_them(
    fusion, split_paths, tiny_base, tmp_path
):
    train, test = split_paths
    more = ("--eval-logs", test, "--teacher", "writer", "--base-name", "owner/tiny", "--json")
    document = json.loads(fusion(*training(train, tiny_base, tmp_path / "out", *more)).stdout)
    assert list(document["chosen_pairs"]["teacher"]) == ["writer"]
    assert document["chosen_pairs"]["task"] == {"prose": document["metrics"]["n_pairs"]}
    assert document["metrics"]["n_eval_pairs"] > 0
    assert document["base"]["name"] == "owner/tiny"
    assert document["base"]["folder"] == str(tiny_base)
    assert document["arguments"]["lora_alpha"] == 4.0
    assert document["revision"] == read_student(tmp_path / "out")[1].revision
