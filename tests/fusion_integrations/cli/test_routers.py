"""`train router`, `evaluate router`, `route` and `inspect`: the life of a router on the command line."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from fusion_integrations.cli.inputs import log_name
from fusion_integrations.logs.frame import load_logs, write_parquet
from fusion_integrations.query_level.router_model import RouterModel


def training(logs, out, *more):
    return ("train", "router", logs, "--out", out, "--embedder", "hash", *more)


def test_train_router_when_run_saves_a_router_and_shows_its_margins(fusion, logs_path, tmp_path):
    result = fusion(*training(logs_path, tmp_path / "router"))
    assert result.exit_code == 0, result.stderr
    digest = RouterModel.from_pretrained(tmp_path / "router").basis.artifact
    assert f"Saved to '{tmp_path / 'router'}', digest {digest}." in result.stdout
    assert "Trained on 40 queries" in result.stdout
    assert "cost weight" in result.stdout
    assert "Best Single" not in result.stdout  # without held-out queries there is nothing honest to show


def test_train_router_when_queries_are_held_out_evaluates_on_them(fusion, logs_path, tmp_path):
    result = fusion(*training(logs_path, tmp_path / "router", "--holdout", "0.3", "--json"))
    document = json.loads(result.stdout)
    assert document["evaluation"]["n_queries"] == 12
    assert document["metrics"]["n_queries"] == 28
    assert document["evaluation"]["n_leaked"] == 0
    assert document["evaluation"]["trained_elsewhere"] == []
    assert list(document["evaluation"]["policies"]) == ["performance-first", "balance", "cost-first"]


def test_train_router_when_logs_have_no_cost_evaluates_performance_only(fusion, logs_path, tmp_path):
    costless = load_logs(logs_path).with_columns(pl.lit(None, dtype=pl.Float64).alias("cost_usd"))
    write_parquet(costless, tmp_path / "costless.parquet")
    result = fusion(*training(tmp_path / "costless.parquet", tmp_path / "router", "--holdout", "0.3"))
    assert result.exit_code == 0, result.stderr
    assert "performance-first" in result.stdout
    assert "cost-first" not in result.stdout
    assert "unknown" in result.stdout


def test_train_router_when_candidates_are_chosen_knows_only_them(fusion, logs_path, tmp_path):
    more = ("--candidate", "writer", "--candidate", "calculator", "--seed", "3", "--json")
    document = json.loads(fusion(*training(logs_path, tmp_path / "router", *more)).stdout)
    assert document["candidates"] == ["writer", "calculator"]
    assert document["arguments"]["seed"] == 3
    assert document["evaluation"] is None


def test_train_router_when_a_candidate_was_logged_with_two_revisions_learns_the_one_in_the_file(
    fusion, logs_path, tmp_path
):
    logs = load_logs(logs_path)
    is_old = (pl.col("candidate_id") == "thinker") & (pl.int_range(pl.len()) < 30)
    revisions = pl.when(is_old).then(pl.lit("reasoning-0")).otherwise(pl.lit("reasoning-1"))
    write_parquet(logs.with_columns(revisions.alias("candidate_revision")), tmp_path / "two.parquet")
    candidates = tmp_path / "candidates.yaml"
    candidates.write_text(
        """
version: 1
models: {tiny-math: {client: demo}, tiny-prose: {client: demo}}
candidates:
  - {id: calculator, model: tiny-math, revision: reasoning-1}
  - {id: thinker, model: tiny-prose, prompt_mode: reasoning}
  - {id: writer, model: tiny-prose, revision: reasoning-1}
"""
    )
    command = training(tmp_path / "two.parquet", tmp_path / "router")

    refused = fusion(*command)
    document = json.loads(fusion(*command, "--candidates", candidates, "--json").stdout)
    one_less = ("--candidates", candidates, "--candidate", "thinker", "--candidate", "writer", "--json")
    narrowed = json.loads(fusion(*command, *one_less).stdout)

    assert refused.exit_code == 1
    assert "'thinker' was logged with the revisions ['reasoning-0', 'reasoning-1']" in refused.stderr
    assert document["candidates"] == ["calculator", "thinker", "writer"]
    assert document["metrics"]["n_answers"] == {"calculator": 40, "thinker": 30, "writer": 40}
    assert narrowed["candidates"] == ["thinker", "writer"]


def test_train_router_when_the_folder_holds_something_else_says_so_before_training(
    fusion, logs_path, library_path
):
    result = fusion(*training(logs_path, library_path))
    assert result.exit_code == 1
    assert "holds a template_library, which a router does not replace" in result.stderr


@pytest.mark.slow
def test_router_when_the_demo_is_named_is_trained_and_evaluated_on_its_two_parts(fusion, tmp_path):
    trained = json.loads(fusion(*training("demo", tmp_path / "router", "--json")).stdout)
    assert trained["metrics"]["n_queries"] == 780
    report = fusion(
        *("evaluate", "router", tmp_path / "router", "--logs", "demo", "--train-logs", "demo", "--json")
    )
    assert json.loads(report.stdout)["n_queries"] == 500


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ("--candidate", "writer", "--candidate", "typist"),
            "There is no candidate 'typist'. Known: 'calculator'",
        ),
        (("--candidate", "writer"), "The logs hold one candidate only, 'writer'."),
        (("--label", "judge_score"), "None of the 120 log rows has a 'judge_score' score."),
        (("--holdout", "1.5"), "fraction must lie strictly between 0 and 1"),
    ],
)
def test_train_router_when_it_cannot_be_trained_exits_1_and_saves_nothing(
    more, says, fusion, logs_path, tmp_path
):
    result = fusion(*training(logs_path, tmp_path / "router", *more))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "router").exists()


@pytest.mark.parametrize("name", ["none.sqlite", "none.parquet"])
def test_train_router_when_there_are_no_logs_exits_1(name, fusion, tmp_path):
    result = fusion(*training(tmp_path / name, tmp_path / "router"))
    assert result.exit_code == 1
    assert name in result.stderr


def test_train_router_when_held_out_logs_are_partial_estimates(fusion, logs_path, tmp_path):
    logs = load_logs(logs_path)
    one_answer_each = logs.filter(pl.int_range(pl.len()) % 3 == pl.int_range(pl.len()) // 3 % 3)
    write_parquet(one_answer_each, tmp_path / "partial.parquet")
    result = fusion(*training(tmp_path / "partial.parquet", tmp_path / "router", "--holdout", "0.3"))
    assert result.exit_code == 0, result.stderr
    assert "Only 0 of 12 queries have an answer of every candidate" in " ".join(result.stdout.split())
    assert "Best per Task" in result.stdout
    assert "\nOracle" not in result.stdout


def test_evaluate_router_when_routers_share_a_folder_name_tells_them_apart(fusion, split_paths, tmp_path):
    train, test = split_paths
    folders = [tmp_path / "a" / "router", tmp_path / "b" / "router"]
    for folder in folders:
        folder.parent.mkdir()
    fusion(*training(train, folders[0]))
    shutil.copytree(folders[0], folders[1])
    command = ("evaluate", "router", *folders, "--logs", test, "--train-logs", train)

    result = fusion(*command, "--policy", "balance", "--json")

    report = json.loads(result.stdout)
    assert list(report["policies"]) == ["balance"]
    assert [row["strategy"] for row in report["rows"]][-2:] == [str(folder) for folder in folders]
    text = fusion(*command).stdout
    assert "cost-first: reward" in text
    assert "Warning: Only 12 groups" in text


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("logs/held_out.parquet", "held_out"),
        ("postgresql://user:secret@host/calls", "calls"),
        ("postgresql://user@host/calls?password=secret", "calls"),
        ("postgresql://user:secret@host", "logs"),
    ],
)
def test_evaluated_logs_are_named_without_the_password_of_their_store(location, name):
    assert log_name(location) == name


def test_evaluate_router_when_labels_differ_exits_1(fusion, split_paths, tmp_path):
    train, test = split_paths
    judged = load_logs(train).with_columns(pl.col("performance").alias("judge_score"))
    write_parquet(judged, tmp_path / "judged.parquet")
    fusion(*training(train, tmp_path / "one"))
    fusion(*training(tmp_path / "judged.parquet", tmp_path / "two", "--label", "judge_score"))
    result = fusion(
        "evaluate", "router", tmp_path / "one", tmp_path / "two", "--logs", test, "--train-logs", train
    )
    assert result.exit_code == 1
    assert "{'one': 'performance', 'two': 'judge_score'}" in result.stderr


def test_evaluate_router_when_the_queries_were_trained_on_exits_1(fusion, router_path, logs_path):
    result = fusion("evaluate", "router", router_path, "--logs", logs_path, "--train-logs", logs_path)
    assert result.exit_code == 1
    assert "also occur in the training logs" in result.stderr


def test_route_when_asked_names_candidate_reason_and_ranking(fusion, router_path):
    result = fusion("route", "What is 3 plus 4?", "--router", router_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "calculator"
    assert "'calculator' is the best single candidate" in result.stdout
    assert "thinker" in result.stdout


def test_route_when_limits_are_given_keeps_to_them(fusion, router_path):
    command = ("route", "What is 3 plus 4?", "--router", router_path, "--json")
    allowed = json.loads(fusion(*command, "--allow", "thinker", "--allow", "writer").stdout)
    assert {row["candidate_id"] for row in allowed["ranking"] if not row["excluded"]} == {"thinker", "writer"}
    cheap = json.loads(fusion(*command, "--max-cost", "0.00002", "--cost-weight", "1").stdout)
    assert cheap["candidate"] == "calculator"
    assert [row["excluded"] for row in cheap["ranking"]].count("over the budget of 2e-05 USD a call") == 2
    good = json.loads(fusion(*command, "--policy", "cost-first", "--min-performance", "0.45").stdout)
    assert [row["candidate_id"] for row in good["ranking"] if row["excluded"]] == ["writer"]


def test_route_when_a_quality_a_need_or_chance_is_asked_for_says_what_came_of_it(fusion, router_path):
    command = ("route", "What is 3 plus 4?", "--router", router_path, "--json")
    held = json.loads(fusion(*command, "--quality-of", "thinker").stdout)
    assert (held["candidate"], held["default"]) == ("calculator", "thinker")
    able = json.loads(fusion(*command, "--need", "tools").stdout)
    assert (able["candidate"], able["outcome"]) == ("calculator", "only_eligible")
    chance = ("--explore", "epsilon", "--epsilon", "1", "--margin", "0")
    drawn = [json.loads(fusion(*command, *chance, "--seed", seed).stdout) for seed in ("1", "1", "2", "3")]
    assert drawn[0] == drawn[1]
    assert {decision["propensity"] for decision in drawn} == {1 / 3}
    assert len({decision["candidate"] for decision in drawn}) > 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((" ",), "is blank. Pass at least one word."),
        (("Hi", "--allow", "typist"), "The policy allows ['typist'], which the router does not know."),
        (("Hi", "--max-cost", "0"), "The policy excludes every candidate"),
        (("Hi", "--max-loss", "0.1"), "set that too"),
        (("Hi", "--quality-of", "typist"), "the quality of 'typist', which the router does not know"),
        (("Hi", "--max-latency", "1"), "latency unknown: log it"),
        (("Hi", "--cost-weight", "nan"), "cost_weight must lie in [0.0, 1.0], got nan."),
        (
            ("Hi", "--cost-weight", "0.3", "--policy", "balance"),
            "Give one of --policy, --cost-weight and --quality-of",
        ),
    ],
)
def test_route_when_an_input_is_bad_exits_1_with_the_message(arguments, says, fusion, router_path):
    result = fusion("route", *arguments, "--router", router_path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert says in result.stderr


def test_inspect_when_the_artifact_is_intact_shows_what_it_is(fusion, router_path):
    document = json.loads(fusion("inspect", router_path, "--json").stdout)
    assert (document["kind"], document["verified"]) == ("router", True)
    text = fusion("inspect", router_path).stdout
    assert f"expected_digest='{document['digest']}'" in text
    assert "metric n_queries: 40" in text
    assert "calculator" in text


@pytest.mark.parametrize("verb", ["inspect", "route"])
def test_artifact_when_a_file_is_damaged_is_refused_with_exit_code_1(verb, fusion, router_path, tmp_path):
    damaged = tmp_path / "router"
    shutil.copytree(router_path, damaged)
    weights = next(damaged.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    arguments = (damaged,) if verb == "inspect" else ("Hi", "--router", damaged)
    result = fusion(verb, *arguments)
    assert result.exit_code == 1
    assert "is damaged: its SHA-256 is not the one in manifest.json" in result.stderr


def test_inspect_when_there_is_no_artifact_exits_1(fusion, tmp_path):
    result = fusion("inspect", tmp_path)
    assert result.exit_code == 1
    assert "There is no artifact at" in result.stderr


def test_router_when_queries_repeat_shows_how_much_is_luck(fusion, logs_path, tmp_path):
    # Each answer of the calculator twice, the second with the opposite score: nobody can predict which.
    logs = load_logs(logs_path)
    again = logs.filter(pl.col("candidate_id") == "calculator").with_columns(
        record_id=pl.col("record_id") + "-again", performance=1 - pl.col("performance")
    )
    write_parquet(pl.concat([logs, again]), tmp_path / "repeated.parquet")
    says = "Of 40 pairs of query and candidate there are several answers: no router can explain more than 0%"
    assert says in fusion(*training(tmp_path / "repeated.parquet", tmp_path / "router")).stdout
    assert says in fusion("inspect", tmp_path / "router").stdout
    document = json.loads(fusion("inspect", tmp_path / "router", "--json").stdout)
    assert document["metrics"]["label_noise"]["ceiling"] == 0.0


def test_router_when_no_query_repeats_says_nothing_of_luck(fusion, router_path):
    assert "several answers" not in fusion("inspect", router_path).stdout


def test_evaluate_router_on_newer_logs_shows_what_changed(fusion, split_paths, tmp_path):
    train, test = split_paths
    fusion(*training(train, tmp_path / "router"))
    command = ("evaluate", "router", tmp_path / "router", "--logs", test, "--train-logs", train)
    text = fusion(*command).stdout
    for title in ("Since training", "What performance costs", "router: does it get what it expects?"):
        assert title in text
    assert "performance-first: Best Single is still" in text
    document = json.loads(fusion(*command, "--json").stdout)
    assert [each["verdict"] for each in document["drift"]["routers"]] == ["too few queries"] * 3
    assert document["drift"]["novel"] == {"router": None}
    assert set(document["details"]) == {"router"}


def test_evaluate_router_on_partial_logs_estimates_and_says_so(fusion, split_paths, tmp_path):
    train, test = split_paths
    fusion(*training(train, tmp_path / "router"))
    one_each = load_logs(test).unique("query_id", keep="first", maintain_order=True)
    write_parquet(one_each, tmp_path / "partial.parquet")
    command = (
        *("evaluate", "router", tmp_path / "router", "--logs", tmp_path / "partial.parquet"),
        *("--train-logs", train),
    )
    assert "Numbers are doubly robust estimates." in " ".join(fusion(*command).stdout.split())
    document = json.loads(fusion(*command, "--json").stdout)
    assert document["estimation"]["n_complete"] == 0
    assert {row["strategy"] for row in document["rows"]} == {
        "Random",
        "Best Single",
        "Best per Task",
        "router",
    }
