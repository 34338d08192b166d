import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.labels import (
    LabelBlend,
    label_from_json,
    label_from_name,
    label_name,
    label_to_json,
    label_values,
    parse_label,
)

BLEND = LabelBlend(weights={"performance": 0.75, "judge_score": 0.25})


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"performance": 1.0, "speed": 0.0},
        {"performance": 0.5, "judge_score": 0.4},
        {"performance": 1.5, "judge_score": -0.5},
        {"performance": float("nan")},
        {"performance": "all"},
        {"performance": None},
    ],
)
def test_blend_when_its_shares_are_wrong_is_refused(weights):
    with pytest.raises(InvalidPolicyError, match="label blend"):
        LabelBlend(weights=weights)


def test_label_has_one_name_whatever_the_order_of_its_shares():
    assert label_name("feedback") == "feedback"
    other = LabelBlend(weights={"judge_score": 0.25, "performance": 0.75})
    assert label_name(BLEND) == label_name(other) == "0.75 performance + 0.25 judge_score"


def test_values_of_a_blend_are_its_weighted_mean_and_missing_where_a_score_is():
    frame = pl.DataFrame({"performance": [1.0, 0.0, 1.0], "judge_score": [0.0, 1.0, None]})
    assert frame.select(label_values(BLEND)).to_series().to_list() == [0.75, 0.25, None]
    assert frame.select(label_values("judge_score")).to_series().to_list() == [0.0, 1.0, None]


def test_label_is_read_as_a_person_writes_it():
    assert parse_label("judge_score") == "judge_score"
    assert parse_label("performance=0.75, judge_score=0.25") == BLEND


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("speed", "There is no label 'speed'"),
        ("performance=most", "'performance=most' is no share"),
        ("performance=0.5", "sum to 1"),
        ("performance=0.5,performance=0.5", "sum to 1"),
        ("speed=1", "weighs some of"),
    ],
)
def test_label_when_it_is_none_is_refused(text, match):
    with pytest.raises(InvalidPolicyError, match=match):
        parse_label(text)


@pytest.mark.parametrize("data", [None, 3, ["performance"], {"performance": "1"}, {"performance": [1]}])
def test_label_from_data_that_is_none_is_refused(data):
    with pytest.raises(InvalidPolicyError):
        label_from_json(data)


@given(share=st.integers(min_value=1, max_value=99))
def test_label_survives_json(share):
    blend = LabelBlend(weights={"feedback": share / 100, "performance": 1 - share / 100})
    assert label_from_json(label_to_json(blend)) == blend
    assert label_from_json(label_to_json("feedback")) == "feedback"


@pytest.mark.parametrize("label", ["judge_score", BLEND])
def test_label_comes_back_from_its_name(label):
    assert label_name(label_from_name(label_name(label))) == label_name(label)
