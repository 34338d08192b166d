import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_integrations.errors import LogSchemaError, LogStoreError
from fusion_integrations.logs.frame import LOG_SCHEMA, load_logs, records_from_frame, write_parquet
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.logs.store import LogStore


@pytest.fixture
def frame(make_record, make_score):
    with LogStore.open(":memory:") as store:
        store.add([make_record(i) for i in range(3)], [make_score("r1", value=0.5)])
        return store.to_frame()


def test_schema_when_the_record_has_fields_then_has_a_column_for_each():
    extra = {"query_text", "performance", "judge_score", "feedback"}

    assert set(LOG_SCHEMA) == set(LogRecord.model_fields) | extra


@settings(max_examples=25)
@given(data=st.data())
def test_logs_when_exported_and_loaded_then_are_equal(any_record, data, tmp_path_factory):
    records = data.draw(st.lists(any_record, max_size=3, unique_by=lambda record: record.record_id))
    path = tmp_path_factory.mktemp("export") / "logs.parquet"
    with LogStore.open(":memory:") as store:
        store.add(records)
        frame = store.to_frame()

    write_parquet(frame, path)

    assert load_logs(path).equals(frame)
    assert [record for record, _ in records_from_frame(frame)] == records


def test_load_logs_when_given_a_store_then_is_its_frame(tmp_path, make_record):
    path = tmp_path / "logs.sqlite"
    with LogStore.open(path) as store:
        store.add([make_record(0)])
        frame = store.to_frame()

    assert load_logs(path).equals(frame)
    assert load_logs(f"sqlite:///{path}").equals(frame)


def test_load_logs_when_columns_are_in_another_order_then_puts_them_right(tmp_path, frame):
    path = tmp_path / "logs.parquet"
    frame.select(reversed(frame.columns)).write_parquet(path)

    assert load_logs(path).equals(frame)


def test_load_logs_when_the_store_is_absent_then_raises_and_makes_none(tmp_path):
    with pytest.raises(LogStoreError, match="There is no log store"):
        load_logs(tmp_path / "logs.sqlite")

    assert not list(tmp_path.iterdir())


def test_load_logs_when_the_file_holds_another_table_then_names_the_columns(tmp_path, frame):
    path = tmp_path / "logs.parquet"
    frame.drop("task").with_columns(pl.col("sample").cast(pl.Int32), spam=1).write_parquet(path)

    problem = "'task' is missing; 'spam' is unknown; 'sample' is Int32 instead of Int64"
    with pytest.raises(LogSchemaError, match=problem):
        load_logs(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(1000), b"a,b\n1,2\n"])
def test_load_logs_when_the_file_is_no_parquet_then_raises(tmp_path, content):
    path = tmp_path / "logs.parquet"
    path.write_bytes(content)

    with pytest.raises(LogSchemaError, match="cannot be read as Parquet"):
        load_logs(path)


def test_load_logs_when_the_parquet_file_was_cut_then_raises(tmp_path, frame):
    path = tmp_path / "logs.parquet"
    write_parquet(frame, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(LogSchemaError, match="cannot be read as Parquet"):
        load_logs(path)


def test_load_logs_when_the_parquet_file_is_absent_then_raises(tmp_path):
    with pytest.raises(LogSchemaError, match="cannot be read as Parquet"):
        load_logs(tmp_path / "logs.parquet")


def test_write_parquet_when_the_file_exists_then_replaces_it_and_leaves_nothing_else(tmp_path, frame):
    path = tmp_path / "logs.parquet"
    write_parquet(frame, path)

    write_parquet(frame.head(1), path)

    assert load_logs(path).height == 1
    assert [file.name for file in tmp_path.iterdir()] == ["logs.parquet"]


def test_write_parquet_when_the_target_is_a_folder_then_raises_and_leaves_nothing_else(tmp_path, frame):
    target = tmp_path / "logs.parquet"
    target.mkdir()

    with pytest.raises(LogStoreError, match=r"logs.parquet' could not be written: .*directory"):
        write_parquet(frame, target)

    assert list(tmp_path.iterdir()) == [target]


def test_write_parquet_when_the_folder_is_absent_then_raises(tmp_path, frame):
    with pytest.raises(LogStoreError, match="could not be written"):
        write_parquet(frame, tmp_path / "nowhere" / "logs.parquet")


def test_write_parquet_when_columns_are_missing_then_raises_and_writes_nothing(tmp_path, frame):
    with pytest.raises(LogSchemaError, match="'response' is missing"):
        write_parquet(frame.drop("response"), tmp_path / "logs.parquet")

    assert not list(tmp_path.iterdir())


FULL_DISK = """
import resource, sys
import polars as pl
from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs import load_logs, write_parquet

frame = load_logs(sys.argv[1])
frame = pl.concat([frame.with_columns(record_id=pl.col("record_id") + str(i)) for i in range(3000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    write_parquet(frame, sys.argv[1])
except LogStoreError as error:
    print(error)
"""


def test_write_parquet_when_the_disk_is_full_then_the_old_file_stays(tmp_path, frame, start_python):
    path = tmp_path / "logs.parquet"
    write_parquet(frame, path)

    output, errors = start_python(FULL_DISK, path).communicate()

    assert "logs.parquet' could not be written" in output, errors
    assert load_logs(path).equals(frame)
    assert [file.name for file in tmp_path.iterdir()] == ["logs.parquet"]


def test_records_from_frame_when_scored_then_gives_the_scores_too(frame, make_record):
    pairs = list(records_from_frame(frame))

    assert [record for record, _ in pairs] == [make_record(i) for i in range(3)]
    assert [[(score.record_id, score.kind, score.value) for score in scores] for _, scores in pairs] == [
        [],
        [("r1", "performance", 0.5)],
        [],
    ]


@pytest.mark.parametrize(
    "change", [{"propensity": 2.0}, {"messages": None}, {"messages": "[7]"}, {"source": ""}]
)
def test_records_from_frame_when_a_row_is_no_record_then_names_it(frame, change):
    name, value = next(iter(change.items()))
    changed = frame.with_columns(
        pl.when(pl.col("record_id") == "r1")
        .then(pl.lit(value, LOG_SCHEMA[name]))
        .otherwise(pl.col(name))
        .alias(name)
    )

    with pytest.raises(LogSchemaError, match="Row 1 of the table is no valid log record"):
        list(records_from_frame(changed))
