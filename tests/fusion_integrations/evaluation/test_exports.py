import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fusion_integrations.errors import ArtifactWriteError, InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.evaluation import export_llmrouterbench, export_routerarena
from fusion_integrations.evaluation.query_outcomes import QueryOutcome
from fusion_integrations.logs.frame import LOG_SCHEMA

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# (query, task, candidate, performance, USD, response); the second query has two answers of "large".
ANSWERS = (
    ("q1", "math", "small", 0.0, 0.25, "no"),
    ("q1", "math", "large", 1.0, 1.0, "yes"),
    ("q2", "math", "small", 0.5, 0.25, "a"),
    ("q2", "math", "large", 1.0, 1.0, "b"),
    ("q2", "math", "large", 0.5, 2.0, "c"),
    ("q3", None, "small", 1.0, 0.25, "x"),
    ("q3", None, "large", 0.0, 1.0, " "),
)


def make_frame(answers=ANSWERS, **missing):
    rows = [
        dict.fromkeys(LOG_SCHEMA)
        | {
            "record_id": str(number),
            "query_id": query,
            "query_text": f"text of {query}",
            "task": task,
            "candidate_id": candidate,
            "performance": performance,
            "cost_usd": cost,
            "response": response,
            "reference": "yes",
            "input_tokens": 10,
            "output_tokens": 5,
            **missing,
        }
        for number, (query, task, candidate, performance, cost, response) in enumerate(answers)
    ]
    return pl.DataFrame(rows, schema=LOG_SCHEMA)


def make_queries(chosen=(("large", "small"), ("large", "large"), ("small", "large"))):
    return [
        QueryOutcome(
            query_id=f"q{number}",
            text="cut",
            task=None if number == 3 else "math",
            performance={},
            chosen={"cluster": cluster, "stack": stack},
        )
        for number, (cluster, stack) in enumerate(chosen, start=1)
    ]


@pytest.fixture
def report(make_benchmark):
    return make_benchmark(name="demo", queries=make_queries(), n_queries=3)


def read(path):
    return json.loads(Path(path).read_text())


def check_routerarena(config, predictions):
    """What RouterArena's own checks ask of the two files, its data set aside."""
    models = config["pipeline_params"]["models"]
    assert isinstance(config["pipeline_params"]["router_name"], str)
    for entry in predictions:
        assert set(entry) == {
            *(
                "global index",
                "prompt",
                "prediction",
                "generated_result",
                "cost",
                "accuracy",
                "for_optimality",
            )
        }
        assert entry["global index"]
        assert entry["prompt"]
        assert entry["prediction"] in models
        result = entry["generated_result"]
        if result is not None:
            assert {"generated_answer", "success", "token_usage"} <= set(result)
            assert isinstance(result["generated_answer"], str)
            assert isinstance(result["success"], bool)
            assert result["generated_answer"].strip() or not result["success"]


def check_llmrouterbench(document):
    """The result file of its README, and what its loader reads."""
    assert isinstance(document["performance"], float)
    assert all(isinstance(document[name], str) for name in ("model_name", "dataset_name", "split"))
    assert document["counts"] == len(document["records"])
    assert document["demo"] is False
    for record in document["records"]:
        assert isinstance(record["index"], int)
        assert all(isinstance(record[name], str) for name in ("origin_query", "prompt"))
        assert isinstance(record["score"], float)
        assert all(isinstance(record.get(name, ""), str) for name in ("prediction", "ground_truth"))
        assert all(isinstance(record.get(name, 0), int) for name in ("prompt_tokens", "completion_tokens"))
        assert isinstance(record.get("cost", 0.0), float)


def test_routerarena_export_has_the_choice_of_each_head_on_every_query(report, tmp_path):
    files = export_routerarena(report, make_frame(), tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "config/demo-cluster.json",
        "predictions/demo-cluster.json",
        "config/demo-stack.json",
        "predictions/demo-stack.json",
    ]
    config, predictions = read(files[2]), read(files[3])
    check_routerarena(config, predictions)
    assert config["pipeline_params"] == {"router_name": "demo-stack", "models": ["small", "large"]}
    assert [entry["global index"] for entry in predictions] == ["q1", "q2", "q3"]
    assert [entry["prediction"] for entry in predictions] == ["small", "large", "large"]
    assert predictions[0] == {
        "global index": "q1",
        "prompt": "text of q1",
        "prediction": "small",
        "generated_result": {
            "generated_answer": "no",
            "success": True,
            "token_usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
            "provider": None,
            "error": None,
        },
        "cost": 0.25,
        "accuracy": 0.0,
        "for_optimality": False,
    }
    # Several answers of a cell count as their mean: (1 + 0.5) / 2 and (1 + 2) / 2 USD.
    assert (predictions[1]["accuracy"], predictions[1]["cost"]) == (0.75, 1.5)
    assert predictions[2]["generated_result"]["success"] is False


def test_routerarena_export_of_logs_without_answers_leaves_them_to_its_inference(report, tmp_path):
    frame = make_frame(response=None, input_tokens=None, cost_usd=None)
    files = export_routerarena(
        report, frame.filter(pl.col("query_id") != "q3").vstack(frame[-2:-1]), tmp_path
    )
    predictions = read(files[3])
    check_routerarena(read(files[2]), predictions)
    assert [entry["generated_result"] for entry in predictions] == [None, None, None]
    assert [entry["cost"] for entry in predictions] == [None, None, None]
    assert [entry["accuracy"] for entry in predictions] == [0.0, 0.75, None]  # never logged: unknown


def test_llmrouterbench_export_has_a_file_a_task_and_model(report, tmp_path):
    files = export_llmrouterbench(report, make_frame(), tmp_path, now=NOW)
    assert {str(path.relative_to(tmp_path)) for path in files} == {
        f"demo/{task}/test/{model}/{task}-test-{model}-20260102_030405.json"
        for task in ("math", "demo")
        for model in ("small", "large", "fusion-cluster", "fusion-stack")
    }
    documents = {(found["dataset_name"], found["model_name"]): found for found in map(read, files)}
    for document in documents.values():
        check_llmrouterbench(document)
    stack = documents["math", "fusion-stack"]
    assert stack["performance"] == 0.375  # (0 + 0.75) / 2
    assert (stack["cost"], stack["prompt_tokens"], stack["completion_tokens"]) == (1.75, 20, 10)
    assert stack["records"][0] == {
        "index": 1,
        "origin_query": "text of q1",
        "prompt": "text of q1",
        "prediction": "no",
        "ground_truth": "yes",
        "score": 0.0,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": 0.25,
        "raw_output": "no",
        "extra_fields": {"query_id": "q1", "routed_to": "small"},
    }
    assert documents["demo", "small"]["records"][0]["origin_query"] == "text of q3"


def test_llmrouterbench_export_leaves_out_what_is_unknown(report, tmp_path):
    frame = make_frame(response=None, reference=None, input_tokens=None, output_tokens=None, cost_usd=None)
    for path in export_llmrouterbench(report, frame, tmp_path, now=NOW):
        document = read(path)
        check_llmrouterbench(document)
        assert not {"cost", "prompt_tokens"} & set(document)
        assert not {"cost", "prompt_tokens", "prediction", "raw_output"} & set(document["records"][0])


def test_llmrouterbench_export_of_unscored_choices_is_refused(report, tmp_path):
    with pytest.raises(NotEnoughLogsError, match="'stack' chose 1 of 3"):
        export_llmrouterbench(report, make_frame(ANSWERS[:-1]), tmp_path, now=NOW)
    assert not list(tmp_path.iterdir())


def test_llmrouterbench_export_numbers_a_query_the_same_for_every_model(report, tmp_path):
    queries = [{"q1": 1, "q2": 2}, {"q3": 1}]
    for path in export_llmrouterbench(report, make_frame(), tmp_path, now=NOW):
        records = read(path)["records"]
        assert {record["extra_fields"]["query_id"]: record["index"] for record in records} in queries


def test_llmrouterbench_export_with_a_candidate_named_as_a_head_is_refused(make_benchmark, tmp_path):
    report = make_benchmark(names=("small", "fusion-stack"), queries=make_queries(), n_queries=3)
    with pytest.raises(InvalidPolicyError, match="fusion-stack"):
        export_llmrouterbench(report, make_frame(), tmp_path, now=NOW)


@pytest.mark.parametrize("name", ["../../escaped", "/etc/passwd", "..", ".", "a/b", "a\\b", "..%2f"])
def test_exports_keep_hostile_names_inside_the_folder(make_benchmark, tmp_path, name):
    folder = tmp_path / "out"
    report = make_benchmark(
        name=name, names=(name, "large"), queries=make_queries([("large", name)]), n_queries=1
    )
    frame = make_frame([("q1", name, name, 1.0, 1.0, "a"), ("q1", name, "large", 1.0, 1.0, "a")])
    files = export_routerarena(report, frame, folder) + export_llmrouterbench(report, frame, folder, now=NOW)
    assert all(path.resolve().is_relative_to(folder) for path in files)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {read(path)["model_name"] for path in files[4:]} == {
        name,
        "large",
        "fusion-cluster",
        "fusion-stack",
    }


def test_exports_of_names_that_differ_in_one_character_stay_apart(make_benchmark, tmp_path):
    report = make_benchmark(names=("a/b", "a%2Fb"), queries=make_queries([("a/b", "a%2Fb")]), n_queries=1)
    frame = make_frame([("q1", "t", name, 1.0, 1.0, "a") for name in ("a/b", "a%2Fb")])
    files = export_llmrouterbench(report, frame, tmp_path, now=NOW)
    assert len(set(files)) == len(files) == 4


@pytest.mark.parametrize(
    "export", [export_routerarena, lambda *given: export_llmrouterbench(*given, now=NOW)]
)
def test_exports_of_a_report_with_some_queries_only_are_refused(make_benchmark, tmp_path, export):
    report = make_benchmark(queries=make_queries(), n_queries=4)
    with pytest.raises(NotEnoughLogsError, match="3 of its 4 queries"):
        export(report, make_frame(), tmp_path)


def test_exports_where_nothing_can_be_written_say_so(report, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ArtifactWriteError, match="could not be written"):
        export_routerarena(report, make_frame(), tmp_path / "file")


def test_exports_hold_the_score_that_counted_as_performance(make_benchmark, tmp_path):
    report = replace(make_benchmark(name="demo", queries=make_queries(), n_queries=3), label="judge_score")
    judged = make_frame().with_columns(judge_score=pl.lit(0.125), performance=pl.lit(None, dtype=pl.Float64))
    for path in export_routerarena(report, judged, tmp_path):
        if Path(path).parent.name == "predictions":
            assert {entry["accuracy"] for entry in read(path)} == {0.125}
    (first, *_) = export_llmrouterbench(report, judged, tmp_path, now=NOW)
    assert read(first)["performance"] == 0.125
