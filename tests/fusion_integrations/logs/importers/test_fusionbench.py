import pytest

from fusion_integrations.logs.importers import import_logs


@pytest.mark.parametrize(
    ("performance", "value"), [("0.5", 0.5), ("{'pass@1': 1.0}", 1.0), ('{"pass@1": 0.0}', 0.0)]
)
def test_import_when_performance_is_a_number_or_a_dictionary_then_it_is_read(
    tmp_path, store, samples, performance, value
):
    row = samples.fusionbench_row(samples.Fact(), performance=performance)

    import_logs("fusionbench", samples.table(tmp_path / "log.csv", [row]), store)

    assert store.to_frame().select("performance", "judge_score").row(0) == (value, 0.5)


def test_import_when_the_llm_was_asked_to_think_then_the_candidate_is_the_reasoning_one(
    tmp_path, store, samples
):
    rows = [samples.fusionbench_row(samples.Fact(model=name)) for name in ("small-1", "small-1_think")]

    import_logs("fusionbench", samples.table(tmp_path / "log.csv", rows), store)

    found = [(record.candidate_id, record.model, record.prompt_mode) for record in store.records()]
    assert found == [("small-1", "small-1", "direct"), ("small-1:reasoning", "small-1", "reasoning")]
    assert {record.assignment for record in store.records()} == {"factorial"}


def test_import_when_a_row_comes_twice_then_it_is_dropped_once(tmp_path, store, samples):
    rows = [samples.fusionbench_row(samples.Fact())] * 2

    report = import_logs("fusionbench", samples.table(tmp_path / "log.csv", rows), store)

    assert (report.n_added, report.n_dropped) == (1, {"duplicate row": 1})


def test_import_when_performance_is_no_number_then_the_row_is_quarantined(tmp_path, store, samples):
    row = samples.fusionbench_row(samples.Fact(), performance="good")

    report = import_logs("fusionbench", samples.table(tmp_path / "log.csv", [row]), store)

    assert report.n_quarantined == 1
