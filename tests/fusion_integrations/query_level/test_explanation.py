import numpy as np
import pytest

from fusion_integrations.query_level.explanation import explain_choice
from fusion_integrations.types import Candidate


@pytest.mark.parametrize(
    ("chosen", "gain", "settings", "outcome", "reason"),
    [
        (0, [0.0, -np.inf], {}, "only_eligible", "'a' is the only eligible candidate."),
        (
            1,
            [0.0, 0.5],
            {},
            "switched",
            (
                "'b' is expected to gain 0.500 reward over the best single candidate 'a', more than 2 "
                "standard errors of 0.100."
            ),
        ),
        (
            0,
            [0.0, 0.001],
            {},
            "default",
            "'a' is the best single candidate and also the best prediction for this query.",
        ),
        (
            0,
            [0.0, 0.1],
            {},
            "default",
            (
                "'a' is the best single candidate; 'b' is expected to gain only 0.100 reward over it: less "
                "than 2 standard errors of 0.100."
            ),
        ),
        (
            0,
            [0.0, 0.1],
            {"margin_z": [0.0, np.inf]},
            "default",
            (
                "'a' is the best single candidate; 'b' is expected to gain only 0.100 reward over it: on "
                "validation data leaving it did not pay."
            ),
        ),
    ],
)
def test_explanation_says_outcome_and_reason(chosen, gain, settings, outcome, reason):
    settings = {"margin_z": [1.0, 2.0], "tie": 0.01} | settings
    gain_se = np.array([0.0, 0.1], dtype=np.float32)
    found = explain_choice(
        [Candidate(id=name, model=name) for name in "ab"],
        chosen=chosen,
        default=0,
        gain=np.array(gain, dtype=np.float32),
        gain_se=gain_se,
        **settings,
    )
    assert found == (outcome, reason)
