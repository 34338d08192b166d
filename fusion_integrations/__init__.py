"""Learn from multi-LLM logs which LLM should answer; the framework-free core of the toolkit.

The names a newcomer needs are importable from here; each is loaded at its first use, so that the import
itself stays fast and pulls in no optional package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusion_integrations.logs.frame import load_logs
    from fusion_integrations.logs.schema import LogRecord, Score
    from fusion_integrations.logs.store import LogStore
    from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
    from fusion_integrations.model_level.distillation_trainer import DistillationTrainer
    from fusion_integrations.model_level.student_model import StudentModel
    from fusion_integrations.pipeline import FusionPipeline, FusionPlan
    from fusion_integrations.query_level.decision import RouteDecision
    from fusion_integrations.query_level.policy import BALANCE, COST_FIRST, PERFORMANCE_FIRST, RoutingPolicy
    from fusion_integrations.query_level.pool_changes import add_candidate, remove_candidate
    from fusion_integrations.query_level.reloading_router import ReloadingRouter
    from fusion_integrations.query_level.router_config import RouterTrainingArguments
    from fusion_integrations.query_level.router_model import RouterModel
    from fusion_integrations.query_level.router_trainer import RouterTrainer
    from fusion_integrations.query_level.run_budget import RunBudget
    from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
    from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments
    from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary
    from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
    from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
    from fusion_integrations.thought_level.template_trainer import ThoughtTemplateTrainer
    from fusion_integrations.types import Candidate, Message, Price, PriceTable, Query

__all__ = [
    "BALANCE",
    "COST_FIRST",
    "PERFORMANCE_FIRST",
    "Candidate",
    "ChromaThoughtTemplateStore",
    "DistillationTrainer",
    "DistillationTrainingArguments",
    "FusionPipeline",
    "FusionPlan",
    "InMemoryThoughtTemplateStore",
    "LogRecord",
    "LogStore",
    "Message",
    "Price",
    "PriceTable",
    "Query",
    "ReloadingRouter",
    "RouteDecision",
    "RouterModel",
    "RouterTrainer",
    "RouterTrainingArguments",
    "RoutingPolicy",
    "RunBudget",
    "Score",
    "StudentModel",
    "ThoughtPrompter",
    "ThoughtTemplateLibrary",
    "ThoughtTemplateTrainer",
    "ThoughtTemplateTrainingArguments",
    "add_candidate",
    "load_logs",
    "remove_candidate",
]

__version__ = "0.1.0"

_HOME = {
    "BALANCE": "query_level.policy",
    "COST_FIRST": "query_level.policy",
    "Candidate": "types",
    "ChromaThoughtTemplateStore": "thought_level.chroma_store",
    "DistillationTrainer": "model_level.distillation_trainer",
    "DistillationTrainingArguments": "model_level.distillation_config",
    "FusionPipeline": "pipeline",
    "FusionPlan": "pipeline",
    "InMemoryThoughtTemplateStore": "thought_level.template_store",
    "LogRecord": "logs.schema",
    "LogStore": "logs.store",
    "Message": "types",
    "PERFORMANCE_FIRST": "query_level.policy",
    "Price": "types",
    "PriceTable": "types",
    "Query": "types",
    "ReloadingRouter": "query_level.reloading_router",
    "RouteDecision": "query_level.decision",
    "RouterModel": "query_level.router_model",
    "RouterTrainer": "query_level.router_trainer",
    "RouterTrainingArguments": "query_level.router_config",
    "RoutingPolicy": "query_level.policy",
    "RunBudget": "query_level.run_budget",
    "Score": "logs.schema",
    "StudentModel": "model_level.student_model",
    "ThoughtPrompter": "thought_level.template_prompt",
    "ThoughtTemplateLibrary": "thought_level.template_library",
    "ThoughtTemplateTrainer": "thought_level.template_trainer",
    "ThoughtTemplateTrainingArguments": "thought_level.template_config",
    "add_candidate": "query_level.pool_changes",
    "load_logs": "logs.frame",
    "remove_candidate": "query_level.pool_changes",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
