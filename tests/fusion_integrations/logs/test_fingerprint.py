import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.logs.store import LogStore

COLUMNS = {
    "query_id": pl.String,
    "candidate_id": pl.String,
    "candidate_revision": pl.String,
    "performance": pl.Float64,
    "judge_score": pl.Float64,
    "cost_usd": pl.Float64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
}
ROW = ("q", "m", "", 1.0, 0.5, 0.25, 10, 20)
NUMBERS = st.none() | st.floats(0, 1)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["q", "r"]),
        st.sampled_from(["m", "n"]),
        st.just(""),
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.none() | st.integers(0, 9),
        st.none() | st.integers(0, 9),
    ),
    max_size=8,
)


def _frame(*rows):
    return pl.DataFrame(list(rows), schema=COLUMNS, orient="row")


@given(rows=ROWS, seed=st.integers(0, 9))
def test_fingerprint_when_rows_change_places_then_is_the_same(rows, seed):
    frame = _frame(*rows)

    assert log_fingerprint(frame.sample(fraction=1, shuffle=True, seed=seed)) == log_fingerprint(frame)


@pytest.mark.parametrize("column", range(len(ROW)))
def test_fingerprint_when_a_value_changes_then_differs(column):
    changed = list(ROW)
    changed[column] = "x" if column < 3 else 0

    assert log_fingerprint(_frame(tuple(changed))) != log_fingerprint(_frame(ROW))


def test_fingerprint_when_unknown_becomes_zero_then_differs():
    unknown, zero = (*ROW[:5], None, 10, 20), (*ROW[:5], 0.0, 10, 20)

    assert log_fingerprint(_frame(unknown)) != log_fingerprint(_frame(zero))


def test_fingerprint_when_a_row_repeats_then_differs():
    assert log_fingerprint(_frame(ROW, ROW)) != log_fingerprint(_frame(ROW))


def test_fingerprint_when_texts_run_together_then_differs():
    assert log_fingerprint(_frame(("ab", "c", *ROW[2:]))) != log_fingerprint(_frame(("a", "bc", *ROW[2:])))


def test_fingerprint_when_missing_is_nan_and_zero_is_negative_then_is_the_same():
    first = (*ROW[:4], None, 0.0, 10, 20)
    second = (*ROW[:4], float("nan"), -0.0, 10, 20)

    assert log_fingerprint(_frame(first)) == log_fingerprint(_frame(second))


def test_fingerprint_when_computed_by_another_release_then_is_this():
    # Manifests hold it; computed once with the release that introduced it.
    rows = _frame(ROW, ("q", "n", "v1", None, None, None, None, None))

    assert log_fingerprint(rows) == "968f6be4851e38ae4469a30b5443f9c93bdfe5ecf7e3d3c004ac4aa8ef6d3fae"


def test_fingerprint_when_the_frame_comes_from_a_store_then_is_the_same_however_it_was_filled(
    make_record, make_score
):
    records = [make_record(i) for i in range(5)]
    scores = [make_score(f"r{i}", value=i / 5) for i in range(5)]
    with LogStore.open(":memory:") as one, LogStore.open(":memory:") as other:
        one.add(records, scores)
        other.add(records[::-1])
        other.add_scores(scores[::-1])

        assert log_fingerprint(one.to_frame()) == log_fingerprint(other.to_frame())


def test_fingerprint_when_a_column_is_missing_then_raises():
    with pytest.raises(LogSchemaError, match="no column judge_score"):
        log_fingerprint(_frame(ROW).drop("judge_score"))
