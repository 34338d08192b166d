import json

import polars as pl
import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, *runs):
    return import_logs("langsmith", samples.lines(path, runs), store)


def test_import_when_runs_are_nested_then_the_innermost_call_alone_counts(tmp_path, store, samples):
    wrapper, chain, call = (samples.Fact(number=number) for number in (1, 2, 3))
    order = [f"20260102T120000000000Z{fact.id}" for fact in (wrapper, chain, call)]
    runs = [
        samples.langsmith_run(wrapper, dotted_order=order[0]),
        samples.langsmith_run(
            chain, run_type="chain", parent_run_id=wrapper.id, dotted_order=".".join(order[:2])
        ),
        samples.langsmith_run(call, parent_run_id=chain.id, dotted_order=".".join(order)),
    ]

    report = load(store, samples, tmp_path / "runs.jsonl", *runs)

    assert (report.n_added, report.n_dropped) == (1, {"wraps another call": 1, "not a model call": 1})
    (record,) = store.records()
    assert record.source_id == call.id


def test_import_when_the_run_between_was_not_exported_then_the_wrapper_is_still_known(
    tmp_path, store, samples
):
    wrapper, hidden, call = (samples.Fact(number=number) for number in (1, 2, 3))
    order = [f"20260102T120000000000Z{fact.id}" for fact in (wrapper, hidden, call)]
    runs = [
        samples.langsmith_run(call, parent_run_id=hidden.id, dotted_order=".".join(order)),
        samples.langsmith_run(wrapper, dotted_order=order[0]),
    ]

    report = load(store, samples, tmp_path / "runs.jsonl", *runs)

    assert (report.n_added, report.n_dropped) == (1, {"wraps another call": 1})


def test_import_when_a_run_is_pending_then_it_waits_for_a_later_import(tmp_path, store, samples):
    run = samples.langsmith_run(samples.Fact())
    pending = run | {"status": "pending", "end_time": None, "outputs": None}

    first = load(store, samples, tmp_path / "monday.jsonl", pending)
    second = load(store, samples, tmp_path / "tuesday.jsonl", run)

    assert (first.n_added, first.n_dropped) == (0, {"not finished yet": 1})
    assert second.n_added == 1


def test_import_when_exports_overlap_then_a_run_is_one_record(tmp_path, store, samples):
    run = samples.langsmith_run(samples.Fact())
    load(store, samples, tmp_path / "monday.jsonl", run)

    report = load(store, samples, tmp_path / "tuesday.jsonl", run, run)

    assert (report.n_added, report.n_known, report.n_dropped) == (0, 1, {"duplicate row": 1})


def test_import_when_a_run_failed_then_the_record_has_its_error(tmp_path, store, samples):
    run = samples.langsmith_run(samples.Fact(), status="error", error="RateLimitError(429)", outputs=None)

    load(store, samples, tmp_path / "runs.jsonl", run)

    (record,) = store.records()
    assert (record.error, record.response, record.session_id) == ("RateLimitError(429)", None, "thread-1")


def test_import_when_feedback_is_on_another_scale_then_it_is_left_out_and_counted(tmp_path, store, samples):
    stats = {"stars": {"n": 1, "avg": 4.0}, "thumbs": {"n": 1, "avg": 1.0}}

    report = load(
        store,
        samples,
        tmp_path / "runs.jsonl",
        samples.langsmith_run(samples.Fact(), feedback_stats=stats),
    )

    assert (report.n_added, report.n_scores_left_out) == (1, 1)
    assert [(score.kind, score.scorer, score.value) for score in store.scores()] == [
        ("feedback", "langsmith:thumbs", 1.0)
    ]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        # the wrapper of the OpenAI SDK
        (
            {"messages": [{"role": "user", "content": "Hi"}]},
            {"choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]},
        ),
        ({"messages": [["human", "Hi"]]}, {"messages": [{"role": "assistant", "content": "Hello."}]}),
        ({"prompts": ["Hi"]}, {"generations": [[{"text": "Hello.", "type": "Generation"}]]}),
        ({"input": "Hi"}, {"output": "Hello."}),
    ],
)
def test_import_when_a_run_was_traced_otherwise_then_it_is_read_too(
    tmp_path, store, samples, inputs, outputs
):
    load(
        store,
        samples,
        tmp_path / "runs.jsonl",
        samples.langsmith_run(samples.Fact(), inputs=inputs, outputs=outputs),
    )

    (record,) = store.records()
    assert (record.messages[-1].content, record.response) == ("Hi", "Hello.")


def test_import_when_a_bulk_export_is_a_folder_of_parquet_then_every_file_is_read(tmp_path, store, samples):
    for number in (1, 2):
        folder = tmp_path / "export" / "runs" / "year=2026" / f"month={number:02d}"
        folder.mkdir(parents=True)
        run = samples.langsmith_run(samples.Fact(number=number))
        # Parquet of the bulk export holds nested values as JSON text.
        nested = {name: json.dumps(run[name]) for name in ("inputs", "outputs", "extra", "feedback_stats")}
        pl.DataFrame([run | nested]).write_parquet(folder / "part-0.parquet")

    report = import_logs("langsmith", tmp_path / "export", store)

    assert (report.n_added, report.n_quarantined) == (2, 0)
    assert store.to_frame()["feedback"].to_list() == [0.75, 0.75]
