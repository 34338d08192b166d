import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import import_logs


def written(samples, folder, output):
    samples.SAMPLES["openai-batch"].write(folder, [samples.Fact()])
    return samples.lines(folder / "output.jsonl", [output])


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (
            {"id": "b1", "custom_id": "ask-1", "response": None, "error": {"code": "batch_expired"}},
            "batch_expired",
        ),
        (
            {
                "id": "b1",
                "custom_id": "ask-1",
                "response": {"status_code": 400, "body": {"error": {"message": "too long"}}},
                "error": None,
            },
            "HTTP 400: too long",
        ),
    ],
)
def test_import_when_a_request_failed_then_the_record_has_its_error(tmp_path, store, samples, output, error):
    path = written(samples, tmp_path, output)

    import_logs("openai-batch", path, store, join=tmp_path / "input.jsonl")

    (record,) = store.records()
    assert (record.error, record.response, record.model) == (error, None, "small-1")


def test_import_when_an_answer_has_no_request_then_it_is_quarantined(tmp_path, store, samples):
    path = written(samples, tmp_path, {"id": "b1", "custom_id": "another", "response": {}, "error": None})

    report = import_logs("openai-batch", path, store, join=tmp_path / "input.jsonl")

    assert report.n_quarantined == 1
    assert "the input file has no request 'another'" in report.quarantine.read_text()


def test_import_when_the_input_file_is_not_given_then_says_what_is_needed(tmp_path, store, samples):
    path = samples.SAMPLES["openai-batch"].write(tmp_path, [samples.Fact()])

    with pytest.raises(LogSchemaError, match="needs the input file of the batch as second file: pass join"):
        import_logs("openai-batch", path, store)
