import numpy as np
import pytest

from fusion_integrations.evaluation.cost_quality import (
    aiq,
    cost_at_quality,
    measure_cost_quality,
    quality_hull,
)

# The hull goes (1, 0.2), (2, 0.6), (4, 0.8): (3, 0.65) lies below the line from (2, 0.6) to (4, 0.8), that is
# at 0.7 there, and (5, 0.8) costs more for no more.
POINTS = [(5.0, 0.8), (3.0, 0.65), (1.0, 0.2), (4.0, 0.8), (2.0, 0.6)]


def test_hull_keeps_only_points_above_every_mixture():
    assert quality_hull(POINTS).tolist() == [[1.0, 0.2], [2.0, 0.6], [4.0, 0.8]]


def test_hull_of_equal_costs_keeps_the_better():
    assert quality_hull([(1.0, 0.5), (1.0, 0.7)]).tolist() == [[1.0, 0.7]]


@pytest.mark.parametrize(
    ("quality", "cost"),
    [
        (0.4, 1.5),  # half of the way from (1, 0.2) to (2, 0.6)
        (0.7, 3.0),
        (0.8, 4.0),
        (0.1, 1.0),  # nothing cheaper is on offer
        (0.8 + 1e-9, 4.0),  # rounding
        (0.81, None),
    ],
)
def test_cost_of_a_quality_is_read_off_the_hull(quality, cost):
    found = cost_at_quality(POINTS, quality=quality)
    assert found == (None if cost is None else pytest.approx(cost))


def test_aiq_worked_by_hand():
    # From 1 to 2 the mean is 0.4, from 2 to 4 it is 0.7, from 4 to 5 it is 0.8: (0.4 + 1.4 + 0.8) / 4.
    assert aiq(POINTS, cost_range=(1.0, 5.0)) == pytest.approx(0.65)


def test_aiq_below_the_cheapest_point_rises_from_nothing():
    # From (0, 0) to (1, 0.2): mean 0.1. Beyond the last point its quality stays.
    assert aiq([(1.0, 0.2)], cost_range=(0.0, 2.0)) == pytest.approx((0.1 + 0.2) / 2)


PERFORMANCE = np.array([[1.0, 0.0], [0.0, 1.0]])
COST = np.array([[1.0, 3.0], [1.0, 3.0]])
CHOICES = [np.array([0, 0]), np.array([0, 1]), np.array([1, 1])]


def test_curve_of_choices_worked_by_hand():
    curve = measure_cost_quality(
        CHOICES, performance=PERFORMANCE, cost_usd=COST, quality=0.5, quality_cost_usd=3.0
    )
    assert curve.points == ((1.0, 0.5), (2.0, 1.0), (3.0, 0.5))
    # Between the budgets 1 and 3: mean 0.75 from 1 to 2, then 1.
    assert curve.aiq == pytest.approx(0.875)
    assert curve.cost_at_best_single == pytest.approx(1 / 3)  # 0.5 is had for 1 USD, Best Single takes 3
    assert curve.to_json()["points"] == [[1.0, 0.5], [2.0, 1.0], [3.0, 0.5]]


def test_cost_at_best_single_when_both_are_free_is_all_of_it():
    free = np.array([[0.0, 3.0], [0.0, 3.0]])
    curve = measure_cost_quality(
        CHOICES, performance=PERFORMANCE, cost_usd=free, quality=0.5, quality_cost_usd=0.0
    )
    assert curve.cost_at_best_single == 1.0


@pytest.mark.parametrize(("quality", "its_cost"), [(1.1, 3.0), (0.5, 0.0)])
def test_cost_at_best_single_when_never_reached_or_free_is_none(quality, its_cost):
    curve = measure_cost_quality(
        CHOICES, performance=PERFORMANCE, cost_usd=COST, quality=quality, quality_cost_usd=its_cost
    )
    assert curve.cost_at_best_single is None


def test_curve_when_a_cost_is_unknown_or_all_are_equal_is_none():
    unknown = np.array([[1.0, np.nan], [1.0, np.nan]])
    settings = {"performance": PERFORMANCE, "quality": 0.5, "quality_cost_usd": 1.0}
    assert measure_cost_quality(CHOICES, cost_usd=unknown, **settings) is None
    assert measure_cost_quality([], cost_usd=COST, **settings) is None
    assert measure_cost_quality(CHOICES, cost_usd=np.ones((2, 2)), **settings) is None
