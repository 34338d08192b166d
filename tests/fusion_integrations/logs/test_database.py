"""What `LogStore.open` refuses, and how the store answers when the database under it fails."""

import math
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from fusion_integrations.errors import InvalidPolicyError, LogStoreError
from fusion_integrations.logs.store import LogStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs.sqlite"


@pytest.fixture
def filled(path, make_record, make_score):
    """Path of a closed store of 200 records."""
    with LogStore.open(path) as store:
        store.add([make_record(i) for i in range(200)], [make_score(f"r{i}") for i in range(200)])
    return path


def _run(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_open_when_file_is_absent_and_not_to_be_made_then_raises_and_makes_none(path):
    with pytest.raises(LogStoreError, match=r"There is no log store at '.*logs.sqlite'"):
        LogStore.open(path, create=False)

    assert not path.exists()


def test_open_when_folder_is_absent_then_names_it(tmp_path):
    with pytest.raises(LogStoreError, match=r"the folder '.*nowhere' does not exist"):
        LogStore.open(tmp_path / "nowhere" / "logs.sqlite")


def test_open_when_path_is_a_folder_then_raises(tmp_path):
    with pytest.raises(LogStoreError, match="is a folder"):
        LogStore.open(tmp_path)


def test_open_when_path_leads_through_a_file_then_raises(filled):
    with pytest.raises(LogStoreError, match="cannot be reached: Not a directory"):
        LogStore.open(filled / "logs.sqlite")


def test_open_when_file_is_no_database_then_raises_and_leaves_it(path):
    path.write_bytes(b"This is a letter, not a database.\n" * 100)
    before = path.read_bytes()

    with pytest.raises(LogStoreError, match=r"logs.sqlite' failed: file is not a database. Pass the path"):
        LogStore.open(path)

    assert path.read_bytes() == before


def test_open_when_database_is_somebody_elses_then_raises_and_leaves_it(path):
    _run(path, "CREATE TABLE invoices (id INTEGER)")
    before = path.read_bytes()

    with pytest.raises(LogStoreError, match="a database but not a log store: it has the tables invoices"):
        LogStore.open(path)

    assert path.read_bytes() == before


def test_open_when_file_is_empty_then_makes_a_store_only_if_asked(path):
    path.touch()

    with pytest.raises(LogStoreError, match="is an empty database, not a log store"):
        LogStore.open(path, create=False)
    with LogStore.open(path) as store:
        assert store.stats().n_records == 0


def test_open_when_store_is_newer_then_names_both_versions_and_the_remedy(filled):
    _run(filled, "UPDATE fusion_logs_version SET version_num = '9999'")

    with pytest.raises(LogStoreError, match=r"has revision 9999, this release reads revision \d+. Upgrade"):
        LogStore.open(filled)


def test_open_when_store_is_older_then_names_both_versions_and_the_remedy(filled):
    _run(filled, "UPDATE fusion_logs_version SET version_num = '0001'")

    with pytest.raises(
        LogStoreError, match=r"has revision 0001, .* up to date: fusion logs migrate '.*sqlite'"
    ):
        LogStore.open(filled)


def test_open_when_revision_is_gone_then_says_damaged(filled):
    _run(filled, "DELETE FROM fusion_logs_version")

    with pytest.raises(LogStoreError, match="is damaged: its revision reads"):
        LogStore.open(filled)


def test_open_when_file_was_cut_then_raises(filled):
    content = filled.read_bytes()
    filled.write_bytes(content[: len(content) // 2])

    with pytest.raises(LogStoreError, match="malformed"), LogStore.open(filled) as store:
        list(store.records())


def test_open_when_pages_were_overwritten_then_raises(filled):
    content = bytearray(filled.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    filled.write_bytes(content)

    with pytest.raises(LogStoreError, match="malformed"), LogStore.open(filled) as store:
        store.to_frame()


def test_records_when_a_row_was_changed_into_nonsense_then_names_it(filled):
    _run(filled, "UPDATE records SET propensity = 7 WHERE record_id = 'r3'")

    with LogStore.open(filled) as store, pytest.raises(LogStoreError, match="damaged at record 'r3'"):
        list(store.records())


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("mysql://host/logs", "cannot live in 'mysql'. Known: sqlite, postgresql"),
        ("nonsense://host/logs", "cannot live in 'nonsense'"),
        ("://", "cannot be parsed"),
        ("sqlite:///logs.sqlite?mode=ro", "has options"),
        ("postgresql+asyncpg://host/logs", "use the driver psycopg, not 'postgresql\\+asyncpg'"),
    ],
)
def test_open_when_url_is_unusable_then_says_why(tmp_path, monkeypatch, location, reason):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(LogStoreError, match=reason):
        LogStore.open(location)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("timeout_s", [-1, math.nan, math.inf])
def test_open_when_timeout_is_out_of_range_then_raises(timeout_s):
    with pytest.raises(InvalidPolicyError, match="busy_timeout_s must be a finite number >= 0"):
        LogStore.open(":memory:", busy_timeout_s=timeout_s)


def test_add_when_locked_past_the_timeout_then_says_what_to_do_and_works_later(filled, make_record):
    with closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with LogStore.open(filled, busy_timeout_s=0.05) as store:
            with pytest.raises(
                LogStoreError, match=r"logs.sqlite' failed: database is locked.*busy_timeout_s"
            ):
                store.add([make_record(1000)])
            assert store.stats().n_records == 200  # reading does not wait for the writer
            other.execute("ROLLBACK")

            assert store.add([make_record(1000)]).n_added == 1


def test_store_when_written_then_is_durable_and_consistent_by_its_settings(path):
    with LogStore.open(path) as store, store._database.read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }

    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL


FULL_DISK = """
import resource, sys
from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs import LogRecord, LogStore, Score
from datetime import UTC, datetime

now = datetime.now(UTC)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
with LogStore.open(sys.argv[1]) as store:
    try:
        for batch in range(1000):
            records = [
                LogRecord(record_id=f"{batch}-{i}", messages=[{"role": "user", "content": f"{batch}-{i}"}],
                          candidate_id="m", response="x" * 500, created_at=now, source="test")
                for i in range(20)
            ]
            store.add(records, [Score(record_id=r.record_id, kind="judge", scorer="s", version="", value=1,
                                      created_at=now) for r in records])
            print(batch, flush=True)
    except LogStoreError as error:
        print(error, store.stats().n_records, sep="\\n")
"""


def test_add_when_the_disk_is_full_then_the_batch_is_undone_and_the_store_stays_whole(path, start_python):
    output, errors = start_python(FULL_DISK, path).communicate()

    *acknowledged, message, n_records = output.splitlines()
    assert "disk I/O error" in message or "disk is full" in message, errors
    assert "nothing is half written" in message
    assert 0 < len(acknowledged) < 1000
    assert int(n_records) == 20 * len(acknowledged)  # still readable by the process that failed
    with LogStore.open(path, create=False) as store:
        ids = [record.record_id for record in store.records()]
        assert ids == [f"{batch}-{i}" for batch in range(len(acknowledged)) for i in range(20)]
        assert [score.record_id for score in store.scores()] == ids


READ_ONLY = """
import os, sys
from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs import LogStore
from fusion_integrations.logs.schema import Score
from datetime import UTC, datetime

if os.geteuid() == 0:
    os.setuid(65534)  # root may write everything
try:
    with LogStore.open(sys.argv[1]) as store:
        print(store.stats().n_records)
        now = datetime.now(UTC)
        score = Score(record_id="r0", kind="judge", scorer="s", version="", value=1, created_at=now)
        store.add_scores([score])
except LogStoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("folder_mode", "expected"),
    [
        (0o777, ["200", "attempt to write a readonly database. This user may not write there."]),
        (0o555, ["attempt to write a readonly database. This user may not write there."]),
    ],
)
def test_store_when_read_only_then_says_so(filled, start_python, folder_mode, expected):
    # Not under tmp_path, whose parents only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "logs.sqlite"
        shutil.copy(filled, target)
        target.chmod(0o444)
        Path(folder).chmod(folder_mode)

        output, errors = start_python(READ_ONLY, target).communicate()

        Path(folder).chmod(0o700)
    lines = output.splitlines()
    assert len(lines) == len(expected), errors
    assert all(part in line for part, line in zip(expected, lines, strict=True)), output
