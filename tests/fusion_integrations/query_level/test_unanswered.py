from dataclasses import replace

import numpy as np
import pytest

from fusion_integrations.query_level.heads import HeadInputs
from fusion_integrations.query_level.off_policy import importance_weights
from fusion_integrations.query_level.unanswered import (
    assume_outcomes,
    chances_by_kind,
    complete_kinds,
    fill_amounts,
    fill_targets,
)

NAN = np.nan
N = 100  # queries a kind
# What three candidates reach on an easy, a middling and a hard kind: additive, so that a fit can be exact.
TRUTH = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.3, 0.2, 0.1]])
KINDS = np.repeat(np.arange(3), N)
UNKNOWN = np.full((3 * N, 3), NAN, dtype=np.float32)


@pytest.fixture
def outcomes():
    """Give every query its kind's truth, but for the (kind, candidate) cells that nobody asked for."""

    def make(*left_out):
        values = np.repeat(TRUTH, N, axis=0).astype(np.float32)
        for kind, candidate in left_out:
            values[kind == KINDS, candidate] = NAN
        return values

    return make


def assume(values, kinds=KINDS):
    return assume_outcomes(values, importance_weights(values, np.full_like(values, NAN)), kinds)


def inputs_of(values):
    return HeadInputs(
        texts=("text",) * len(values),
        features=np.zeros((len(values), 1), dtype=np.float32),
        targets=values,
        weights=importance_weights(values, np.full_like(values, NAN)),
        tasks=(None,) * len(values),
        column_embeddings=np.zeros((3, 0), dtype=np.float32),
        n_embedding=1,
        n_threads=1,
        seed=0,
    )


def test_kind_that_was_left_out_is_assumed_from_others_there_and_the_candidate_elsewhere(outcomes):
    assumed = assume(outcomes((2, 0), (0, 2)))
    assert assumed.is_assumed.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    # The fit is exact but for its shrinkage, 10 answers beside 100 or 200.
    np.testing.assert_allclose(assumed.means[assumed.is_assumed], [0.7, 0.3], atol=0.03)


def test_candidate_known_on_easy_queries_only_is_not_taken_for_the_best(outcomes):
    values = outcomes((1, 1), (2, 1))
    assert np.nanmean(values, axis=0).argmax() == 1  # its easy queries make it look best
    completed, propensity = complete_kinds(values, UNKNOWN, KINDS)
    means = completed.mean(axis=0)
    assert means.argmax() == 0
    assert means[1] == pytest.approx(TRUTH[:, 1].mean(), abs=0.05)
    # What is filled in counts 1, and what was logged of the easy kind was logged for certain.
    assert (propensity[:, 1] == 1).all()
    assert np.isnan(propensity[:, [0, 2]]).all()


def test_few_answers_of_a_kind_pull_its_assumption_towards_them(outcomes):
    values = outcomes((2, 0))
    values[-10:, 0] = 1.0  # ten answers, all right, against an assumption of weight ten
    assumed = assume(values)
    assert assumed.is_assumed[2, 0]
    assert assumed.means[2, 0] == pytest.approx((1.0 + 0.3) / 2, abs=0.06)


def test_error_is_how_far_kinds_depart_from_the_additive_fit(outcomes):
    exact = assume(outcomes((2, 0)))
    values = outcomes((2, 0))
    values[KINDS == 0, 1] -= 0.4
    values[KINDS == 1, 2] += 0.4
    assert exact.error < 0.05
    assert assume(values).error > 0.15
    share = 1 / 3  # of the queries are of the kind that was left out
    assert exact.error_of_means(KINDS) == pytest.approx([exact.error * share, 0.0, 0.0])


def test_nothing_is_assumed_where_answers_are_missing_at_random(outcomes):
    values = outcomes()
    values[np.random.default_rng(0).random(values.shape) < 0.7] = NAN
    assert assume(values) is None
    inputs = inputs_of(values)
    assert fill_targets(inputs, KINDS) is inputs
    assert complete_kinds(values, UNKNOWN, KINDS)[0] is values
    assert chances_by_kind(values, UNKNOWN, KINDS) is UNKNOWN


def test_rare_answers_that_weigh_much_count_as_the_few_they_are(outcomes):
    values, propensity = outcomes((2, 0)), UNKNOWN.copy()
    propensity[:, 0] = 0.9
    values[-3:, 0], propensity[-3:, 0] = 1.0, 0.05  # three lucky answers that a policy explored
    assumed = assume_outcomes(values, importance_weights(values, propensity), KINDS)
    assert assumed.is_assumed[2, 0]
    assert assumed.means[2, 0] == pytest.approx((3 * 1.0 + 10 * 0.3) / 13, abs=0.06)


def test_known_chances_stay_and_unknown_ones_are_those_of_the_kind(outcomes):
    values, propensity = outcomes((2, 0)), UNKNOWN.copy()
    values[50:100, 0] = NAN  # half of the first kind
    propensity[0, 0] = 0.7
    chances = chances_by_kind(values, propensity, KINDS)
    assert chances[0, 0] == np.float32(0.7)
    np.testing.assert_allclose(chances[[1, 100, 250], 0], [0.5, 1.0, 0.05])
    assert np.isnan(chances[:, 1:]).all()
    completed, chances = complete_kinds(values, propensity, KINDS)
    assert np.isnan(completed[50:100, 0]).all()  # of a kind that it did answer nothing is made up
    assert (chances[KINDS == 2, 0] == 1).all()
    assert chances[1, 0] == 0.5


@pytest.mark.parametrize("free", [False, True])
def test_cost_of_a_kind_that_was_left_out_is_as_many_times_that_of_others(outcomes, free):
    # Kinds take 1, 2 and 6 times; the second candidate costs ten times the first; the third may be free.
    cost = np.outer([1.0, 2.0, 6.0], [0.01, 0.1, 0.0 if free else 0.05])[KINDS].astype(np.float32)
    answered = ~np.isnan(outcomes((2, 1)))
    filled = fill_amounts(np.where(answered, cost, NAN), answered, KINDS)
    np.testing.assert_array_equal(filled[answered], cost[answered])
    assert filled[-1, 1] == pytest.approx(0.6, rel=0.2)
    nothing = fill_amounts(np.where(answered, 0.0, NAN).astype(np.float32), answered, KINDS)
    assert (nothing == 0).all()


def test_amounts_that_were_never_logged_stay_unknown(outcomes):
    answered = ~np.isnan(outcomes((2, 1)))
    amounts = np.where(answered, 1.0, NAN).astype(np.float32)
    amounts[:, 1] = NAN
    assert fill_amounts(amounts, answered, KINDS) is amounts


def test_heads_get_what_is_assumed_and_every_answer_as_it_was(outcomes):
    inputs = inputs_of(outcomes((2, 0)))
    filled = fill_targets(inputs, KINDS)
    known = ~np.isnan(inputs.targets)
    np.testing.assert_array_equal(filled.targets[known], inputs.targets[known])
    np.testing.assert_array_equal(filled.weights[known], inputs.weights[known])
    np.testing.assert_allclose(filled.targets[~known], 0.3, atol=0.03)
    assert (filled.weights[~known] == 1).all()


def test_what_else_is_missing_of_the_candidate_stays_missing(outcomes):
    values = outcomes((2, 0))
    values[:3] = NAN
    filled = fill_targets(replace(inputs_of(values), targets=values), KINDS)
    assert np.isnan(filled.targets[:3]).all()
    assert not np.isnan(filled.targets[3:]).any()
