import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import import_logs


def test_import_when_prices_are_given_then_the_cost_is_computed(tmp_path, store, samples):
    path = samples.SAMPLES["llmrouter"].write(tmp_path, [samples.Fact()])

    import_logs("llmrouter", path, store, join=tmp_path / "default_llm.json")

    (record,) = store.records()
    # 21 input tokens at 1 USD and 3 output tokens at 2 USD per million
    assert record.cost_usd == pytest.approx(27e-6)


def test_import_when_no_prices_are_given_then_the_cost_is_unknown(tmp_path, store, samples):
    import_logs("llmrouter", samples.SAMPLES["llmrouter"].write(tmp_path, [samples.Fact()]), store)

    (record,) = store.records()
    assert record.cost_usd is None


def test_import_when_a_row_names_a_key_then_it_reaches_neither_store_nor_quarantine(tmp_path, store, samples):
    rows = [samples.llmrouter_row(samples.Fact()), samples.llmrouter_row(samples.Fact(), query=None)]

    report = import_logs("llmrouter", samples.lines(tmp_path / "routing.jsonl", rows), store)

    assert (report.n_added, report.n_quarantined) == (1, 1)
    assert "rivTkKeBPm" not in report.quarantine.read_text()
    (record,) = store.records()
    assert "rivTkKeBPm" not in record.model_dump_json()


@pytest.mark.parametrize("content", ["not JSON", '{"small-1": {}}', '{"small-1": 7}'])
def test_import_when_the_prices_are_malformed_then_nothing_is_imported(tmp_path, store, samples, content):
    path = samples.SAMPLES["llmrouter"].write(tmp_path, [samples.Fact()])
    (tmp_path / "default_llm.json").write_text(content)

    with pytest.raises(LogSchemaError, match="needs input_price and output_price"):
        import_logs("llmrouter", path, store, join=tmp_path / "default_llm.json")
    assert store.stats().n_records == 0
