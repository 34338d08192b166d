from __future__ import annotations

import json
import math

import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("criterion", "best"),
        ("ground_truth", True),
        ("top_k", 0),
        ("min_score", 1.1),
        ("min_score", math.nan),
        ("teachers", ()),
        ("teachers", "big"),
        ("max_pairs_per_task", 0),
        ("lora_rank", 0),
        ("lora_rank", 1025),
        ("lora_alpha", 0.0),
        ("lora_dropout", 1.0),
        ("target_modules", ()),
        ("target_modules", "q_proj"),
        ("n_epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("batch_size", 0),
        ("max_tokens", 7),
        ("warmup_share", 1.0),
        ("weight_decay", -0.1),
        ("n_threads", 0),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_arguments_when_a_value_is_out_of_range_refuse_and_name_it(field, value):
    with pytest.raises(InvalidPolicyError, match=f"{field} must "):
        DistillationTrainingArguments(**{field: value})


@pytest.mark.parametrize("other", [{"ground_truth": "leave_out"}, {"teachers": ("big",)}])
def test_arguments_when_the_baseline_is_to_use_answers_refuse(other):
    with pytest.raises(InvalidPolicyError, match="references alone"):
        DistillationTrainingArguments(criterion="baseline", **other)


def test_arguments_as_json_survive_a_round_trip():
    arguments = DistillationTrainingArguments(teachers=("a", "b"), target_modules=("q_proj",))
    data = json.loads(json.dumps(arguments.to_json(), allow_nan=False))
    again = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    assert DistillationTrainingArguments(**again) == arguments
