from __future__ import annotations

import dataclasses
import json

import pytest

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments


def test_arguments_when_default_are_the_papers():
    arguments = ThoughtTemplateTrainingArguments()
    assert (arguments.criterion, arguments.top_k, arguments.max_sentences) == ("hybrid", 3, 5)


def test_arguments_as_json_can_be_made_again():
    arguments = ThoughtTemplateTrainingArguments(criterion="judge", top_k=1, min_score=0.0, seed=3)
    assert ThoughtTemplateTrainingArguments(**json.loads(json.dumps(arguments.to_json()))) == arguments


def test_arguments_when_made_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ThoughtTemplateTrainingArguments().top_k = 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"criterion": "beauty"}, "one of performance, judge, hybrid, got 'beauty'"),
        ({"min_score": -0.1}, r"min_score must lie in \[0, 1\], got -0.1"),
        ({"min_score": float("nan")}, "min_score .* got nan"),
        ({"retry_temperature": 0.0}, "retry_temperature must be above 0, got 0.0"),
        ({"retry_temperature": float("nan")}, "retry_temperature must be above 0, got nan"),
        ({"retry_temperature": float("inf")}, "retry_temperature must be above 0, got inf"),
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in (
                "top_k",
                "n_attempts",
                "min_words",
                "max_sentences",
                "max_tokens",
                "max_answer_chars",
                "batch_size",
            )
        ),
        ({"min_words": 10, "max_words": 9}, r"max_words \(9\) must not be below min_words \(10\)"),
    ],
)
def test_arguments_when_out_of_range_raise(arguments, problem):
    with pytest.raises(InvalidPolicyError, match=problem):
        ThoughtTemplateTrainingArguments(**arguments)
