import dataclasses

import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.benchmark_arena import prepare_arena
from fusion_integrations.evaluation.cross_validation import CURVE_WEIGHTS, route_by_others

EMBEDDER = HashEmbedder(dimensions=64)


def route(arena, **changed):
    return route_by_others("cluster", dataclasses.replace(arena, **changed), n_threads=1)


def test_queries_are_routed_by_routers_that_have_not_seen_them(make_sums_and_prose):
    frame = make_sums_and_prose(20)
    arena = prepare_arena(frame, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    both = route(arena)
    assert not np.isnan(both.predicted).any()
    assert (both.se >= 0).all()
    assert {name: set(chosen.tolist()) <= {0, 1} for name, chosen in both.chosen.items()} == {
        "performance-first": True,
        "balance": True,
        "cost-first": True,
    }
    assert both.curve.shape == (len(CURVE_WEIGHTS), 40)
    assert both.curve[0].tolist() == both.predicted.argmax(axis=1).tolist()  # performance alone, no margin
    train, test = arena.parts[0]
    # What the routers are told of the predicted queries does not matter: all of it is changed here.
    changed = frame.with_columns(
        pl.when(pl.col("query_id").is_in(list(np.array(arena.dataset.query_ids)[test])))
        .then(1 - pl.col("performance"))
        .otherwise(pl.col("performance"))
        .alias("performance")
    )
    one = route(arena, parts=[(train, test)], frame=changed)
    np.testing.assert_array_equal(one.predicted[test], both.predicted[test])
    assert np.isnan(one.predicted[train]).all()
    assert set(one.chosen["balance"][train].tolist()) == {-1}


def test_routers_that_know_no_cost_have_no_curve(make_sums_and_prose):
    arena = prepare_arena(
        make_sums_and_prose(20, costs=(None, None)),
        None,
        embedder=EMBEDDER,
        protocol="folds",
        n_folds=2,
        seed=0,
    )
    found = route(arena)
    assert found.curve.shape == (0, 40)


def test_part_whose_training_answers_are_of_one_candidate_is_refused(make_sums_and_prose):
    frame = make_sums_and_prose(20)
    only_prose = frame.filter((pl.col("candidate_id") == "a") | (pl.col("task") == "prose"))
    arena = prepare_arena(only_prose, None, embedder=EMBEDDER, protocol="tasks", n_folds=2, seed=0)
    with pytest.raises(NotEnoughLogsError, match=r"only \['a'\] has answers"):
        route(arena)
