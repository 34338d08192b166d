"""Is fusion worth it? Replay held-out logs beside Random, Best Single, Best per Task and Oracle."""

from __future__ import annotations

from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.evaluation.evaluator import evaluate_routers
from fusion_integrations.evaluation.level_comparison import compare_levels
from fusion_integrations.evaluation.level_report import LevelEffect, LevelReport, LevelRow
from fusion_integrations.evaluation.report import render_levels, render_table

__all__ = [
    "EvaluationReport",
    "EvaluationRow",
    "LevelEffect",
    "LevelReport",
    "LevelRow",
    "compare_levels",
    "evaluate_routers",
    "render_levels",
    "render_table",
]
