import json
import math
from datetime import UTC, datetime

import pytest

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.importers import ColumnMapping, import_logs

NOW = datetime(2026, 5, 6, tzinfo=UTC)
ASKED = ColumnMapping(query="q", model="m", performance="p", response="r")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_import_when_columns_are_mapped_then_every_field_arrives(tmp_path, store, suffix, write_rows):
    row = {
        "q": 'Say "hi",\nthen stop',
        "m": "small",
        "mode": "reasoning",
        "r": "hi",
        "p": 0.5,
        "j": 0.25,
        "t": "greeting",
        "ref": "hi",
        "metric": "exact_match",
        "in": 3,
        "out": 1,
        "usd": 0.125,
        "s": 1.5,
        "prop": 0.2,
        "session": "ann",
        "at": "2026-01-02T03:04:05+01:00",
        "id": "row-1",
        "ignored": "x",
    }
    columns = ColumnMapping(
        query="q",
        model="m",
        prompt_mode="mode",
        response="r",
        performance="p",
        judge_score="j",
        task="t",
        reference="ref",
        metric="metric",
        input_tokens="in",
        output_tokens="out",
        cost_usd="usd",
        latency_s="s",
        propensity="prop",
        session_id="session",
        created_at="at",
        source_id="id",
    )

    report = import_logs(
        "table",
        write_rows(tmp_path / f"log{suffix}", [row]),
        store,
        columns=columns,
        assignment="policy",
        source="app",
        now=NOW,
    )

    assert (report.n_rows, report.n_added, report.n_known, report.n_quarantined) == (1, 1, 0, 0)
    assert report.quarantine is None
    found = store.to_frame().drop("record_id", "query_id", "messages").row(0, named=True)
    assert found == {
        "task": "greeting",
        "reference": "hi",
        "metric": "exact_match",
        "candidate_id": "small:reasoning",
        "candidate_revision": "",
        "model": "small",
        "prompt_mode": "reasoning",
        "planned_candidate_id": None,
        "response": "hi",
        "error": None,
        "finish_reason": None,
        "input_tokens": 3,
        "output_tokens": 1,
        "cost_usd": 0.125,
        "latency_s": 1.5,
        "assignment": "policy",
        "propensity": 0.2,
        "eligible": [],
        "session_id": "ann",
        "created_at": datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
        "source": "app",
        "source_id": "row-1",
        "sample": 0,
        "query_text": 'Say "hi",\nthen stop',
        "performance": 0.5,
        "judge_score": 0.25,
        "feedback": None,
    }
    assert {(score.scorer, score.created_at) for score in store.scores()} == {("import:app", NOW)}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_repeated_then_adds_nothing(tmp_path, store, suffix, write_rows):
    rows = [{"q": f"Question {i % 5}", "m": "small", "p": 1.0, "r": "yes"} for i in range(12)]
    path = write_rows(tmp_path / f"log{suffix}", rows)

    first = import_logs("table", path, store, columns=ASKED)
    before = store.to_frame()
    second = import_logs("table", path, store, columns=ASKED)

    assert (first.n_added, first.n_known) == (12, 0)
    assert (second.n_added, second.n_known) == (0, 12)
    assert store.to_frame().equals(before)


def test_import_when_equal_calls_repeat_in_a_file_then_each_is_a_sample(tmp_path, store, write_rows):
    path = write_rows(
        tmp_path / "log.jsonl", [{"q": "Q", "m": "small", "p": p, "r": "yes"} for p in (1, 0, 1)]
    )

    import_logs("table", path, store, columns=ASKED)

    assert [record.sample for record in store.records()] == [0, 1, 2]
    assert store.to_frame()["performance"].to_list() == [1.0, 0.0, 1.0]


def test_import_when_rows_were_reordered_and_added_then_adds_the_new_alone(tmp_path, store, write_rows):
    rows = [{"q": "Q", "m": model, "p": 1, "r": text} for model in ("a", "b") for text in ("x", "y")]
    import_logs("table", write_rows(tmp_path / "log.jsonl", rows[:3]), store, columns=ASKED)

    report = import_logs("table", write_rows(tmp_path / "log.jsonl", rows[::-1]), store, columns=ASKED)

    assert (report.n_added, report.n_known) == (1, 3)


def test_import_when_files_differ_in_name_then_are_different_sources(tmp_path, store, write_rows):
    for name in ("monday.jsonl", "tuesday.jsonl"):
        import_logs(
            "table",
            write_rows(tmp_path / name, [{"q": "Q", "m": "a", "p": 1, "r": "x"}]),
            store,
            columns=ASKED,
        )

    assert [record.source for record in store.records()] == ["monday.jsonl", "tuesday.jsonl"]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_import_when_a_number_is_missing_then_the_record_has_none(tmp_path, store, missing, write_rows):
    rows = [{"q": "Q", "m": "a", "p": missing, "usd": missing, "in": missing}]
    rows.append({"q": "Q", "m": "b", "p": 1.0, "usd": 0.5, "in": 4.0})
    columns = ColumnMapping(query="q", model="m", performance="p", cost_usd="usd", input_tokens="in")

    report = import_logs("table", write_rows(tmp_path / "log.parquet", rows), store, columns=columns)

    assert report.n_added == 2
    frame = store.to_frame().select("performance", "cost_usd", "input_tokens", "response")
    assert frame.rows() == [(None, None, None, None), (1.0, 0.5, 4, None)]


def test_import_when_a_call_failed_then_the_record_has_its_error(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "e": "timeout"}])

    import_logs("table", path, store, columns=ColumnMapping(query="q", model="m", error="e"))

    assert store.stats().n_failed == 1


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("suffix", "value"), [(".jsonl", MESSAGES), (".parquet", MESSAGES), (".csv", json.dumps(MESSAGES))]
)
def test_import_when_messages_are_mapped_then_the_conversation_arrives(
    tmp_path, store, suffix, value, write_rows
):
    path = write_rows(tmp_path / f"log{suffix}", [{"msgs": value, "m": "a"}])

    import_logs("table", path, store, columns=ColumnMapping(messages="msgs", model="m"))

    (record,) = store.records()
    assert [(message.role, message.content) for message in record.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


@pytest.mark.parametrize(
    ("mapping", "row", "candidate_id", "model"),
    [
        ({"model": "m"}, {"m": "small"}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": "direct"}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": None}, "small", "small"),
        ({"model": "m", "prompt_mode": "mode"}, {"m": "small", "mode": "thought"}, "small:thought", "small"),
        ({"candidate": "c"}, {"c": "router-a"}, "router-a", ""),
        ({"candidate": "c", "model": "m"}, {"c": "router-a", "m": "small"}, "router-a", "small"),
    ],
)
def test_import_when_answerer_is_given_then_candidate_and_model_are(
    tmp_path, store, mapping, row, candidate_id, model, write_rows
):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q"} | row])

    import_logs("table", path, store, columns=ColumnMapping(query="q", **mapping))

    (record,) = store.records()
    assert (record.candidate_id, record.model) == (candidate_id, model)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),  # no zone: read as UTC
        ("2026-01-02T03:04:05-01:00", datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)),
        (1_767_322_800, datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (None, NOW),
    ],
)
def test_import_when_moment_has_a_known_form_then_is_read(tmp_path, store, value, expected, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "at": value}])

    import_logs("table", path, store, columns=ColumnMapping(query="q", model="m", created_at="at"), now=NOW)

    (record,) = store.records()
    assert record.created_at == expected


@pytest.mark.parametrize(
    ("value", "text"), [(42, "42"), (["Paris", "paris"], '["Paris", "paris"]'), (True, "true")]
)
def test_import_when_reference_is_no_text_then_is_kept_as_json(tmp_path, store, value, text, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "ref": value}])

    import_logs("table", path, store, columns=ColumnMapping(query="q", model="m", reference="ref"))

    (record,) = store.records()
    assert record.reference == text


TIMED = ASKED.model_copy(update={"judge_score": "j", "created_at": "at"})
TIMED_ROW = {"q": "Q", "m": "small", "p": 1, "j": 0.5, "r": "yes", "at": "2026-01-02T03:04:05"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_rows_with_a_moment_are_identical_then_the_first_is_kept(
    tmp_path, store, suffix, write_rows
):
    rows = [TIMED_ROW, TIMED_ROW | {"j": 0.25}, TIMED_ROW, TIMED_ROW, TIMED_ROW | {"j": 0.25}]
    path = write_rows(tmp_path / f"log{suffix}", rows)

    report = import_logs("table", path, store, columns=TIMED)

    assert (report.n_rows, report.n_added, report.n_dropped) == (5, 2, {"duplicate row": 3})
    assert [record.sample for record in store.records()] == [0, 1]
    assert store.to_frame()["judge_score"].to_list() == [0.5, 0.25]


@pytest.mark.parametrize(
    "change", [{"p": 0}, {"j": None}, {"r": "no"}, {"m": "large"}, {"at": "2026-01-02T03:04:06"}]
)
def test_import_when_rows_with_a_moment_differ_then_both_are_kept(tmp_path, store, write_rows, change):
    path = write_rows(tmp_path / "log.jsonl", [TIMED_ROW, TIMED_ROW | change])

    report = import_logs("table", path, store, columns=TIMED)

    assert (report.n_added, report.n_dropped) == (2, {})


def test_import_when_rows_lack_the_mapped_moment_then_they_are_repeats(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [TIMED_ROW | {"at": None}] * 2)

    report = import_logs("table", path, store, columns=TIMED)

    assert (report.n_added, report.n_dropped) == (2, {})


@pytest.mark.parametrize(
    "rows", [[TIMED_ROW] * 3 + [TIMED_ROW | {"j": 0}], [TIMED_ROW | {"j": 0}, TIMED_ROW]]
)
def test_import_when_duplicates_were_dropped_then_importing_again_adds_nothing(
    tmp_path, store, write_rows, rows
):
    path = write_rows(tmp_path / "log.jsonl", [TIMED_ROW, TIMED_ROW, TIMED_ROW | {"j": 0}])
    import_logs("table", path, store, columns=TIMED)

    report = import_logs("table", write_rows(path, rows), store, columns=TIMED)

    assert (report.n_added, report.n_known, report.n_quarantined) == (0, 2, 0)
    assert store.stats().n_records == 2


def test_import_when_identical_rows_are_bad_then_each_is_quarantined(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [TIMED_ROW | {"p": 7}] * 2 + [TIMED_ROW] * 2)

    report = import_logs("table", path, store, columns=TIMED)

    assert (report.n_added, report.n_quarantined, report.n_dropped) == (1, 2, {"duplicate row": 1})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_texts_are_empty_then_they_are_missing(tmp_path, store, suffix, write_rows):
    names = [name for name in ColumnMapping.model_fields if name not in ("query", "messages", "model")]
    row = dict.fromkeys(names, "") | {"query": "Q", "model": "a", "response": "yes"}
    columns = ColumnMapping(**{name: name for name in row})

    report = import_logs(
        "table", write_rows(tmp_path / f"log{suffix}", [row]), store, columns=columns, now=NOW
    )

    assert (report.n_added, report.n_quarantined) == (1, 0)
    (record,) = store.records()
    assert (record.response, record.error, record.created_at) == ("yes", None, NOW)
    assert (record.candidate_id, record.prompt_mode) == ("a", "direct")
    assert (record.reference, record.session_id, record.cost_usd) == (None, None, None)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_import_when_an_answer_is_empty_then_it_is_an_answer_unless_the_call_failed(
    tmp_path, store, suffix, write_rows
):
    rows = [{"q": "Q", "m": "a", "r": "", "e": ""}, {"q": "Q", "m": "b", "r": "", "e": "timeout"}]
    columns = ColumnMapping(query="q", model="m", response="r", error="e")

    import_logs("table", write_rows(tmp_path / f"log{suffix}", rows), store, columns=columns)

    assert [(record.response, record.error) for record in store.records()] == [("", None), (None, "timeout")]


def test_import_when_given_a_folder_then_every_table_in_it_is_read(tmp_path, store, write_rows):
    folder = tmp_path / "logs"
    (folder / "older").mkdir(parents=True)
    rows = [{"q": f"Q{i}", "m": "a", "p": 1, "r": "x"} for i in range(3)]
    write_rows(folder / "a.csv", rows[:1])
    write_rows(folder / "b.jsonl", rows[1:2])
    write_rows(folder / "older" / "c.parquet", rows[2:])
    (folder / "notes.txt").write_text("none of them")

    report = import_logs("table", folder, store, columns=ASKED)
    again = import_logs("table", folder, store, columns=ASKED)

    assert (report.source, report.n_rows, report.n_added) == ("logs", 3, 3)
    assert (again.n_added, again.n_known) == (0, 3)


def test_import_when_a_file_of_a_folder_lacks_a_column_then_names_the_file(tmp_path, store, write_rows):
    write_rows(tmp_path / "a.csv", [{"q": "Q", "m": "a"}])
    write_rows(tmp_path / "b.jsonl", [{"q": "Q", "llm": "a"}])

    with pytest.raises(LogSchemaError, match=r"b\.jsonl' has no column 'm'.*has: 'q', 'llm'"):
        import_logs("table", tmp_path, store, columns=ColumnMapping(query="q", model="m"))

    assert store.stats().n_records == 0


def test_import_when_a_folder_has_no_table_then_says_so(tmp_path, store):
    with pytest.raises(LogSchemaError, match=r"has no file to import\. Known suffixes: \.csv"):
        import_logs("table", tmp_path, store, columns=ColumnMapping(query="q", model="m"))
