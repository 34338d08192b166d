from __future__ import annotations

import json

import pytest

from fusion_integrations.artifacts import read_manifest
from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary

GOOD = "Work through what is asked, one step after the other."
SHORT = "Too short."
LEAKED = "The reply to give is scripted, like all of them."  # every logged answer is "scripted"


def training(logs, out, candidates, *more, summariser="echo"):
    models = ("--candidates", candidates, "--summariser", summariser)
    return ("train", "thoughts", logs, "--out", out, *models, "--embedder", "hash", *more)


@pytest.fixture
def saying(write_candidates):
    """Write a candidates file whose model says these texts in turn."""
    return lambda *texts: write_candidates(json.dumps({"says": texts}))


@pytest.mark.usefixtures("plugin")
def test_train_thoughts_when_run_saves_a_library_and_says_how_to_read_it(fusion, saying, logs_path, tmp_path):
    out = tmp_path / "templates"
    result = fusion(*training(logs_path, out, saying(GOOD)))
    assert result.exit_code == 0, result.stderr
    assert "Kept 40 templates for 40 solved of 40 logged queries; 40 of them at the first" in result.stdout
    assert f"Saved to '{out}', digest {read_manifest(out).digest}." in result.stdout
    assert f"fusion thoughts list '{out}'" in result.stdout
    assert result.stderr.splitlines() == [f"solved queries: {n} of 40" for n in (0, 32, 40)]
    library = ThoughtTemplateLibrary.from_pretrained(out)
    assert {template.text for template in library.templates} == {GOOD}
    assert library.embedder.engine == "hash"


@pytest.mark.usefixtures("plugin")
def test_train_thoughts_when_templates_are_rejected_counts_them_by_reason(
    fusion, saying, logs_path, tmp_path
):
    # 40 queries, one attempt each, the three texts in turn: 14 short, 13 leaked, 13 kept.
    candidates = saying(SHORT, LEAKED, GOOD)
    result = fusion(*training(logs_path, tmp_path / "out", candidates, "--attempts", "1", "--json"))
    document = json.loads(result.stdout)
    assert document["metrics"] == {
        "n_queries": 40,
        "n_solved": 40,
        "n_kept": 13,
        "n_kept_at_once": 13,
        "n_dropped": {"leaked": 13, "too_short": 14},
        "n_attempts_rejected": {"leaked": 13, "too_short": 14},
    }
    library = ThoughtTemplateLibrary.from_pretrained(tmp_path / "out")
    assert document["digest"] == read_manifest(tmp_path / "out").digest
    assert document["fingerprint"] == library.fingerprint
    text = fusion(*training(logs_path, tmp_path / "out", candidates, "--attempts", "1")).stdout
    assert "gives the answer away" in text
    assert "too short" in text


@pytest.mark.usefixtures("plugin")
def test_train_thoughts_when_options_are_given_trains_with_them(fusion, saying, logs_path, tmp_path):
    wanted = {"criterion": "performance", "top_k": 1, "min_score": 0.9, "max_tokens": 30, "batch_size": 9}
    wanted |= {"seed": 3}
    more = [text for name, value in wanted.items() for text in (f"--{name.replace('_', '-')}", value)]
    result = fusion(*training(logs_path, tmp_path / "out", saying(GOOD), *more, "--attempts", "2", "--json"))
    arguments = json.loads(result.stdout)["arguments"]
    assert {name: arguments[name] for name in wanted} == wanted
    assert (arguments["n_attempts"], arguments["summariser"]) == (2, "echo")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--summariser", "poet"), "--summariser 'poet' is no model of --candidates"),
        (("--top-k", "0"), "top_k must be at least 1, got 0."),
        (("--criterion", "judge"), "None of the 40 logged queries has an answer of judge >= 0.5."),
        (("--candidates", "none.yaml"), "Candidates file 'none.yaml' cannot be used"),
    ],
)
@pytest.mark.usefixtures("plugin")
def test_train_thoughts_when_it_cannot_be_trained_exits_1_and_saves_nothing(
    more, says, fusion, saying, logs_path, tmp_path
):
    result = fusion(*training(logs_path, tmp_path / "out", saying(GOOD)), *more)
    assert result.exit_code == 1
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("plugin")
def test_train_thoughts_when_the_folder_holds_something_else_says_so_before_asking_the_summariser(
    fusion, saying, logs_path, router_path
):
    result = fusion(*training(logs_path, router_path, saying(GOOD)))
    assert result.exit_code == 1
    assert "holds a router, which a template_library does not replace" in result.stderr
    assert "solved queries" not in result.stderr
