from fusion_integrations.logs.importers import import_logs


def test_import_when_the_messages_were_not_fetched_then_the_completion_is_dropped(tmp_path, store, samples):
    path = samples.lines(tmp_path / "stored.jsonl", [samples.Fact().completion])

    report = import_logs("openai-stored", path, store)

    assert report.n_dropped == {"prompt not stored": 1}


def test_import_when_metadata_name_a_session_then_the_record_has_it(tmp_path, store, samples):
    fact = samples.Fact()
    row = fact.completion | {"messages": fact.messages, "metadata": {"session_id": "ann"}}

    import_logs("openai-stored", samples.lines(tmp_path / "stored.jsonl", [row]), store)

    (record,) = store.records()
    assert (record.session_id, record.finish_reason) == ("ann", "stop")
