import json

import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.heads import ClusterHeadConfig, XGBoostHeadConfig
from fusion_integrations.query_level.router_config import RouterTrainingArguments


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_members", 1),
        ("n_calibration_folds", 0),
        ("risk", 0.0),
        ("risk", 1.0),
        ("n_threads", 0),
        ("seed", -1),
    ],
)
def test_arguments_when_a_value_is_out_of_range_refuse_and_name_it(field, value):
    with pytest.raises(InvalidPolicyError, match=f"{field} must .*{value}"):
        RouterTrainingArguments(**{field: value})


def test_arguments_when_risk_is_nan_refuse():
    with pytest.raises(InvalidPolicyError, match="risk"):
        RouterTrainingArguments(risk=float("nan"))


@pytest.mark.parametrize("head", [ClusterHeadConfig(shrinkage=3.0), XGBoostHeadConfig(n_rounds=7)])
def test_arguments_as_json_name_the_head_and_its_settings(head):
    data = json.loads(json.dumps(RouterTrainingArguments(head=head, seed=4).to_json(), allow_nan=False))
    assert data["head"] == head.to_json()
    assert data["head"]["name"] == head.name
    assert data["seed"] == 4


def test_arguments_have_few_fields():
    assert len(RouterTrainingArguments().to_json()) <= 12  # more would be a second way to say something
