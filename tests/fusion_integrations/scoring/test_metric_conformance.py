"""The public table of tricky answers: docs/metric_conformance.json, every row of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fusion_integrations.scoring import METRIC_ALIASES, METRICS, score

TABLE = json.loads((Path(__file__).parents[3] / "docs" / "metric_conformance.json").read_text("utf-8"))
ROWS = [(metric, row) for metric, rows in TABLE.items() for row in rows]


@pytest.mark.parametrize(("metric", "row"), ROWS, ids=[f"{m}-{row['answer'][:40]!r}" for m, row in ROWS])
def test_score_when_the_answer_is_in_the_table_is_as_the_table_says(metric, row):
    if metric == "code_pass" and sys.platform != "linux":
        pytest.skip("code runs on Linux only")
    given = score(row["answer"], metric=metric, reference=row["reference"], query=row.get("query", ""))
    assert given == pytest.approx(row["score"], abs=1e-5)


def test_table_has_right_and_wrong_answers_to_every_metric():
    assert set(TABLE) == set(METRICS)
    for rows in TABLE.values():
        assert {0, 1} <= {row["score"] for row in rows}
        assert "" in [row["answer"] for row in rows]


def test_aliases_name_the_metrics_of_the_published_logs():
    assert set(METRIC_ALIASES.values()) <= set(METRICS)
    assert set(METRIC_ALIASES) == {"GSM8K", "MATH", "code_eval", "commongen_coverage", "em_mc", "f1_score"}
