"""Rows and files that cannot be used, and what happens to the rest."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.export import export_logs
from fusion_integrations.logs.importers import ColumnMapping, _intake, import_logs
from fusion_integrations.logs.store import LogStore

ASKED = ColumnMapping(query="q", model="m", performance="p", response="r")


def _quarantined(report):
    return [json.loads(line) for line in report.quarantine.read_text().splitlines()]


@pytest.mark.parametrize("n_between", [0, 1500])
def test_import_when_a_source_id_is_not_unique_then_the_second_call_is_quarantined(
    tmp_path, store, n_between, write_rows, monkeypatch
):
    monkeypatch.setattr(_intake, "_MAX_RECORDS", 1000)
    rows = [
        {"q": "Q", "m": "a", "p": 1, "r": "x", "id": "7"},
        *({"q": "Q", "m": "a", "p": 1, "r": "x", "id": f"other {i}"} for i in range(n_between)),
        {"q": "Q", "m": "b", "p": 1, "r": "x", "id": "7"},
    ]
    columns = ASKED.model_copy(update={"source_id": "id"})

    report = import_logs("table", write_rows(tmp_path / "log.jsonl", rows), store, columns=columns)

    assert (report.n_added, report.n_quarantined) == (1 + n_between, 1)
    (refused,) = _quarantined(report)
    assert refused["row"] == n_between + 2
    assert "source id '7' of source 'log.jsonl' already belongs to another call" in refused["reason"]


def test_import_when_rows_are_malformed_then_they_are_set_aside_and_the_rest_goes_on(tmp_path, store):
    good = {"q": "Q", "m": "small", "p": 1, "r": "yes"}
    lines = [
        json.dumps(good),
        '{"q": "cut off',
        '["a list"]',
        json.dumps(good | {"p": 1.5}),
        json.dumps(good | {"q": "  "}),
        json.dumps(good | {"m": None}),
        json.dumps(good | {"r": {"text": "nested"}}),
        json.dumps({"m": "small"}),
        "",
        json.dumps(good | {"r": "\ud800"}),
        "[" * 100_000,
        json.dumps(good | {"r": "no"}),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")

    report = import_logs("table", path, store, columns=ASKED)

    assert (report.n_rows, report.n_added, report.n_quarantined) == (11, 2, 9)
    assert report.quarantine == tmp_path / "log.jsonl.quarantine.jsonl"
    reasons = {entry["row"]: entry["reason"] for entry in _quarantined(report)}
    expected = {
        2: "not JSON",
        3: "not a JSON object",
        4: "performance: not a number between 0 and 1, got 1.5",
        5: "no text",
        6: "candidate_id: Input should be a valid string",
        7: "response: Input should be a valid string",
        8: "the column of the query is empty",
        10: "surrogates",
        11: "not JSON",
    }
    assert reasons.keys() == expected.keys()
    assert all(part in reasons[row] for row, part in expected.items()), reasons
    assert [record.response for record in store.records()] == ["yes", "no"]


def test_import_when_csv_is_malformed_then_only_its_bad_records_are_set_aside(tmp_path, store):
    path = tmp_path / "log.csv"
    long_answer = "x" * 200_000  # more than the csv module takes unasked
    path.write_bytes(
        b"\xef\xbb\xbfq,m,p,r\n"
        b"Q1,small,1,yes\n"
        b"Q2,small\n"
        b"\n"
        b"Q3,small,1,yes,more\n"
        b"Q4,small,one,yes\n"
        b"Q5,small,1,\xff\n"
        b'Q6,small,1,"yes" no\n'
        b"Q7,small,,\n" + f"Q8,small,True,{long_answer}\n".encode() + b'Q9,small,1,"never closed\n'
    )

    report = import_logs("table", path, store, columns=ASKED)

    reasons = {entry["row"]: entry["reason"] for entry in _quarantined(report)}
    expected = {
        2: "2 fields where the header has 4",
        3: "5 fields where the header has 4",
        4: "performance: not a number between 0 and 1, got 'one'",
        5: "surrogates",
        6: "not CSV: ',' expected after '\"', lines 8-8",
        9: "not CSV: unexpected end of data, lines 11-11",
    }
    assert reasons.keys() == expected.keys()
    assert all(part in reasons[row] for row, part in expected.items()), reasons
    frame = store.to_frame().select("query_text", "performance", pl.col("response").str.len_chars())
    assert frame.rows() == [("Q1", 1.0, 3), ("Q7", None, None), ("Q8", 1.0, 200_000)]


@pytest.mark.parametrize(
    "value", ["not JSON", "7", "[" * 100_000, [7], [{"role": "user"}], {"role": "user"}, None]
)
def test_import_when_messages_are_malformed_then_the_row_is_quarantined(tmp_path, store, value, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"msgs": value, "m": "a"}])

    report = import_logs("table", path, store, columns=ColumnMapping(messages="msgs", model="m"))

    assert report.n_quarantined == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_import_when_a_mapped_column_is_absent_then_lists_those_there_are(
    tmp_path, store, suffix, write_rows
):
    path = write_rows(tmp_path / f"log{suffix}", [{"query": "Q", "model": "a"}])

    with pytest.raises(LogSchemaError, match=r"has no column 'm', 'q'.*has: 'query', 'model'"):
        import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"))


def test_import_when_a_json_column_comes_late_then_is_found(tmp_path, store, write_rows):
    rows = [{"q": f"Q{i}", "m": "a"} for i in range(1200)] + [{"q": "Q", "m": "a", "e": "timeout"}]

    import_logs(
        "table",
        write_rows(tmp_path / "log.jsonl", rows),
        store,
        columns=ColumnMapping(query="q", model="m", error="e"),
    )

    assert store.stats().n_failed == 1


def test_import_when_a_csv_header_repeats_then_raises(tmp_path, store):
    path = tmp_path / "log.csv"
    path.write_text("q,m,q\nA,small,B\n")

    with pytest.raises(LogSchemaError, match="has several columns 'q'"):
        import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("log.xlsx", b"", "of no known kind. Known suffixes: .csv"),
        ("log.parquet", b"not parquet", "cannot be read"),
        ("log.csv", b"", "has no column 'm', 'q'.*has: none"),
        ("log.jsonl", b"", "has no column"),
    ],
)
def test_import_when_the_file_is_unusable_then_says_why(tmp_path, store, name, content, reason):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LogSchemaError, match=reason):
        import_logs("table", tmp_path / name, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize("encoding", ["UTF-16-LE", "UTF-16-BE", "UTF-32-LE", "UTF-32-BE"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", "q,m\nQ,a\n"),
        ("log.jsonl", '{"q": "Q", "m": "a"}\n'),
        ("log.json", '[{"q": "Q", "m": "a"}]'),
    ],
)
def test_import_when_a_byte_order_mark_is_not_utf_8_then_says_how_to_save_it(
    tmp_path, store, name, text, encoding
):
    path = tmp_path / name
    path.write_bytes(f"\ufeff{text}".encode(encoding))

    with pytest.raises(LogSchemaError, match=f"{name}' is encoded as {encoding[:6]}. Save it as UTF-8"):
        import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"))


def test_import_when_a_format_of_its_own_is_utf_16_then_says_how_to_save_it(tmp_path, store):
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": "7"}\n', encoding="utf-16")

    with pytest.raises(LogSchemaError, match=r"is encoded as UTF-16\. Save it as UTF-8"):
        import_logs("litellm", path, store)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_import_when_the_file_is_absent_then_raises(tmp_path, store, name):
    with pytest.raises(LogSchemaError, match=f"{name}' cannot be read: No such file"):
        import_logs("table", tmp_path / name, store, columns=ColumnMapping(query="q", model="m"))


@pytest.mark.parametrize(
    ("arguments", "reason"), [({"source": " "}, "non-blank name"), ({"assignment": "dice"}, "got 'dice'")]
)
def test_import_when_an_argument_is_wrong_then_raises(tmp_path, store, arguments, reason, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a"}])

    with pytest.raises(LogSchemaError, match=reason):
        import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"), **arguments)


def test_import_when_the_file_named_for_bad_rows_exists_then_nothing_is_overwritten(
    tmp_path, store, write_rows
):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": None}])
    before = path.read_bytes()

    with pytest.raises(LogStoreError, match="already"):
        import_logs("table", path, store, columns=ASKED, quarantine=path)

    assert path.read_bytes() == before


def test_import_when_the_quarantine_cannot_be_written_then_says_so(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": None}])

    with pytest.raises(LogStoreError, match=r"quarantine file '.*x.jsonl' cannot be written: No such file"):
        import_logs(
            "table",
            path,
            store,
            columns=ColumnMapping(query="q", model="m"),
            quarantine=tmp_path / "no" / "x.jsonl",
        )


def test_import_when_there_are_several_transactions_then_reports_progress(
    tmp_path, store, write_rows, monkeypatch
):
    monkeypatch.setattr(_intake, "_MAX_RECORDS", 1000)
    path = write_rows(tmp_path / "log.jsonl", [{"q": f"Q{i}", "m": "a"} for i in range(2100)])
    seen = []

    import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"), on_progress=seen.append)

    assert seen == [1000, 2000, 2100]


def test_import_when_answers_are_long_then_a_transaction_holds_few_of_them(
    tmp_path, store, write_rows, monkeypatch
):
    monkeypatch.setattr(_intake, "_MAX_CHARACTERS", 1000)
    rows = [{"q": f"Q{i}", "m": "a", "r": "x" * 500} for i in range(5)]
    seen = []

    import_logs(
        "table",
        write_rows(tmp_path / "log.jsonl", rows),
        store,
        columns=ColumnMapping(query="q", model="m", response="r"),
        on_progress=seen.append,
    )

    assert seen == [2, 4, 5]


def test_import_when_parquet_has_more_rows_than_a_slice_then_all_arrive(tmp_path, store):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"q": [f"Q{i}" for i in range(10_000)], "m": ["a"] * 10_000}).write_parquet(path)

    report = import_logs("table", path, store, columns=ColumnMapping(query="q", model="m"))

    assert (report.n_rows, report.n_added) == (10_000, 10_000)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "Hi"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
EVERY_COLUMN = ColumnMapping(**{name: name for name in ColumnMapping.model_fields if name != "messages"})


@settings(max_examples=75)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"query": JSON_VALUES, "model": JSON_VALUES},
            optional={
                name: JSON_VALUES for name in ColumnMapping.model_fields if name not in ("query", "model")
            },
        ),
        max_size=3,
    )
)
def test_import_when_values_are_anything_then_every_row_is_added_known_dropped_or_quarantined(
    rows, tmp_path_factory, write_rows
):
    path = tmp_path_factory.mktemp("any") / "log.jsonl"
    everything = dict.fromkeys(ColumnMapping.model_fields)  # so that all columns exist; itself refused
    write_rows(path, [everything, *rows])

    with LogStore.open(":memory:") as store:
        report = import_logs("table", path, store, columns=EVERY_COLUMN)

        n_used = report.n_added + report.n_known + sum(report.n_dropped.values())
        assert report.n_rows == n_used + report.n_quarantined == len(rows) + 1
        assert store.to_frame().height == report.n_added


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "m"}, "exactly one of query and messages"),
        ({"query": "q", "messages": "q", "model": "m"}, "exactly one of query and messages"),
        ({"query": "q"}, "Map candidate or model"),
        ({"query": "q", "model": "m", "prize": "p"}, "prize"),
    ],
)
def test_mapping_when_incomplete_then_says_what_is_missing(fields, reason):
    with pytest.raises(ValidationError, match=reason):
        ColumnMapping(**fields)


def test_import_when_a_row_with_a_source_id_comes_twice_then_it_is_dropped_once(tmp_path, store, write_rows):
    rows = [{"q": "Q", "m": "a", "p": 1, "r": "x", "id": "7"}] * 3
    path = write_rows(tmp_path / "log.jsonl", rows)
    columns = ASKED.model_copy(update={"source_id": "id"})

    first = import_logs("table", path, store, columns=columns)
    again = import_logs("table", path, store, columns=columns)

    assert (first.n_added, first.n_known, first.n_dropped) == (1, 0, {"duplicate row": 2})
    assert (again.n_added, again.n_known, again.n_dropped) == (0, 1, {"duplicate row": 2})


@pytest.mark.parametrize("moment", [{}, {"t": "2026-03-01T10:00:00Z"}])
def test_import_when_a_row_comes_again_with_another_score_then_the_call_has_both(
    tmp_path, store, moment, write_rows
):
    rows = [{"q": "Q", "m": "a", "p": p, "r": "x", "id": "7", **moment} for p in (1, 0, 1, 0.5)]
    path = write_rows(tmp_path / "log.jsonl", rows)
    columns = ASKED.model_copy(update={"source_id": "id", **({"created_at": "t"} if moment else {})})

    first = import_logs("table", path, store, columns=columns)
    again = import_logs("table", path, store, columns=columns)

    (record,) = store.records()
    values = sorted(score.value for score in store.scores_of([record.record_id])[record.record_id])
    assert set(values) == {0.0, 0.5, 1.0}
    assert (first.n_added, first.n_dropped) == (1, {"duplicate row": 3})
    assert (again.n_added, again.n_scores_added) == (0, 0)


REDACTED = [
    {
        "q": "Mail ann.lee@example.org from 10.0.0.1",
        "m": "a",
        "p": 1,
        "r": "Sent, +1 212 555 0199.",
        "id": "7",
    },
    {"q": "Call +1 212 555 0199 or +1 212 555 0123", "m": "a", "p": 1, "r": "ann.lee@example.org", "id": "8"},
    {"q": "Use sk-proj-abcdefghij0123456789", "m": "a", "p": 1, "r": "No, eve@example.org!", "id": "9"},
]


@pytest.mark.parametrize("source_id", ["id", None])
@pytest.mark.parametrize(
    ("first", "second"), [("secrets_and_pii", "secrets"), ("secrets", "secrets_and_pii"), ("secrets",) * 2]
)
def test_import_when_redaction_changes_then_rows_are_there_already(
    tmp_path, store, write_rows, first, second, source_id
):
    path = write_rows(tmp_path / "log.jsonl", REDACTED)
    columns = ASKED.model_copy(update={"source_id": source_id})
    import_logs("table", path, store, columns=columns, redact=first)
    before = store.to_frame()

    report = import_logs("table", path, store, columns=columns, redact=second)

    assert (report.n_added, report.n_known, report.n_quarantined) == (0, 3, 0)
    assert store.to_frame().equals(before)


@pytest.mark.parametrize(
    "change",
    [
        {"q": "Mail ann.lee@example.org from home"},
        {"q": "Delete the mail of ann.lee@example.org from 10.0.0.1"},
        {"q": "Mail everybody from 10.0.0.1"},
        {"q": "Mail ann.lee@example.org from somewhere"},
        {"r": "Sent, no number."},
        {"r": "Not sent, +1 212 555 0199."},
        {"m": "b"},
    ],
)
def test_import_when_a_redacted_call_is_another_then_it_is_quarantined(tmp_path, store, write_rows, change):
    columns = ASKED.model_copy(update={"source_id": "id"})
    first = write_rows(tmp_path / "log.jsonl", REDACTED[:1])
    import_logs("table", first, store, columns=columns, redact="secrets_and_pii")

    report = import_logs(
        "table", write_rows(tmp_path / "log.jsonl", [REDACTED[0] | change]), store, columns=columns
    )

    assert (report.n_known, report.n_quarantined) == (0, 1)
    assert "already belongs to another call" in _quarantined(report)[0]["reason"]


def test_import_when_the_log_is_a_redacted_export_then_its_calls_are_there_already(
    tmp_path, store, write_rows
):
    path = write_rows(tmp_path / "log.jsonl", REDACTED)
    import_logs("table", path, store, columns=ASKED)
    with LogStore.open(":memory:") as other:
        import_logs("table", path, other, columns=ASKED, redact="secrets_and_pii")
        export_logs(other, tmp_path / "export.parquet")

    report = import_logs("fusion", tmp_path / "export.parquet", store)

    assert (report.n_added, report.n_known, report.n_quarantined) == (0, 3, 0)


def test_import_when_bad_rows_shall_stop_it_then_rows_before_are_stored_and_none_set_aside(
    tmp_path, store, write_rows
):
    rows = [{"q": "Q", "m": "a", "p": 1, "r": "x"}, {"q": "Q", "m": "a", "p": 7, "r": "y"}]
    path = write_rows(tmp_path / "log.jsonl", rows)

    with pytest.raises(
        LogSchemaError, match=r"Row 2 cannot be used: performance: not a number between 0 and 1"
    ):
        import_logs("table", path, store, columns=ASKED, bad_rows="stop")

    assert store.stats().n_records == 1
    assert not list(tmp_path.glob("*.quarantine.jsonl"))


def test_import_when_the_format_is_unknown_then_lists_those_there_are(tmp_path, store):
    with pytest.raises(LogSchemaError, match=r"no log format 'excel'\. Known: fusion, fusionbench"):
        import_logs("excel", tmp_path, store)


def test_import_when_several_run_at_once_then_garbage_collection_is_as_before(tmp_path, store):
    path = tmp_path / "rows.csv"
    path.write_text("q,m\n" + "".join(f"Q{i},a\n" for i in range(300)))
    columns = ColumnMapping(query="q", model="m")
    before = gc.get_threshold()
    during = []

    def run(number):
        def notice(_):
            during.append(gc.get_threshold())

        import_logs("table", path, store, columns=columns, source=f"s{number}", on_progress=notice)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(8)))

    assert gc.get_threshold() == before
    assert set(during) == {(50_000, 50, 50)}
