"""The benchmark's functions at tiny size, so that it still runs when somebody needs its numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.query_level.router_config import RouterTrainingArguments

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = {"n_candidates": 3, "n_queries": 60, "n_rounds": 2, "n_callers": 3}


@pytest.fixture
def routing_latency(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import routing_latency

    yield routing_latency
    for name in ("routing_latency", "encoder_quality"):
        sys.modules.pop(name, None)


def test_speed_when_measured_then_counts_every_call(routing_latency):
    encoders = {"hash": HashEmbedder(dimensions=32), "small": HashEmbedder(dimensions=16)}
    speeds = routing_latency.measure_speed(encoders, routing_latency.Settings(**TINY))
    assert set(speeds) == {"hash", "small"}
    for speed in speeds.values():
        assert 0 < speed.decision.p50_ms <= speed.decision.p99_ms
        assert 0 < speed.route.p50_ms <= speed.route.p99_ms
        assert min(speed.batch_per_s, speed.concurrent_per_s, speed.micro_batched_per_s) > 0


def test_quality_when_a_feature_of_the_text_tells_who_is_good_then_routing_gains(routing_latency, tmp_path):
    # Sums go to one candidate, stories to the other; the third is mediocre at both and the best single one.
    words = ("red", "old", "big", "cold", "new", "far", "odd", "shy", "raw", "dim")
    sums = [
        f"What is {n} plus {n + 1}, {first} {second}?" for n, first in enumerate(words) for second in words
    ]
    stories = [f"Tell a story of a {first} and {second} house." for first in words for second in words]
    scores = {
        "sums": {"adder": 1.0, "writer": 0.0, "both": 0.6},
        "stories": {"adder": 0.0, "writer": 1.0, "both": 0.6},
    }
    rows = [
        {"query_id": f"q{number}", "query": text, "task": task, "llm": llm, "performance": score}
        for task, texts in (("sums", sums), ("stories", stories))
        for number, text in enumerate(texts, start=1000 * len(task))
        for llm, score in scores[task].items()
    ]
    file = tmp_path / "fusionbench.parquet"
    pl.DataFrame(rows).write_parquet(file)
    logs = routing_latency.fusionbench_logs(file, n_queries=150, seed=0)
    assert logs["query_id"].n_unique() == 150
    arguments = RouterTrainingArguments(n_members=2, n_calibration_folds=2)
    found = routing_latency.measure_quality({"hash": HashEmbedder()}, logs, arguments=arguments)["hash"]
    assert found.n_queries == 150
    assert found.best_single == pytest.approx(0.6)
    assert found.gain.low > 0.2
    assert found.predicted_best == pytest.approx(found.performance)
    assert found.over_reference.mean == 0


def test_main_when_the_data_is_absent_then_says_so_and_writes_the_rest(
    routing_latency, monkeypatch, tmp_path, capsys
):
    file = tmp_path / "result.json"
    monkeypatch.setenv("FUSION_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(
        sys, "argv", ["routing_latency.py", "--encoders", "hash", "--rounds", "1", "--json", str(file)]
    )
    routing_latency.main()
    assert "quality is left out" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert result["command"].startswith("python routing_latency.py --encoders hash")
    assert result["quality"] == {}
    assert result["times_faster_than_first_p50"] == {"hash": 1.0}
