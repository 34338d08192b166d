import numpy as np

from fusion_integrations.evaluation.interval_coverage import interval_coverage


def covered(found):
    return {each.level: each.covered for each in found}


def test_coverage_of_honest_intervals_is_what_they_state():
    # 400 groups of 25: each prediction is off by a normal error of 0.1 common to its group, which it states.
    rng = np.random.default_rng(0)
    predicted = np.repeat(np.arange(400), 25)[:, None] / 400
    error = np.repeat(rng.normal(0, 0.1, 400), 25)[:, None]
    observed = predicted + error + rng.normal(0, 0.3, (10_000, 1))
    found = interval_coverage(predicted, np.full((10_000, 1), 0.1), observed)
    assert {each.n_groups for each in found} == {400}
    # A share of 400 has a standard error of at most 0.025.
    for level, share in covered(found).items():
        assert abs(share - level) < 0.08


def test_coverage_of_overconfident_intervals_is_below_what_they_state():
    rng = np.random.default_rng(0)
    predicted = np.repeat(np.arange(100), 25)[:, None] / 100
    observed = predicted + np.repeat(rng.normal(0, 0.3, 100), 25)[:, None] + rng.normal(0, 0.1, (2500, 1))
    shares = covered(interval_coverage(predicted, np.full((2500, 1), 0.05), observed))
    assert shares[0.95] < 0.5


def test_coverage_when_nothing_varies_is_right_or_wrong():
    predicted, nothing = np.full((25, 2), 0.5), np.zeros((25, 2))
    observed = np.stack([np.full(25, 0.5), np.full(25, 0.75)], axis=1)
    assert covered(interval_coverage(predicted, nothing, observed)) == {0.5: 0.5, 0.8: 0.5, 0.95: 0.5}


def test_coverage_when_answers_are_few_is_not_stated():
    observed = np.full((30, 1), np.nan)
    observed[:24] = 0.5
    assert interval_coverage(np.full((30, 1), 0.5), np.full((30, 1), 0.1), observed) == ()
