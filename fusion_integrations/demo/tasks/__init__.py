"""The demo's queries: eight task families with checkable answers, split by template into train and test."""

from __future__ import annotations

from fusion_integrations.demo.tasks.generator import FAMILIES, TaskSet, generate_tasks

__all__ = ["FAMILIES", "TaskSet", "generate_tasks"]
