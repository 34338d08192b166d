import numpy as np
import pytest

from fusion_integrations.evaluation.reliability import (
    calibration_error,
    cell_reliability,
    reliability_table,
)


def test_bins_hold_equally_many_and_rise():
    predicted = np.array([0.9, 0.1, 0.2, 0.8])
    observed = np.array([1.0, 0.0, 1.0, 0.0])
    low, high = reliability_table(predicted, observed, groups=["a", "b", "c", "d"], n_bins=2)
    assert (low.n, low.predicted, low.observed.mean) == (2, pytest.approx(0.15), 0.5)
    assert (high.n, high.predicted, high.observed.mean) == (2, pytest.approx(0.85), 0.5)
    # |0.15 - 0.5| and |0.85 - 0.5|
    assert calibration_error([low, high]) == pytest.approx(0.35)


def test_bins_when_predictions_are_equal_are_one():
    (only,) = reliability_table(np.full(5, 0.4), np.array([0, 0, 0, 1, 1.0]), groups=list("abcde"))
    assert (only.n, only.observed.mean) == (5, pytest.approx(0.4))
    assert calibration_error([only]) == pytest.approx(0.0)


def test_interval_when_values_are_of_one_group_is_its_mean():
    (only,) = reliability_table(np.full(4, 0.4), np.array([0, 0, 1, 1.0]), groups=["same"] * 4)
    assert (only.observed.low, only.observed.high) == (0.5, 0.5)
    assert only.to_json() == {
        "n": 4,
        "predicted": pytest.approx(0.4),
        "observed": {"mean": 0.5, "low": 0.5, "high": 0.5},
    }


def test_calibration_error_weighs_bins_by_number():
    predicted = np.array([0.0, 0.0, 0.0, 1.0])
    bins = reliability_table(predicted, np.array([0.0, 0.0, 0.0, 0.0]), groups=list("abcd"))
    assert calibration_error(bins) == pytest.approx(0.25)  # three right, one wrong by 1
    assert calibration_error([]) == 0.0


def test_cells_that_were_not_logged_do_not_count():
    predicted = np.array([[0.5, 0.9], [0.5, 0.5]])
    observed = np.array([[1.0, np.nan], [0.0, 0.5]])
    (only,) = cell_reliability(predicted, observed, groups=["a", "b"])
    assert (only.n, only.observed.mean) == (3, 0.5)
