"""Stores of older releases, on both kinds of database: told apart, brought up to date, and back."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

import fusion_integrations.logs.migrations
from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs._database import Database
from fusion_integrations.logs.migrations import migrate_store
from fusion_integrations.logs.store import LogStore
from fusion_integrations.logs.tables import METADATA, REVISION, VERSION

FOLDER = Path(fusion_integrations.logs.migrations.__file__).parent

# What release 0.1.0 made, as its databases show it.
FIRST_TABLES = """
CREATE TABLE store_info (schema_version INTEGER NOT NULL);
CREATE TABLE queries (query_id TEXT NOT NULL, messages TEXT NOT NULL, PRIMARY KEY (query_id));
CREATE TABLE records (
    record_no {number}, record_id TEXT NOT NULL, query_id TEXT NOT NULL, task TEXT, reference TEXT,
    metric TEXT, candidate_id TEXT NOT NULL, candidate_revision TEXT NOT NULL, model TEXT NOT NULL,
    prompt_mode TEXT NOT NULL, planned_candidate_id TEXT, response TEXT, error TEXT, finish_reason TEXT,
    input_tokens BIGINT, output_tokens BIGINT, cost_usd {double}, latency_s {double},
    assignment TEXT NOT NULL, propensity {double}, eligible TEXT NOT NULL, session_id TEXT,
    created_at_us BIGINT NOT NULL, source TEXT NOT NULL, source_id TEXT, sample BIGINT NOT NULL,
    PRIMARY KEY (record_no), UNIQUE (record_id), FOREIGN KEY(query_id) REFERENCES queries (query_id)
);
CREATE TABLE scores (
    score_no {number}, record_id TEXT NOT NULL, kind TEXT NOT NULL, scorer TEXT NOT NULL,
    version TEXT NOT NULL, value {double} NOT NULL, reason TEXT NOT NULL,
    created_at_us BIGINT NOT NULL, PRIMARY KEY (score_no),
    FOREIGN KEY(record_id) REFERENCES records (record_id)
);
CREATE INDEX scores_by_record ON scores (record_id);
INSERT INTO store_info VALUES (1);
INSERT INTO queries VALUES (
    '{query_id}', '[{{"content":"What is 0 + 1?","role":"user"}}]'
);
INSERT INTO records (
    record_id, query_id, candidate_id, candidate_revision, model, prompt_mode, response, assignment, eligible,
    created_at_us, source, sample
) VALUES ('r0', '{query_id}', 'small', '', 'small', 'direct', '1', 'unknown', '[]',
    1767355200000000, 'test', 0);
INSERT INTO scores (record_id, kind, scorer, version, value, reason, created_at_us)
VALUES ('r0', 'performance', 'exact_match', '1', 1.0, '', 1767355200000000)
"""


@pytest.fixture
def first_store(location, make_record):
    """A store as release 0.1.0 left it: one record with one score."""
    number, double = ("BIGSERIAL", "DOUBLE PRECISION") if location.startswith("p") else ("INTEGER", "DOUBLE")
    script = FIRST_TABLES.format(number=f"{number} NOT NULL", double=double, query_id=make_record(0).query_id)
    _execute(location, *script.split(";\n"))
    return location


def _execute(location, *statements):
    database = Database.connect(location, create=True, busy_timeout_s=5)
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))
    database.close()


def _tables(location):
    """Describe the tables of a store, and how they differ from those of the code."""
    database = Database.connect(location, create=False, busy_timeout_s=5)
    with database.read() as connection:
        options = {"version_table": VERSION.name, "compare_type": False}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        look = inspect(connection)
        tables = {
            name: (
                [(each["name"], str(each["type"]), each["nullable"]) for each in look.get_columns(name)],
                look.get_pk_constraint(name)["constrained_columns"],
                [(key["constrained_columns"], key["referred_table"]) for key in look.get_foreign_keys(name)],
                sorted((index["name"] or "", index["column_names"]) for index in look.get_indexes(name)),
            )
            for name in look.get_table_names()
        }
    database.close()
    return tables, differences


def test_revision_when_tables_change_then_is_that_of_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    script = ScriptDirectory.from_config(config)

    assert script.get_heads() == [REVISION]


def test_tables_when_made_or_migrated_then_are_those_of_the_code(new_location, first_store):
    fresh = new_location()
    LogStore.open(fresh).close()
    migrate_store(first_store)

    tables, differences = _tables(first_store)

    assert differences == []
    assert (tables, []) == _tables(fresh)


def test_open_when_the_store_is_of_the_first_release_then_is_left_alone_until_asked(
    first_store, make_record, make_score
):
    for _ in range(2):
        with pytest.raises(LogStoreError, match=r"has revision 0001, .* fusion logs migrate"):
            LogStore.open(first_store)

    assert migrate_store(first_store) == ("0001", REVISION)

    with LogStore.open(first_store, create=False) as store:
        assert list(store.records()) == [make_record(0)]
        assert list(store.scores()) == [make_score("r0")]
        assert store.add([make_record(0), make_record(1)]).n_added == 1


def test_migrate_when_done_again_then_changes_nothing(first_store):
    migrate_store(first_store)

    assert migrate_store(first_store) == (REVISION, REVISION)


def test_migrate_when_going_back_and_forth_then_records_stay(location, make_record, make_score):
    with LogStore.open(location) as store:
        store.add([make_record(i) for i in range(3)], [make_score("r1")])

    assert migrate_store(location, revision="0001") == (REVISION, "0001")
    with pytest.raises(LogStoreError, match="has revision 0001"):
        LogStore.open(location)
    assert migrate_store(location) == ("0001", REVISION)

    assert _tables(location)[1] == []
    with LogStore.open(location, create=False) as store:
        assert list(store.records()) == [make_record(i) for i in range(3)]
        assert list(store.scores()) == [make_score("r1")]


@pytest.mark.parametrize("revision", ["9999", "base", "head"])
def test_migrate_when_the_wanted_revision_is_unknown_then_names_those_there_are(location, revision):
    LogStore.open(location).close()

    with pytest.raises(
        LogStoreError, match=rf"Revision '{revision}' of the request is unknown.*0001, {REVISION}"
    ):
        migrate_store(location, revision=revision)

    LogStore.open(location, create=False).close()


def test_migrate_when_the_store_is_newer_then_says_to_upgrade(location):
    LogStore.open(location).close()
    _execute(location, "UPDATE fusion_logs_version SET version_num = '9999'")

    with pytest.raises(
        LogStoreError, match=r"Revision '9999' of '.*' is unknown to this release.* pip install -U"
    ):
        migrate_store(location)


def test_migrate_when_a_step_fails_then_the_store_is_as_before(first_store, make_record):
    # A table of the name that the step drops stands in its way.
    _execute(first_store, "CREATE INDEX records_by_query ON records (record_id)")

    with pytest.raises(LogStoreError, match="already exists"):
        migrate_store(first_store)

    _execute(first_store, "DROP INDEX records_by_query")
    assert migrate_store(first_store) == ("0001", REVISION)


def test_migrate_when_another_writes_then_waits_for_it(location, make_record):
    with (
        LogStore.open(location) as store,
        store._database.write(),
        pytest.raises(LogStoreError, match="busy_timeout_s"),
    ):
        migrate_store(location, busy_timeout_s=0.05)

    assert migrate_store(location, revision="0001") == (REVISION, "0001")


def test_migrate_when_there_is_no_store_then_says_so(new_location, tmp_path):
    with pytest.raises(LogStoreError, match="There is no log store"):
        migrate_store(tmp_path / "absent.sqlite")
    if (location := new_location()).startswith("postgresql"):
        with pytest.raises(LogStoreError, match="is an empty database"):
            migrate_store(location)


def test_migrate_when_several_threads_do_it_then_every_store_arrives(new_location, make_record):
    locations = [new_location() for _ in range(4)]
    for location in locations:
        with LogStore.open(location) as store:
            store.add([make_record(0)])

    def go_back_and_forth(location):
        for revision in ("0001", REVISION) * 3:
            migrate_store(location, revision=revision)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go_back_and_forth, locations))

    for location in locations:
        with LogStore.open(location, create=False) as store:
            assert store.count() == 1
