import json

import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import import_logs


def test_import_when_observations_are_nested_then_the_innermost_generation_counts(tmp_path, store, samples):
    outer, inner = samples.Fact(), samples.Fact(number=2)
    rows = [
        samples.langfuse_observation(outer),
        samples.langfuse_observation(samples.Fact(number=3), type="SPAN", parent_observation_id=outer.id),
        samples.langfuse_observation(inner, parent_observation_id=samples.Fact(number=3).id),
    ]

    report = import_logs("langfuse", samples.lines(tmp_path / "observations.jsonl", rows), store)

    assert (report.n_added, report.n_dropped) == (1, {"wraps another call": 1, "not a model call": 1})


@pytest.mark.parametrize(
    ("source", "kind"), [("EVAL", "judge"), ("ANNOTATION", "feedback"), ("API", "feedback")]
)
def test_import_when_scores_are_a_second_file_then_they_join_their_observation(
    tmp_path, store, samples, source, kind
):
    fact = samples.Fact()
    path = samples.lines(tmp_path / "observations.jsonl", [samples.langfuse_observation(fact)])
    of_other = samples.langfuse_score(samples.Fact(number=9), observation_id="another")
    scores = samples.lines(tmp_path / "scores.jsonl", [samples.langfuse_score(fact, source=source), of_other])

    import_logs("langfuse", path, store, join=scores)

    assert [(score.kind, score.scorer, score.value, score.reason) for score in store.scores()] == [
        (kind, "langfuse:helpful", 0.75, "It names the city.")
    ]


def test_import_when_a_score_is_of_the_trace_then_its_calls_have_it(tmp_path, store, samples):
    fact = samples.Fact()
    path = samples.lines(tmp_path / "observations.jsonl", [samples.langfuse_observation(fact)])
    scores = samples.lines(tmp_path / "scores.jsonl", [samples.langfuse_score(fact, observation_id=None)])

    import_logs("langfuse", path, store, join=scores)

    assert [score.value for score in store.scores()] == [0.75]


def test_import_when_names_are_those_of_the_api_then_they_are_read(tmp_path, store, samples):
    row = {
        "id": "obs-1",
        "traceId": "trace-1",
        "type": "GENERATION",
        "startTime": "2026-01-02T12:00:00Z",
        "endTime": "2026-01-02T12:00:02Z",
        "model": "small-1",
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "output": "Hello.",
        "usageDetails": {"input": 3, "output": 1},
        "calculatedTotalCost": 0.25,
    }
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"data": [row], "meta": {"page": 1}}))

    import_logs("langfuse", path, store)

    (record,) = store.records()
    assert (record.model, record.response, record.cost_usd, record.latency_s) == (
        "small-1",
        "Hello.",
        0.25,
        2.0,
    )
    assert (record.input_tokens, record.output_tokens, record.session_id) == (3, 1, "trace-1")


def test_import_when_a_generation_failed_then_the_record_has_its_error(tmp_path, store, samples):
    row = samples.langfuse_observation(samples.Fact(), level="ERROR", status_message="timeout", output=None)

    import_logs("langfuse", samples.lines(tmp_path / "observations.jsonl", [row]), store)

    (record,) = store.records()
    assert (record.error, record.response) == ("timeout", None)


@pytest.mark.parametrize("answer", ['{"city": "Oslo"}', '[{"city": "Oslo"}]', '"quoted"', "{broken"])
def test_import_when_the_answer_is_json_text_then_it_is_kept_as_said(tmp_path, store, samples, answer):
    row = samples.langfuse_observation(samples.Fact(), output=answer)

    import_logs("langfuse", samples.lines(tmp_path / "observations.jsonl", [row]), store)

    (record,) = store.records()
    assert record.response == answer


def test_import_when_a_folder_has_scores_alone_then_says_so(tmp_path, store):
    (tmp_path / "scores").mkdir()

    with pytest.raises(LogSchemaError, match="has scores but none of observations_v2"):
        import_logs("langfuse", tmp_path, store)
