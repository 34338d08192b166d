"""Scores that come after the calls they belong to."""

from datetime import UTC, datetime, timedelta

from fusion_integrations.logs.export import export_logs
from fusion_integrations.logs.importers import ColumnMapping, import_logs
from fusion_integrations.logs.schema import Score
from fusion_integrations.logs.store import LogStore

ASKED = ColumnMapping(query="q", model="m", performance="p", response="r")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def test_import_when_the_source_has_other_scores_by_now_then_they_are_added(tmp_path, store, write_rows):
    columns = ASKED.model_copy(update={"source_id": "id", "judge_score": "j"})
    rows = [{"q": "Q", "m": m, "p": 1, "r": "x", "id": m, "j": None} for m in ("a", "b")]
    path = write_rows(tmp_path / "log.jsonl", rows)
    import_logs("table", path, store, columns=columns, now=MONDAY)
    later = [rows[0] | {"p": 0}, rows[1] | {"j": 0.5}]
    write_rows(path, later)

    report = import_logs("table", path, store, columns=columns, now=MONDAY + timedelta(days=1))
    again = import_logs("table", path, store, columns=columns, now=MONDAY + timedelta(days=2))

    assert (report.n_added, report.n_known, report.n_scores_added) == (0, 2, 2)
    assert (again.n_added, again.n_known, again.n_scores_added) == (0, 2, 0)
    frame = store.to_frame().sort("model")
    assert frame.select("performance", "judge_score").rows() == [(0.0, None), (1.0, 0.5)]

    write_rows(path, rows)  # the user takes the correction back
    import_logs("table", path, store, columns=columns, now=MONDAY + timedelta(days=3))
    assert store.to_frame().sort("model")["performance"].to_list() == [1.0, 1.0]


def test_import_when_a_record_was_scored_here_since_then_the_score_stands(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "p": 1, "r": "x", "id": "7"}])
    columns = ASKED.model_copy(update={"source_id": "id"})
    import_logs("table", path, store, columns=columns, now=MONDAY)
    [record] = store.records()
    own = Score(
        record_id=record.record_id,
        kind="performance",
        scorer="exact_match",
        version="1",
        value=0,
        created_at=MONDAY + timedelta(days=1),
    )
    store.add_scores([own])

    report = import_logs("table", path, store, columns=columns, now=MONDAY + timedelta(days=2))

    assert report.n_scores_added == 0
    assert store.to_frame()["performance"].to_list() == [0.0]


def test_import_when_rows_have_no_id_then_known_calls_keep_their_scores(tmp_path, store, write_rows):
    # Two equal calls are told apart by their order alone, which a later export need not keep.
    rows = [{"q": "Q", "m": "a", "p": p, "r": "x"} for p in (1, 0)]
    path = write_rows(tmp_path / "log.jsonl", rows)
    import_logs("table", path, store, columns=ASKED)

    report = import_logs("table", write_rows(path, rows[::-1]), store, columns=ASKED)

    assert (report.n_known, report.n_scores_added) == (2, 0)
    assert len(list(store.scores())) == 2


def test_import_when_an_export_tells_moments_then_each_score_is_added_once(tmp_path, store, write_rows):
    path = write_rows(tmp_path / "log.jsonl", [{"q": "Q", "m": "a", "p": 1, "r": "x", "id": "7"}])
    columns = ASKED.model_copy(update={"source_id": "id"})
    import_logs("table", path, store, columns=columns, now=MONDAY)
    with LogStore.open(":memory:") as other:
        export_logs(store, tmp_path / "first.jsonl")
        import_logs("fusion", tmp_path / "first.jsonl", other)
        [record] = store.records()
        marks = [
            Score(
                record_id=record.record_id,
                kind="feedback",
                scorer="thumbs",
                version="",
                value=value,
                created_at=MONDAY + timedelta(hours=1 + hour),
            )
            for hour, value in enumerate([1, 0, 1])
        ]
        store.add_scores(marks)
        export_logs(store, tmp_path / "second.jsonl")

        reports = [import_logs("fusion", tmp_path / "second.jsonl", other) for _ in range(2)]

        assert [report.n_scores_added for report in reports] == [3, 0]
        assert list(other.scores()) == list(store.scores())
