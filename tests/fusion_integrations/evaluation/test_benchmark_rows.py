import dataclasses

import numpy as np
import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.evaluation.benchmark_arena import prepare_arena
from fusion_integrations.evaluation.benchmark_rows import Scoreboard
from fusion_integrations.evaluation.cross_validation import RoutedQueries

# Five sums, which only `a` solves, and five prose, which only `b` does; calls cost 1 and 2 USD.

EMBEDDER = HashEmbedder(dimensions=64)


@pytest.fixture
def board(make_sums_and_prose):
    arena = prepare_arena(
        make_sums_and_prose(5), None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0
    )
    everything = np.ones(10, dtype=np.bool_)
    # One part that learns from all and is measured on all, so that Best Single is the same everywhere.
    arena = dataclasses.replace(arena, parts=[(everything, everything)])
    return Scoreboard(
        arena=arena, outcomes=arena.dataset, measured=everything, is_estimated=False, level=0.95
    )


@pytest.fixture
def routed(board):
    """A head that expects the truth, but sends one prose query to `a` all the same."""
    performance = board.arena.dataset.performance
    chosen = performance.argmax(axis=1)
    wrong = int(np.flatnonzero(chosen == 1)[0])
    chosen[wrong] = 0
    return RoutedQueries(
        predicted=performance.copy(),
        se=np.zeros_like(performance),
        chosen=dict.fromkeys(board.arena.policies, chosen),
        switched=chosen == 1,
        curve=np.stack([chosen, np.zeros(10, dtype=np.intp)]),
        seconds=2.0,
        n_members=5,
        head_names=("cluster", "stack", "stack"),
    )


def test_head_row_holds_the_numbers_worked_by_hand(board, routed):
    row = board.head_row("ours", routed)
    # 9 of 10 solved; 6 calls of 1 USD and 4 of 2 USD.
    assert (row.first.performance, row.first.cost_usd) == (pytest.approx(0.9), pytest.approx(1.4))
    assert row.first.gain.mean == pytest.approx(0.4)  # Best Single solves half
    # balance: 0.5 p - 0.5 c / 2 USD = 0.45 - 0.35; Best Single, `a`, has 0.25 - 0.25.
    assert row.scenarios["balance"].reward == pytest.approx(0.1)
    assert row.scenarios["balance"].gain.mean == pytest.approx(0.1)
    assert row.per_task == {"prose": pytest.approx(0.8), "sums": pytest.approx(1.0)}
    assert row.candidate_shares == {"a": pytest.approx(0.6), "b": pytest.approx(0.4)}


def test_head_details_hold_the_numbers_worked_by_hand(board, routed):
    details = board.head_row("ours", routed).head
    assert details.switch_share == pytest.approx(0.4)
    assert details.unbounded.performance == 1.0  # it expects the truth
    assert (details.mse, details.train_seconds) == (0.0, 2.0)
    # The curve's two choices, then the choice under the first policy.
    assert details.cost_quality.points == (
        (pytest.approx(1.4), pytest.approx(0.9)),
        (1.0, 0.5),
        (pytest.approx(1.4), pytest.approx(0.9)),
    )
    # Budgets from 1 to 2 USD: from 0.5 to 0.9 over 0.4 USD, then 0.9: 0.4 * 0.7 + 0.6 * 0.9.
    assert details.cost_quality.aiq == pytest.approx(0.82)
    assert details.cost_quality.cost_at_best_single == pytest.approx(1.0)  # `a` itself has it for 1 USD
    # On sums every call of `a` helps and on prose every one of `b`, all alike: as good as random.
    assert {name: pair.apgr for name, pair in details.pairs.items()} == {
        "prose": pytest.approx(0.5),
        "sums": pytest.approx(0.5),
    }
    data = details.to_json()
    assert data["calibration_error"] == pytest.approx(0.0)
    assert data["switch_share"] == pytest.approx(0.4)
    assert data["head_names"] == {"cluster": 1, "stack": 2}
    assert details.title("auto") == "auto (stack 2, cluster 1)"


def test_rows_are_measured_on_the_measured_queries_alone(board, routed):
    prose = np.array([task == "prose" for task in board.arena.dataset.tasks])
    row = dataclasses.replace(board, measured=prose).head_row("ours", routed)
    assert row.first.performance == pytest.approx(0.8)
    assert row.per_task == {"prose": pytest.approx(0.8)}
    assert sum(each.n for each in row.head.reliability) == 10


def test_baselines_when_outcomes_are_estimated_lack_the_oracle(board):
    names = [row.strategy for row in board.baseline_rows()]
    assert names == ["Random", "Best Single", "Best per Task", "Oracle"]
    estimated = dataclasses.replace(board, is_estimated=True)
    assert [row.strategy for row in estimated.baseline_rows()] == names[:3]


def test_shown_queries_are_first_those_whose_choice_changed_most(board, routed):
    shown = board.query_outcomes({"ours": routed}, n_shown=6)
    # Best Single is `a`; the four queries that went to `b` gained, the others changed nothing.
    assert [query.chosen["ours"] for query in shown] == ["b"] * 4 + ["a"] * 2
    assert shown[0].performance == {"a": 0.0, "b": 1.0}
    assert len(board.query_outcomes({"ours": routed}, n_shown=99)) == 10


@pytest.mark.parametrize("has_tasks", [True, False])
def test_best_single_is_not_who_answered_easy_queries_only(make_sums_and_prose, has_tasks):
    # On sums b is worse than a; it was never asked for prose, where all are bad, so its mean is the best.
    scores = pl.when(pl.col("task") == "prose").then(0.3).when(pl.col("candidate_id") == "a").then(0.9)
    frame = make_sums_and_prose(100).filter((pl.col("candidate_id") == "a") | (pl.col("task") == "sums"))
    frame = frame.with_columns(performance=scores.otherwise(0.8))
    if not has_tasks:
        frame = frame.with_columns(task=pl.lit(None, dtype=pl.String))
    arena = prepare_arena(frame, None, embedder=EMBEDDER, protocol="folds", n_folds=2, seed=0)
    everything = np.ones(200, dtype=np.bool_)
    expected = np.where(np.isnan(arena.dataset.performance), 0.2, arena.dataset.performance)
    outcomes = dataclasses.replace(arena.dataset, performance=expected, cost_usd=np.ones((200, 2)))
    board = Scoreboard(arena=arena, outcomes=outcomes, measured=everything, is_estimated=True, level=0.95)
    single = next(row for row in board.baseline_rows() if row.strategy == "Best Single")
    assert single.candidate_shares == {"a": 1.0, "b": 0.0}
