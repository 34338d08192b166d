"""The embedded example: tasks written for this project and logs really collected from small local models."""

from __future__ import annotations

from fusion_integrations.demo.demo_log import load_demo_logs, split_demo_logs, teaching_logs

__all__ = ["load_demo_logs", "split_demo_logs", "teaching_logs"]
