"""Step 2 of the workflow: how good an answer is."""

from __future__ import annotations

from fusion_integrations.scoring.metrics import METRICS, Metric, score

__all__ = ["METRICS", "Metric", "score"]
