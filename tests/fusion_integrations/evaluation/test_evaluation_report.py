import dataclasses
import json

import pytest

from fusion_integrations.evaluation import EvaluationReport, EvaluationRow
from fusion_integrations.query_level.policy import COST_FIRST
from fusion_integrations.statistics import Interval

ROW = EvaluationRow(
    policy="cost-first",
    strategy="ours",
    performance=0.5,
    cost_usd=None,
    reward=0.25,
    performance_gain=Interval(mean=0.0, low=-0.5, high=0.5),
    reward_gain=Interval(mean=0.1, low=0.05, high=0.2),
    switch_share=0.5,
    per_task={"math": 0.5},
    candidate_shares={"a": 1.0},
)
REPORT = EvaluationReport(
    name="logs",
    rows=(ROW,),
    candidate_means={"a": (0.5, 0.001)},
    policies={"cost-first": COST_FIRST},
    cost_scale_usd={"cost-first": 0.01},
    candidates=("a",),
    tasks={"math": 100},
    label="performance",
    level=0.95,
    n_queries=100,
    n_groups=30,
    n_left_out=0,
    n_leaked=0,
    n_unseen_task=0,
    trained_elsewhere=(),
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.2, "better"),
        (0.0, 0.2, "not distinguishable"),
        (0.0, 0.0, "not distinguishable"),
        (-0.1, 0.1, "not distinguishable"),
        (-0.2, 0.0, "not distinguishable"),
        (-0.2, -0.01, "worse"),
    ],
)
def test_verdict_says_no_more_than_the_interval(low, high, expected):
    row = dataclasses.replace(ROW, reward_gain=Interval(mean=(low + high) / 2, low=low, high=high))
    assert REPORT.verdict(row) == expected


def test_verdict_when_groups_are_few_withholds_judgement():
    few = dataclasses.replace(REPORT, n_groups=29)
    assert few.verdict(ROW) == "too few queries"
    assert "Only 29 groups" in few.warnings[0]


def test_warnings_when_nothing_is_wrong_are_none():
    assert REPORT.warnings == ()


def test_warnings_when_something_is_wrong_name_each_problem():
    report = dataclasses.replace(
        REPORT, n_left_out=3, n_leaked=4, n_unseen_task=5, trained_elsewhere=("ours",), n_groups=6
    )
    named = ("3 of 107", "4 of 107", "5 of 100", "ours", "Only 6 groups")
    assert all(name in warning for name, warning in zip(named, report.warnings, strict=True))


def test_json_survives_a_round_trip_and_holds_everything():
    data = REPORT.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert set(data) == {field.name for field in dataclasses.fields(REPORT)} | {"warnings"}
    assert data["rows"][0]["reward_gain"] == {"mean": 0.1, "low": 0.05, "high": 0.2}
    assert data["rows"][0]["cost_usd"] is None
    assert data["rows"][0]["verdict"] == "better"
    assert data["policies"]["cost-first"]["cost_weight"] == 0.8
