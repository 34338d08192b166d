from types import SimpleNamespace

import numpy as np
import pytest

from fusion_integrations.query_level.query_kinds import hardly_answered, kinds_by_task, kinds_of_queries

N = 100  # queries a kind
KINDS = np.repeat(np.arange(3), N)


class Queries(SimpleNamespace):
    """What is read of a data set: (n, k) performance, NaN where not answered, and n tasks."""

    def __len__(self):
        return len(self.performance)


def test_kinds_are_the_frequent_tasks_and_all_others_together():
    tasks = ["b"] * 8 + [None] + ["a"] * 9 + ["rare"] * 7
    kinds = kinds_by_task(tasks)
    assert kinds.tolist() == [2] * 8 + [0] + [1] * 9 + [0] * 7
    assert set(kinds_by_task(["a"] * 20 + ["rare"] * 7)) == {0}
    assert set(kinds_by_task(["a"] * 8 + ["b"] * 8 + [None] * 20)) == {0}  # the tasks say nothing of most


@pytest.fixture
def asked():
    """2,000 queries of two sorts; the first candidate got all of one sort, or any of both at random."""

    def make(*, share_of_others):
        rng = np.random.default_rng(0)
        sort = np.arange(2000) % 2
        features = (rng.normal(size=(2000, 6)) + 6 * sort[:, None] * [1, 0, 0, 0, 0, 0]).astype(np.float32)
        targets = np.ones((2000, 2), dtype=np.float32)
        share = np.where(sort == 0, 0.5, share_of_others)
        targets[rng.random(2000) >= share, 0] = np.nan
        queries = Queries(performance=targets, tasks=[None] * 2000)
        kinds = kinds_of_queries(queries, lambda: features, n_embedding=2, seed=0)
        return sort, kinds, ~np.isnan(targets)

    return make


def test_kinds_without_tasks_are_those_that_somebody_was_not_asked(asked):
    sort, kinds, answered = asked(share_of_others=0.0)
    hardly = hardly_answered(answered, kinds)
    assert not hardly[:, 1].any()
    assert hardly[kinds, 0][sort == 1].mean() > 0.9
    assert hardly[kinds, 0][sort == 0].mean() < 0.1


def test_kinds_where_chance_chose_are_left_out_by_nobody(asked):
    _, kinds, answered = asked(share_of_others=0.5)
    assert not hardly_answered(answered, kinds).any()


def test_kinds_of_complete_logs_are_one():
    features = np.eye(3, dtype=np.float32)
    queries = Queries(performance=features, tasks=list("abc"))
    kinds = kinds_of_queries(queries, lambda: features, n_embedding=1, seed=0)
    assert kinds.tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_kinds_of_a_handful_of_queries_are_found_too(n):
    targets = np.full((n, 2), np.nan, dtype=np.float32)
    features = np.ones((n, 3), dtype=np.float32)
    queries = Queries(performance=targets, tasks=[None] * n)
    assert kinds_of_queries(queries, lambda: features, n_embedding=1, seed=0).max() == 0


@pytest.mark.parametrize(("n_answers", "hardly"), [(0, True), (9, True), (30, False)])
def test_kind_answered_a_quarter_as_often_as_by_chance_is_hardly_answered(n_answers, hardly):
    # 100 + n answers, of which chance would have a third in each kind.
    answered = np.zeros((3 * N, 1), dtype=np.bool_)
    answered[:N] = True
    answered[N : N + n_answers] = True
    assert hardly_answered(answered, KINDS)[:, 0].tolist() == [False, hardly, True]


def test_thirty_answers_are_not_hardly_any_however_many_there_are_elsewhere():
    answered = np.zeros((3 * 1000, 1), dtype=np.bool_)
    answered[:1000] = answered[2000:] = True
    kinds = np.repeat(np.arange(3), 1000)
    answered[1000:1030] = True
    assert hardly_answered(answered, kinds)[:, 0].tolist() == [False, True, False]
    answered[1030] = True
    assert not hardly_answered(answered, kinds).any()


def test_few_answers_everywhere_leave_no_kind_out():
    answered = np.zeros((3 * N, 1), dtype=np.bool_)
    answered[:20] = True  # by chance 6.7 in each kind: too few to tell
    assert not hardly_answered(answered, KINDS).any()
