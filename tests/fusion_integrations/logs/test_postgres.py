"""What only a server can do to a store: be away, refuse, restart, keep others waiting."""

import socket
import threading

import pytest
from sqlalchemy import create_engine

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs.filters import LogFilter
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Message


@pytest.fixture
def sql(postgres_url):
    """Run a statement as an administrator and return the rows it gives."""
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))

    def run(statement):
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return result.fetchall() if result.returns_rows else []

    yield run
    engine.dispose()


HANG_UP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
)


def _remove_all_interrupted(store, sql):
    with store._database.write() as connection:
        connection.exec_driver_sql("DELETE FROM records")
        sql(HANG_UP)
        connection.exec_driver_sql("DELETE FROM queries")


def _schema(url):
    return url.rpartition("%3D")[2]


def test_text_when_it_holds_nul_and_the_escape_character_then_comes_back(
    new_postgres, make_record, make_score
):
    text = "a\0b\x1ac\x1a0\x1a1\0"
    record = make_record(response=text, task=text, messages=(Message(role="user", content=text),))
    score = make_score(reason=text)
    with LogStore.open(new_postgres()) as store:
        store.add([record], [score])

        assert list(store.records()) == [record]
        assert list(store.scores()) == [score]
        assert store.to_frame()["response"].to_list() == [text]


def test_open_when_no_server_listens_then_says_so_without_the_password():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://somebody:s3cret@127.0.0.1:{free.getsockname()[1]}/logs"

        with pytest.raises(
            LogStoreError, match=r"somebody:\*\*\*@.* failed: .* Check that the server runs"
        ) as caught:
            LogStore.open(url)

    assert "s3cret" not in str(caught.value)


def test_compact_when_an_older_transaction_is_open_then_says_that_the_text_may_still_be_there(
    new_postgres, make_record
):
    with LogStore.open(new_postgres()) as elsewhere, LogStore.open(new_postgres()) as store:
        store.add([make_record(0, source="old"), make_record(1)])
        with elsewhere._database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM records").scalar() == 0
            store.remove(LogFilter(sources=["old"]))

            with pytest.raises(LogStoreError, match="may still be in its files: 1 transactions were open"):
                store.compact()

        store.compact()
        assert store.count() == 1


def test_compact_when_the_user_does_not_own_the_tables_then_says_so(new_postgres, sql, make_record):
    url = new_postgres()
    with LogStore.open(url) as store:
        store.add([make_record(0)])
    sql("DO $$ BEGIN CREATE ROLE helper LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    sql(f"GRANT USAGE ON SCHEMA {_schema(url)} TO helper")
    sql(f"GRANT ALL ON ALL TABLES IN SCHEMA {_schema(url)} TO helper")

    with (
        LogStore.open(url.replace("postgres@", "helper@"), create=False) as store,
        pytest.raises(LogStoreError, match="only the owner of its tables can compact them"),
    ):
        store.compact()


def test_open_when_the_schema_is_missing_then_says_to_create_it(postgres_url):
    with pytest.raises(LogStoreError, match="Create the schema that its search_path names first"):
        LogStore.open(f"{postgres_url}?options=-csearch_path%3Dnowhere")


def test_open_when_the_timeout_is_immense_then_waits_as_long_as_can_be(new_postgres):
    with LogStore.open(new_postgres(), busy_timeout_s=1e9) as store, store._database.read() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "2147483647ms"


def test_open_when_the_database_is_missing_then_says_to_create_it(postgres_url):
    with pytest.raises(LogStoreError, match=r'database "nowhere" does not exist.*has to be created first'):
        LogStore.open(postgres_url.removesuffix("/postgres") + "/nowhere")


def test_open_when_the_schema_holds_other_tables_then_raises_and_leaves_them(new_postgres, sql):
    url = new_postgres()
    sql(f"CREATE TABLE {_schema(url)}.invoices (id INTEGER)")

    with pytest.raises(LogStoreError, match="not a log store: it has the tables invoices"):
        LogStore.open(url)

    tables = sql("SELECT schemaname FROM pg_tables WHERE tablename = 'fusion_logs_version'")
    assert _schema(url) not in {schema for (schema,) in tables}


def test_open_when_there_is_no_store_and_none_may_be_made_then_raises(new_postgres):
    with pytest.raises(LogStoreError, match="is an empty database, not a log store"):
        LogStore.open(new_postgres(), create=False)


def test_open_when_the_user_may_not_create_tables_then_says_so(new_postgres, sql):
    url = new_postgres()
    sql("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    sql(f"GRANT USAGE ON SCHEMA {_schema(url)} TO guest")

    with pytest.raises(LogStoreError, match=r"permission denied .* This user lacks the right"):
        LogStore.open(url.replace("postgres@", "guest@"))


def test_add_when_another_writes_past_the_timeout_then_says_what_to_do_and_works_later(
    new_postgres, make_record
):
    url = new_postgres()
    with LogStore.open(url) as other, LogStore.open(url, busy_timeout_s=0.05) as store:
        with other._database.write():
            with pytest.raises(LogStoreError, match=r"lock timeout.*busy_timeout_s"):
                store.add([make_record(0)])
            assert store.stats().n_records == 0  # reading does not wait for the writer

        assert store.add([make_record(0)]).n_added == 1


def test_write_when_others_write_elsewhere_then_does_not_wait(new_postgres, make_record):
    with (
        LogStore.open(new_postgres()) as other,
        LogStore.open(new_postgres(), busy_timeout_s=0.05) as store,
        other._database.write(),
    ):
        assert store.add([make_record(0)]).n_added == 1


def test_store_when_the_server_ended_its_connections_then_the_next_call_connects_anew(
    new_postgres, sql, make_record
):
    with LogStore.open(new_postgres()) as store:
        sql(HANG_UP)

        assert store.add([make_record(0)]).n_added == 1


def test_add_when_the_connection_breaks_in_between_then_raises_and_nothing_is_stored(
    new_postgres, sql, make_record
):
    with LogStore.open(new_postgres()) as store:
        store.add([make_record(0)])
        with pytest.raises(LogStoreError, match=r"nothing is half written. Try again"):
            _remove_all_interrupted(store, sql)

        assert store.stats().n_records == 1


def test_store_when_the_server_trades_durability_for_speed_then_does_not(new_postgres, sql):
    sql("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        with LogStore.open(new_postgres()) as store, store._database.read() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "repeatable read"
    finally:
        sql("ALTER ROLE postgres RESET synchronous_commit")


def test_records_when_writers_add_meanwhile_then_a_reader_misses_none(new_postgres, make_record):
    url = new_postgres()
    # Two writers whose transactions overlap; numbers must come in the order of the commits.
    with LogStore.open(url) as first, LogStore.open(url) as second, LogStore.open(url) as reader:
        start = threading.Barrier(2)

        def write(store, offset):
            start.wait()
            for i in range(40):
                store.add([make_record(offset + i)])

        threads = [threading.Thread(target=write, args=(s, o)) for s, o in ((first, 0), (second, 1000))]
        for thread in threads:
            thread.start()
        seen: list[str] = []
        while any(thread.is_alive() for thread in threads):
            ids = [record.record_id for record in reader.records()]
            assert (
                ids[: len(seen)] == seen
            )  # what was there is still the beginning: nothing came in before it
            seen = ids
        for thread in threads:
            thread.join()

        assert reader.stats().n_records == 80
