"""Public multi-LLM logs through the table importer; they are not part of this package."""

import os
from pathlib import Path

import pytest

from fusion_integrations.logs.importers import ColumnMapping, import_logs
from fusion_integrations.logs.store import LogStore

DATA = Path(os.environ.get("FUSION_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
COMMON = {"query": "query", "model": "llm", "performance": "performance", "task": "task"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "columns", "n_rows", "n_queries", "n_candidates", "n_scores", "n_answers"),
    [
        # 4282 query ids, one text each; 9 LLMs
        ("fusionbench", {"reference": "ground_truth", "metric": "metric"}, 38538, 4282, 9, 38538, 0),
        # 8232 query ids but 10 texts come twice: equal conversations are one query, their rows samples of it
        ("routellm", {"response": "response"}, 16464, 8222, 2, 16464, 1538),
        # 2172 query ids, 2 texts come twice; 55 cells have no label
        ("routerbench_slice", {"response": "response", "cost_usd": "cost"}, 23892, 2170, 11, 23837, 23892),
    ],
)
def test_import_when_the_log_is_real_then_every_row_arrives(
    name, columns, n_rows, n_queries, n_candidates, n_scores, n_answers
):
    path = DATA / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{path} is absent: set FUSION_DATA to the folder of the public logs")

    with LogStore.open(":memory:") as store:
        report = import_logs(
            "table", path, store, columns=ColumnMapping(**COMMON, **columns), assignment="factorial"
        )
        stats, frame = store.stats(), store.to_frame()

    assert (report.n_rows, report.n_added, report.n_quarantined) == (n_rows, n_rows, 0)
    assert (stats.n_queries, len(stats.n_records_by_candidate), stats.n_scores) == (
        n_queries,
        n_candidates,
        n_scores,
    )
    assert frame["response"].count() == n_answers
