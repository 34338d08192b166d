"""Predictions, averages and log frames small enough to work every expected number out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.rows import messages_to_json
from fusion_integrations.query_level.decision import DecisionBasis
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate, Query


def candidates_named(names: Sequence[str]) -> tuple[Candidate, ...]:
    return tuple(Candidate(id=name, model=f"m-{name}") for name in names)


def prediction_of(
    performance: Any,
    *,
    cost: Any = None,
    input_tokens: Any = None,
    output_tokens: Any = None,
    candidates: Sequence[Candidate] | None = None,
) -> Prediction:
    """Make a prediction of (m, n, k) members, or of one certain member from (n, k); what is None is NaN."""
    members = np.asarray(performance, dtype=np.float32)
    members = members if members.ndim == 3 else np.stack([members, members])
    shape = members.shape[1:]

    def filled(values: Any) -> np.ndarray:
        given = np.nan if values is None else np.asarray(values, dtype=np.float32)
        return np.broadcast_to(given, shape).astype(np.float32)

    return Prediction(
        candidates=tuple(candidates or candidates_named("abcdefgh"[: shape[1]])),
        performance_members=members,
        input_tokens=filled(input_tokens),
        output_tokens=filled(output_tokens),
        logged_cost_usd=filled(cost),
    )


def basis_of(
    performance: Sequence[float],
    *,
    cost: Any = None,
    scale: float | None = None,
    margins: Mapping[float, float] | None = None,
    **prediction: Any,
) -> DecisionBasis:
    """Make a basis from the k means of training."""
    average = prediction_of([performance], cost=cost, **prediction)
    return DecisionBasis(average=average, cost_scale_usd=scale, margin_z=margins or {}, artifact="digest")


def frame_of(*rows: Mapping[str, Any]) -> pl.DataFrame:
    """Make a log frame; a row names its query text `q`, its candidate `c`, and any column of LOG_SCHEMA."""
    return pl.DataFrame([_record(number, **row) for number, row in enumerate(rows)], schema=LOG_SCHEMA)


def _record(number: int, *, q: str, c: str, **columns: Any) -> dict[str, Any]:
    query = Query.from_text(q)
    return {
        **dict.fromkeys(LOG_SCHEMA),
        "record_id": f"r{number}",
        "query_id": query.query_id,
        "messages": messages_to_json(query.messages),
        "query_text": query.text,
        "candidate_id": c,
        "candidate_revision": "",
        "model": f"m-{c}",
        "prompt_mode": "direct",
        "response": "answer",
        "assignment": "factorial",
        "eligible": [],
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "source": "test",
        "sample": 0,
        **columns,
    }


_FRUITS = ("apples", "pears", "plums", "figs", "limes", "dates", "nuts", "grapes", "kiwis", "melons")
_PLACES = (
    "rivers",
    "harbours",
    "forests",
    "deserts",
    "islands",
    "valleys",
    "meadows",
    "towns",
    "caves",
    "lakes",
)


def two_task_rows(
    n_per_task: int = 15, *, has_tasks: bool = True, has_cost: bool = True
) -> list[dict[str, Any]]:
    """Rows of two tasks that differ in their words: `a` always solves sums, `b` prose; `b` costs double."""
    rows = []
    for i in range(n_per_task):
        other = (i * 3 + i // 10 + 1) % 10
        first, second = _FRUITS[i % 10], _FRUITS[other]
        texts = {
            "sums": f"How many are 3 {first} plus 4 {second} and {i} more {_FRUITS[(i + 7) % 10]}?",
            "prose": f"Write a gentle story about {_PLACES[i % 10]} near {_PLACES[other]}",
        }
        for task, text in texts.items():
            for name, good_at, cost in (("a", "sums", 0.001), ("b", "prose", 0.002)):
                rows.append(
                    {
                        "q": text,
                        "c": name,
                        "task": task if has_tasks else None,
                        "performance": float(task == good_at),
                        "cost_usd": cost if has_cost else None,
                        "input_tokens": len(text) if has_cost else None,
                        "output_tokens": 10 if has_cost else None,
                    }
                )
    return rows


@pytest.fixture(scope="session")
def named() -> Callable[[Sequence[str]], tuple[Candidate, ...]]:
    return candidates_named


@pytest.fixture(scope="session")
def predict() -> Callable[..., Prediction]:
    return prediction_of


@pytest.fixture(scope="session")
def basis() -> Callable[..., DecisionBasis]:
    return basis_of


@pytest.fixture(scope="session")
def logs() -> Callable[..., pl.DataFrame]:
    return frame_of


@pytest.fixture(scope="session")
def two_tasks() -> Callable[..., list[dict[str, Any]]]:
    return two_task_rows
