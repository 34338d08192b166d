"""Step 2 of the workflow: how good an answer is."""

from __future__ import annotations

from fusion_integrations.scoring.metrics import METRIC_ALIASES, METRICS, Metric, find_metric, score

__all__ = ["METRICS", "METRIC_ALIASES", "Metric", "find_metric", "score"]
