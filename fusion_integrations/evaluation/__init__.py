"""Is fusion worth it? Replay held-out logs beside Random, Best Single, Best per Task and Oracle."""

from __future__ import annotations

from fusion_integrations.evaluation.benchmark import benchmark_routers
from fusion_integrations.evaluation.benchmark_page import render_page
from fusion_integrations.evaluation.benchmark_report import BenchmarkReport, BenchmarkRow
from fusion_integrations.evaluation.benchmark_tables import render_benchmark
from fusion_integrations.evaluation.detail_tables import render_details
from fusion_integrations.evaluation.evaluation_page import render_evaluation_page
from fusion_integrations.evaluation.evaluation_report import EvaluationReport, EvaluationRow
from fusion_integrations.evaluation.evaluator import evaluate_routers
from fusion_integrations.evaluation.exports import export_llmrouterbench, export_routerarena
from fusion_integrations.evaluation.level_comparison import compare_levels
from fusion_integrations.evaluation.level_report import LevelEffect, LevelReport, LevelRow
from fusion_integrations.evaluation.report import render_levels, render_table
from fusion_integrations.evaluation.score_table import read_score_table, score_tables_in

__all__ = [
    "BenchmarkReport",
    "BenchmarkRow",
    "EvaluationReport",
    "EvaluationRow",
    "LevelEffect",
    "LevelReport",
    "LevelRow",
    "benchmark_routers",
    "compare_levels",
    "evaluate_routers",
    "export_llmrouterbench",
    "export_routerarena",
    "read_score_table",
    "render_benchmark",
    "render_details",
    "render_evaluation_page",
    "render_levels",
    "render_page",
    "render_table",
    "score_tables_in",
]
