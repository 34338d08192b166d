import json

import pytest

from fusion_integrations.logs.importers import import_logs


def test_import_when_a_model_was_run_again_then_the_newest_counts(tmp_path, store, samples):
    folder = tmp_path / "bench"
    folder.mkdir()
    samples.SAMPLES["llmrouterbench"].write(folder, [samples.Fact()])
    place = folder / "geography" / "test" / "small-1"
    newer = json.loads((place / "20260102_120000.json").read_text())
    newer["records"][0]["raw_output"] = "It is Oslo."
    (place / "20260103_120000.json").write_text(json.dumps(newer))

    report = import_logs("llmrouterbench", folder, store)

    assert report.n_added == 1
    (record,) = store.records()
    assert (record.response, record.model, record.task) == ("It is Oslo.", "small-1", "geography")


@pytest.mark.parametrize("part", ["geography", "geography/test", "geography/test/small-1"])
def test_import_when_a_part_of_the_folder_is_given_then_records_are_the_same(tmp_path, store, samples, part):
    folder = tmp_path / "bench"
    folder.mkdir()
    samples.SAMPLES["llmrouterbench"].write(folder, [samples.Fact()])
    import_logs("llmrouterbench", folder, store)

    report = import_logs("llmrouterbench", folder / part, store)

    assert (report.n_added, report.n_known) == (0, 1)
