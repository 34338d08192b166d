from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

import fusion_integrations
from fusion_integrations.cli import choices
from fusion_integrations.cli.main import app
from fusion_integrations.cli.train_student import train_student
from fusion_integrations.cli.train_thoughts import train_thoughts
from fusion_integrations.embedders import EMBEDDER_NAMES
from fusion_integrations.logs.importers import FORMATS
from fusion_integrations.logs.schema import Assignment
from fusion_integrations.model_level.distillation_config import (
    DistillationCriterion,
    DistillationTrainingArguments,
    GroundTruth,
)
from fusion_integrations.query_level.heads import HEAD_NAMES
from fusion_integrations.query_level.labels import Label
from fusion_integrations.query_level.policy import POLICY_PRESETS, Exploration
from fusion_integrations.scoring.llm_judge import ReferenceOrder
from fusion_integrations.scoring.log_scorer import Rescore
from fusion_integrations.scoring.top_answers import AnswerCriterion
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    command = command or get_command(app)
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from verbs(child, (*path, name))
    if not children:
        yield path


def test_program_when_started_as_installed_shows_its_version(start_fusion):
    output, errors = start_fusion("--version").communicate()
    assert (output, errors) == (f"fusion-integrations {fusion_integrations.__version__}\n", "")


def test_help_when_asked_of_the_program_imports_none_of_the_core_and_no_heavy_package():
    script = (
        "import sys, fusion_integrations.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    root = Path(fusion_integrations.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    loaded = set(run.stderr.split())
    assert loaded.isdisjoint({"polars", "numpy", "sqlalchemy", "torch", "fusion_integrations.logs"})


@pytest.mark.parametrize("path", list(verbs()), ids=" ".join)
def test_help_when_asked_of_a_verb_lists_json_and_debug(path, fusion):
    result = fusion(*path, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--debug" in result.stdout


def test_verbs_when_listed_are_all_there():
    assert set(verbs()) == {
        ("benchmark", "router"),
        ("collect",),
        ("demo",),
        ("doctor",),
        ("evaluate", "router"),
        ("inspect",),
        ("logs", "dedupe"),
        ("logs", "export"),
        ("logs", "import"),
        ("logs", "migrate"),
        ("logs", "prune"),
        ("logs", "split"),
        ("logs", "stats"),
        ("route",),
        ("score",),
        ("thoughts", "list"),
        ("thoughts", "search"),
        ("thoughts", "show"),
        ("train", "router"),
        ("train", "student"),
        ("train", "thoughts"),
    }


def test_choices_when_compared_with_the_core_are_the_same():
    assert get_args(choices.AssignmentName) == get_args(Assignment)
    assert get_args(choices.CriterionName) == get_args(AnswerCriterion)
    assert get_args(choices.TeachingCriterionName) == get_args(DistillationCriterion)
    assert get_args(choices.GroundTruthName) == get_args(GroundTruth)
    assert sorted(get_args(choices.EmbedderName)) == sorted(EMBEDDER_NAMES)
    assert sorted(choices.HeadName) == sorted([*HEAD_NAMES, "auto"])
    assert get_args(choices.ReferenceOrderName) == get_args(ReferenceOrder)
    assert get_args(choices.RescoreName) == get_args(Rescore)
    assert get_args(choices.LabelName) == get_args(Label)
    assert get_args(choices.LogFormatName) == tuple(FORMATS)
    assert [policy.value for policy in choices.PolicyName] == list(POLICY_PRESETS)
    assert tuple(name.value for name in choices.ExplorationName) == get_args(Exploration)


@pytest.mark.parametrize(
    ("verb", "arguments", "names"),
    [
        (train_thoughts, ThoughtTemplateTrainingArguments(), {"attempts": "n_attempts"}),
        (
            train_student,
            DistillationTrainingArguments(),
            {
                "teacher": "teachers",
                "rank": "lora_rank",
                "alpha": "lora_alpha",
                "epochs": "n_epochs",
                "threads": "n_threads",
            },
        ),
    ],
)
def test_options_of_training_when_left_out_mean_the_defaults_of_the_arguments(verb, arguments, names):
    core = {field.name for field in fields(arguments)}
    defaults = {
        names.get(name, name): parameter.default for name, parameter in signature(verb).parameters.items()
    }
    compared = {name: default for name, default in defaults.items() if name in core}
    assert compared == {name: getattr(arguments, name) for name in compared}
    assert set(names.values()) <= set(compared)


def test_process_when_an_input_is_bad_exits_1_with_the_message_and_one_document(start_fusion, tmp_path):
    process = start_fusion("logs", "stats", tmp_path / "none.sqlite", "--json")
    output, errors = process.communicate()
    assert process.returncode == 1
    assert json.loads(output)["error"]["type"] == "LogStoreError"
    assert errors == f"Error: {json.loads(output)['error']['message']}\n"
