import pytest

from fusion_integrations.logs.importers import import_logs


def load(store, samples, path, **fields):
    row = samples.helicone_request(samples.Fact(), **fields)
    return import_logs("helicone", samples.lines(path, [row]), store)


def test_import_when_the_answer_came_from_a_cache_then_it_is_dropped(tmp_path, store, samples):
    report = load(store, samples, tmp_path / "log.jsonl", cache_reference_id=samples.Fact(number=2).id)

    assert report.n_dropped == {"answered from a cache": 1}


def test_import_when_the_cache_reference_is_clickhouses_none_then_the_call_counts(tmp_path, store, samples):
    report = load(
        store, samples, tmp_path / "log.jsonl", cache_reference_id="00000000-0000-0000-0000-000000000000"
    )

    assert report.n_added == 1


def test_import_when_bodies_were_not_exported_then_the_row_is_dropped(tmp_path, store, samples):
    report = load(store, samples, tmp_path / "log.jsonl", request_body=None, response_body=None)

    assert report.n_dropped == {"prompt not stored": 1}


def test_import_when_a_user_rated_then_there_is_feedback_beside_the_judge(tmp_path, store, samples):
    load(store, samples, tmp_path / "log.jsonl", feedback_rating=True)

    assert [(score.kind, score.scorer, score.value) for score in store.scores()] == [
        ("judge", "helicone:relevance", 0.75),
        ("feedback", "helicone:rating", 1.0),
    ]


def test_import_when_the_provider_refused_then_the_record_has_its_error(tmp_path, store, samples):
    load(
        store,
        samples,
        tmp_path / "log.jsonl",
        response_status=429,
        response_body={"error": {"message": "slow down"}},
    )

    (record,) = store.records()
    assert (record.error, record.response) == ("HTTP 429: slow down", None)


@pytest.mark.parametrize(
    ("request_body", "response_body"),
    [
        (
            {
                "system": "Be brief.",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
        ),
        (
            {"instructions": "Be brief.", "input": "Hi"},
            {"object": "response", "output": [{"content": [{"type": "output_text", "text": "Hello."}]}]},
        ),
    ],
    ids=["Anthropic", "OpenAI Responses"],
)
def test_import_when_bodies_are_of_another_api_then_they_are_read(
    tmp_path, store, samples, request_body, response_body
):
    load(store, samples, tmp_path / "log.jsonl", request_body=request_body, response_body=response_body)

    (record,) = store.records()
    assert [turn.content for turn in record.messages] == ["Be brief.", "Hi"]
    assert record.response == "Hello."
