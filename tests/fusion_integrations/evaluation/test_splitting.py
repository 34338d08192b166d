import numpy as np
import pytest

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.evaluation.splitting import hide_answers, split_queries

GROUPS = ["a", "a", "b", "c", "d", "e"]
TASKS = ["math/1", "math/2", "prose/1", None, "prose/2", "math/1"]


def parts(protocol, **changes):
    settings = {"groups": GROUPS, "tasks": TASKS, "n_folds": 2, "seed": 0} | changes
    return list(split_queries(protocol, **settings))


def test_folds_predict_every_query_once_and_keep_groups_together():
    found = parts("folds")
    assert np.sum([test for _, test in found], axis=0).tolist() == [1] * 6
    for train, test in found:
        assert (train == ~test).all()
        assert test[0] == test[1]


def test_tasks_are_predicted_from_all_others_without_their_near_duplicates():
    found = parts("tasks")
    assert len(found) == 4  # math/1, math/2, prose/1, prose/2
    train, test = found[0]
    assert test.tolist() == [True, False, False, False, False, True]
    # Query 1 is a near-duplicate of query 0; the query without a task may be learned from.
    assert train.tolist() == [False, False, True, True, True, False]


def test_families_are_the_names_before_the_slash():
    found = parts("families")
    assert [test.tolist() for _, test in found] == [
        [True, True, False, False, False, True],
        [False, False, True, False, True, False],
    ]


@pytest.mark.parametrize(("protocol", "tasks"), [("tasks", ["one"] * 6), ("families", ["m/1", "m/2"] * 3)])
def test_leaving_one_out_when_there_is_one_refuses(protocol, tasks):
    with pytest.raises(NotEnoughLogsError, match=f"name 1 {protocol}"):
        parts(protocol, tasks=tasks)


def test_hidden_answers_leave_one_a_query_or_the_wanted_share():
    one = hide_answers(np.ones((500, 4), dtype=bool), share="one", seed=0)
    assert one.sum(axis=1).tolist() == [1] * 500
    assert (one.sum(axis=0) > 80).all()  # 125 expected of each, standard error 9.7
    share = hide_answers(np.ones((500, 4), dtype=bool), share=0.3, seed=0)
    assert abs(share.mean() - 0.3) < 0.05
    assert hide_answers(np.ones((5, 4), dtype=bool), share=1.0, seed=0).all()
    assert (one == hide_answers(np.ones((500, 4), dtype=bool), share="one", seed=0)).all()


def test_hidden_answers_of_a_partial_log_are_among_those_logged():
    logged = np.zeros((3000, 4), dtype=bool)
    logged[:1000, 3] = True
    logged[1000:2000, :3] = True
    one = hide_answers(logged, share="one", seed=0)
    assert one.sum(axis=1).tolist() == [1] * 2000 + [0] * 1000
    assert not (one & ~logged).any()
    assert (abs(one[1000:2000, :3].sum(axis=0) - 333) < 60).all()  # standard error 15
    half = hide_answers(logged, share=0.5, seed=0)
    assert not (half & ~logged).any()
