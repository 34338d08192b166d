import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.benchmark_arena import measurable, prepare_arena

EMBEDDER = HashEmbedder(dimensions=64)


def test_arena_without_a_training_query_that_is_new_is_refused(make_sums_and_prose):
    frame = make_sums_and_prose(10)
    again = frame.with_columns(query_id="other" + pl.col("query_id"))
    with pytest.raises(NotEnoughLogsError, match="every training query is a near-duplicate"):
        prepare_arena(frame, again, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)


def test_arena_keeps_near_duplicates_of_measured_queries_out_of_training(make_sums_and_prose):
    arena = prepare_arena(
        make_sums_and_prose(10),
        make_sums_and_prose(25),
        embedder=EMBEDDER,
        protocol="folds",
        n_folds=3,
        seed=0,
    )
    ((train, test),) = arena.parts
    assert test.sum() == 20
    assert train.sum() == 30  # of 50, the first 20 are the measured ones again
    assert not set(arena.groups[train]) & set(arena.groups[test])


def test_arena_of_tasks_and_families_leaves_each_out_once(make_sums_and_prose):
    frame = make_sums_and_prose(10, families=True)
    by_task = prepare_arena(frame, None, embedder=EMBEDDER, protocol="tasks", n_folds=3, seed=0)
    by_family = prepare_arena(frame, None, embedder=EMBEDDER, protocol="families", n_folds=3, seed=0)
    assert (len(by_task.parts), len(by_family.parts)) == (4, 2)
    assert by_family.split == "each task family predicted from all others"


def test_arena_keeps_sessions_together_in_folds_and_intervals(make_sums_and_prose):
    frame = make_sums_and_prose(20)
    number = pl.col("query_id").str.extract(r"(\d+)$").cast(pl.Int64)
    frame = frame.with_columns(session_id=pl.format("s{}", number // 2))  # two sums, two proses
    arena = prepare_arena(frame, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    assert len(set(arena.groups)) == 10
    for train, test in arena.parts:
        assert not set(arena.groups[train]) & set(arena.groups[test])
    assert arena.split == "2 folds, sessions and near-duplicates together"


def test_outcomes_when_half_of_the_queries_are_complete_are_looked_up(make_sums_and_prose):
    frame = make_sums_and_prose(10)
    dropped = frame.filter(~((pl.col("candidate_id") == "a") & (pl.col("task") == "sums")))
    arena = prepare_arena(dropped, None, embedder=EMBEDDER, protocol="folds", n_folds=3, seed=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=np.zeros((20, 2)))
    assert (measured.sum(), is_estimated) == (10, False)
    assert outcomes is arena.dataset


def test_outcomes_of_partial_logs_are_estimated_by_the_share_of_measured_answers(make_sums_and_prose):
    # Measured: `a` answered 10 of 20 queries; training answers, complete, must not make that likelier.
    frame = make_sums_and_prose(10)
    kept = (pl.col("candidate_id") == "a") == (pl.col("task") == "sums")
    other = make_sums_and_prose(25).with_columns(query_text=pl.col("query_text") + " unseen")
    arena = prepare_arena(frame.filter(kept), other, embedder=EMBEDDER, protocol="folds", n_folds=3, seed=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=np.full((70, 2), 0.5, dtype=np.float32))
    assert (measured.sum(), is_estimated) == (20, True)
    of_a = outcomes.performance[measured][:, 0]
    # Answered (all solved): 0.5 + (1 - 0.5) / 0.5; else as predicted.
    assert sorted(of_a.tolist()) == [0.5] * 10 + [1.5] * 10
    assert outcomes.cost_usd[measured].tolist() == [[1.0, 2.0]] * 20


@pytest.mark.parametrize("has_tasks", [True, False])
def test_estimates_go_by_how_often_a_candidate_was_asked_that_kind_of_query(make_sums_and_prose, has_tasks):
    # b was asked 95 of 100 sums and no prose: each of its answers stands for 1 / 0.95 sums, not for two.
    frame = make_sums_and_prose(100).filter(
        (pl.col("candidate_id") == "a")
        | ((pl.col("task") == "sums") & (pl.col("query_id").str.extract(r"(\d+)$").cast(pl.Int64) % 20 > 0))
    )
    if not has_tasks:
        frame = frame.with_columns(task=pl.lit(None, dtype=pl.String))
    arena = prepare_arena(frame, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    outcomes, measured, is_estimated = measurable(arena, predicted=np.full((200, 2), 0.5, dtype=np.float32))
    assert (measured.sum(), is_estimated) == (200, True)
    answered = outcomes.performance[~np.isnan(arena.dataset.performance[:, 1]), 1]
    np.testing.assert_allclose(answered.mean(), 0.5 - 0.5 / 0.95, atol=0.06)  # none of them was solved


def test_complete_logs_are_measured_without_an_embedding(make_sums_and_prose):
    class Unused:
        identity = EMBEDDER.identity

    arena = prepare_arena(
        make_sums_and_prose(20), None, embedder=Unused(), protocol="folds", n_folds=2, seed=0
    )
    assert [kinds.max() for kinds in arena.training_kinds] == [0, 0]


def test_outcomes_when_a_cost_was_never_logged_stay_unknown(make_sums_and_prose, keep_one_answer):
    frame = make_sums_and_prose(10, costs=(1.0, None))
    arena = prepare_arena(
        keep_one_answer(frame), None, embedder=EMBEDDER, protocol="folds", n_folds=3, seed=0
    )
    outcomes, _, _ = measurable(arena, predicted=np.full((20, 2), 0.5, dtype=np.float32))
    assert np.isnan(outcomes.cost_usd).all(axis=0).tolist() == [False, True]


def test_arena_when_few_costs_are_known_measures_complete_performance_alone(make_sums_and_prose):
    frame = make_sums_and_prose(10)
    is_hidden = (pl.col("candidate_id") == "a") & (pl.int_range(pl.len()) > 15)
    few = frame.with_columns(cost_usd=pl.when(~is_hidden).then(pl.col("cost_usd")))
    arena = prepare_arena(few, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    _, measured, is_estimated = measurable(arena, predicted=np.zeros((20, 2)))
    assert list(arena.policies) == ["performance-first"]
    assert (measured.sum(), is_estimated) == (20, False)
    whole = prepare_arena(frame, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    assert len(whole.policies) > 1
