import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.types import Price, PriceTable


def test_performance_is_the_mean_of_the_members(predict):
    prediction = predict([[[0.2, 0.8]], [[0.4, 0.4]]])
    np.testing.assert_allclose(prediction.performance, [[0.3, 0.6]], rtol=1e-6)
    assert prediction.performance.dtype == np.float32


def test_standard_error_worked_by_hand(predict):
    # Five members 1, 1, 1, 1, 0: mean 0.8, squared deviations 4 * 0.04 + 0.64 = 0.8;
    # jackknife variance (5 - 1) / 5 * 0.8 = 0.64.
    prediction = predict(np.array([1, 1, 1, 1, 0], dtype=np.float32).reshape(5, 1, 1))
    np.testing.assert_allclose(prediction.performance_se, [[0.8]], rtol=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12))
def test_standard_error_of_leave_one_out_means_is_the_textbook_one(predict, values):
    # The jackknife of a mean is the standard error of the mean: standard deviation (n - 1) / sqrt(n).
    data = np.array(values, dtype=np.float64)
    left_out = (data.sum() - data) / (len(data) - 1)
    se = predict(left_out.reshape(-1, 1, 1)).performance_se[0, 0]
    assert se == pytest.approx(data.std(ddof=1) / np.sqrt(len(data)), abs=1e-5)


def test_standard_error_when_members_agree_is_zero(predict):
    assert (predict(np.full((4, 3, 2), 0.7)).performance_se < 1e-7).all()


def test_paired_gain_se_when_members_move_together_cancels(predict):
    # Both candidates vary by 0.2 between the members, their difference not at all.
    prediction = predict([[[0.2, 0.5]], [[0.4, 0.7]]])
    np.testing.assert_allclose(prediction.performance_se, [[0.1, 0.1]], rtol=1e-5)
    np.testing.assert_allclose(prediction.paired_gain_se(np.array([0])), [[0.0, 0.0]], atol=1e-7)


def test_paired_gain_se_takes_each_querys_own_base(predict):
    # Query 1 differs by 0.6 and 0.0 from its base in the two members: variance 0.09, error 0.3.
    members = [[[0.2, 0.8], [0.2, 0.8]], [[0.4, 0.4], [0.4, 0.4]]]
    se = predict(members).paired_gain_se(np.array([0, 1]))
    np.testing.assert_allclose(se, [[0.0, 0.3], [0.3, 0.0]], atol=1e-6)


def test_cost_when_no_prices_is_as_logged(predict):
    prediction = predict([[0.5, 0.5]], cost=[[0.1, np.nan]])
    np.testing.assert_array_equal(prediction.cost_usd(None), np.float32([[0.1, np.nan]]))


def test_cost_when_priced_counts_tokens(predict):
    # 100 tokens at 1 USD / million + 50 at 2 USD / million = 0.0002 USD.
    prediction = predict([[0.5, 0.5]], cost=9.0, input_tokens=100, output_tokens=50)
    prices = PriceTable(prices={"m-a": Price(input_usd_per_mtok=1, output_usd_per_mtok=2)})
    np.testing.assert_allclose(prediction.cost_usd(prices), [[0.0002, 9.0]], rtol=1e-6)


def test_cost_when_tokens_are_unknown_stays_as_logged(predict):
    prediction = predict([[0.5, 0.5]], cost=[[9.0, np.nan]], input_tokens=100)
    prices = PriceTable(prices={n: Price(output_usd_per_mtok=2) for n in ("m-a", "m-b")})
    np.testing.assert_array_equal(prediction.cost_usd(prices), np.float32([[9.0, np.nan]]))


def test_cost_does_not_change_the_prediction(predict):
    prediction = predict([[0.5]], cost=9.0, input_tokens=1)
    prediction.cost_usd(PriceTable(prices={"m-a": Price(input_usd_per_mtok=1)}))
    assert prediction.logged_cost_usd[0, 0] == 9.0
