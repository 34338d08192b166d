from __future__ import annotations

import polars as pl
import pytest

from fusion_integrations.errors import LogSchemaError, NotEnoughLogsError
from fusion_integrations.scoring.judge_agreement import judge_agreement


def logs(rows):
    columns = ("query_id", "candidate_id", "response", "performance", "judge_score")
    schema = {name: pl.Float64 if "score" in name or name == "performance" else pl.String for name in columns}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_agreement_when_scores_differ_counts_what_can_be_worked_out_by_hand():
    agreement = judge_agreement(
        logs(
            [
                ("q1", "small", "aaaa", 1.0, 1.0),
                ("q2", "small", "aaaa", 0.0, 0.0),
                ("q3", "large", "a" * 100, 0.0, 1.0),
                ("q4", "large", "a" * 100, 1.0, 1.0),
                ("q5", "large", "a", None, 1.0),
                ("q6", "large", "a", 1.0, None),
            ]
        )
    )
    # Both say right twice, both wrong once, the judge alone right once: 3 of 4 agree. By chance they would in
    # 1/2 * 3/4 + 1/2 * 1/4 = 1/2, so kappa is (3/4 - 1/2) / (1/2).
    assert (agreement.n, agreement.accuracy, agreement.kappa) == (4, 0.75, 0.5)
    assert agreement.bias.mean == 0.25
    assert agreement.bias_by_candidate == {"large": 0.5, "small": 0.0}
    # Covariance 1/8 over deviations 1/2 and sqrt(3)/4.
    assert agreement.correlation == pytest.approx(3**-0.5)
    assert agreement.rank_correlation == pytest.approx(3**-0.5)
    # Differences 0 0 1 0 against lengths short short long long: the same numbers once more.
    assert agreement.verbosity == pytest.approx(3**-0.5)


def test_agreement_when_a_score_is_constant_has_no_correlation():
    agreement = judge_agreement(logs([("q1", "small", "a", 1.0, 1.0), ("q2", "small", "a", 1.0, 1.0)]))
    assert (agreement.correlation, agreement.kappa, agreement.verbosity) == (None, None, None)
    assert agreement.accuracy == 1.0


def test_agreement_when_no_answer_has_both_scores_is_refused():
    with pytest.raises(NotEnoughLogsError, match="No answer has both"):
        judge_agreement(logs([("q1", "small", "a", None, 1.0)]))


def test_agreement_when_columns_are_missing_is_refused():
    with pytest.raises(LogSchemaError, match="response"):
        judge_agreement(logs([]).drop("response"))
