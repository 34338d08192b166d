import numpy as np
import pytest

from fusion_integrations.evaluation.model_pairs import measure_pair, measure_pairs

IDS = ("weak", "strong")
# The strong model is better on queries 0 and 1 only, worse on none.
PERFORMANCE = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])


def test_pair_when_calls_go_where_they_help_worked_by_hand():
    pair = measure_pair(PERFORMANCE, np.array([0.9, 0.8, 0.2, 0.1]), ids=IDS, strong=1)
    # Recovered after 0..4 calls: 0, 1/2, 1, 1, 1. Area by trapezes of width 1/4: (0.25 + 0.75 + 1 + 1) / 4.
    assert pair.apgr == pytest.approx(0.75)
    assert (pair.cpt_50, pair.cpt_80) == (0.25, 0.5)
    assert (pair.strong, pair.weak) == ("strong", "weak")


def test_pair_when_calls_go_where_they_do_not_help_worked_by_hand():
    pair = measure_pair(PERFORMANCE, np.array([0.1, 0.2, 0.8, 0.9]), ids=IDS, strong=1)
    # Recovered: 0, 0, 0, 1/2, 1.
    assert pair.apgr == pytest.approx(0.25)
    assert (pair.cpt_50, pair.cpt_80) == (0.75, 1.0)


def test_pair_when_all_gains_are_predicted_equal_is_random_routing_whatever_the_order():
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        pair = measure_pair(PERFORMANCE[order], np.full(4, 0.3), ids=IDS, strong=1)
        assert pair.apgr == pytest.approx(0.5)
        assert (pair.cpt_50, pair.cpt_80) == (0.5, 1.0)


def test_pair_when_the_stronger_is_not_better_is_none():
    assert measure_pair(PERFORMANCE, np.zeros(4), ids=IDS, strong=0) is None


def test_pairs_are_measured_by_family_and_over_all():
    performance = np.concatenate([PERFORMANCE, PERFORMANCE[:, ::-1]])
    predicted = np.zeros((8, 2))
    predicted[:, 1] = 0.1
    tasks = ["math/easy"] * 2 + ["math/hard"] * 2 + ["prose"] * 4
    found = measure_pairs(performance, predicted, ids=IDS, tasks=tasks)
    assert list(found) == ["math", "prose"]  # over all there is no gap
    assert (found["math"].strong, found["prose"].strong) == ("strong", "weak")


def test_pairs_when_there_is_one_family_stand_under_all_alone():
    found = measure_pairs(PERFORMANCE, PERFORMANCE, ids=IDS, tasks=["math", None, "math", "math"])
    assert list(found) == ["all"]
    assert found["all"].to_json()["apgr"] == pytest.approx(0.75)


def test_pairs_of_three_models_are_none():
    assert measure_pairs(np.zeros((2, 3)), np.zeros((2, 3)), ids=["a", "b", "c"], tasks=[None, None]) == {}
