import numpy as np
import pytest

from fusion_integrations.errors import NotEnoughLogsError
from fusion_integrations.statistics import Interval, bootstrap_means, paired_interval


def test_interval_text_shows_signs():
    assert str(Interval(mean=0.0123, low=-0.003, high=0.0271)) == "+0.012 [-0.003, +0.027]"


def test_interval_contains_its_mean():
    differences = np.random.default_rng(0).normal(0.1, 1.0, size=100)
    interval = paired_interval(differences)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(differences.mean())


def test_interval_when_nothing_differs_is_exactly_zero():
    assert paired_interval(np.zeros(10), groups=list("aabbccddee")) == Interval(mean=0.0, low=0.0, high=0.0)


def test_interval_when_level_is_higher_is_wider():
    differences = np.random.default_rng(1).normal(size=80)
    narrow, wide = (paired_interval(differences, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low
    assert narrow.high < wide.high


def test_bootstrap_when_empty_refuses():
    with pytest.raises(NotEnoughLogsError, match="no queries to compare"):
        bootstrap_means(np.array([]))


def test_bootstrap_when_the_seed_is_equal_repeats_itself():
    differences = np.random.default_rng(2).normal(size=50)
    np.testing.assert_array_equal(bootstrap_means(differences, seed=7), bootstrap_means(differences, seed=7))
    assert (bootstrap_means(differences, seed=7) != bootstrap_means(differences, seed=8)).any()


def test_bootstrap_when_resampled_in_chunks_stays_within_the_data():
    means = bootstrap_means(np.arange(3000.0), n_resamples=1500)  # more than one chunk of 4e6 draws
    assert means.shape == (1500,)
    # The standard error of the mean is 3000 / sqrt(12) / sqrt(3000) = 15.8; 6 of them is 95.
    assert np.abs(means - 1499.5).max() < 95


def test_bootstrap_when_each_query_is_its_own_group_agrees_with_ungrouped():
    differences = np.random.default_rng(3).normal(size=40)
    names = [f"{i:02}" for i in range(40)]  # sorted like the rows
    np.testing.assert_allclose(bootstrap_means(differences, groups=names), bootstrap_means(differences))


def test_bootstrap_when_groups_differ_in_size_keeps_queries_equal_in_weight():
    # Groups a = (0, 0, 0) and b = (1): a resample is one of aa 0, ab 1/4, ba 1/4, bb 1.
    means = bootstrap_means(np.array([0.0, 0.0, 0.0, 1.0]), groups=["a", "a", "a", "b"])
    assert set(means.tolist()) == {0.0, 0.25, 1.0}


def test_interval_when_queries_repeat_is_wider_by_groups_than_alone():
    # 30 different values, each 10 times: the standard error is sqrt(10) times that of 300 independent ones.
    values = np.random.default_rng(4).normal(size=30)
    differences, groups = np.repeat(values, 10), np.repeat([f"{i:02}" for i in range(30)], 10).tolist()
    alone, grouped = paired_interval(differences), paired_interval(differences, groups=groups)
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert 2.6 < ratio < 3.8


def test_interval_when_rows_are_permuted_is_the_same():
    rng = np.random.default_rng(5)
    differences, groups = rng.integers(-4, 5, size=60) / 4, rng.choice(list("abcdefgh"), size=60)
    order = rng.permutation(60)
    before = paired_interval(differences, groups=groups.tolist())
    assert paired_interval(differences[order], groups=groups[order].tolist()) == before


@pytest.mark.parametrize("n_per_group", [1, 4])
def test_interval_over_many_data_sets_covers_the_truth_about_as_often_as_stated(n_per_group):
    # Gains as routers have them: mostly 0, sometimes +1 or -1, equal within near-duplicates; mean +0.05.
    # 200 data sets of 200 groups: the observed coverage of a true 95% has standard deviation 1.5%.
    rng = np.random.default_rng(6)
    groups = np.repeat([f"{i:03}" for i in range(200)], n_per_group).tolist()
    covered = 0
    for number in range(200):
        gains = np.repeat(rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.65, 0.2], size=200), n_per_group)
        interval = paired_interval(gains, groups=groups, n_resamples=400, seed=number)
        covered += interval.low <= 0.05 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99
