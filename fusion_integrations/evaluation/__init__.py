"""Is the router worth it? Replay held-out logs beside Random, Best Single, Best per Task and Oracle."""

from __future__ import annotations

from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.evaluation.evaluator import evaluate_routers
from fusion_integrations.evaluation.report import render_table

__all__ = ["EvaluationReport", "EvaluationRow", "evaluate_routers", "render_table"]
