"""Logs and a router small enough to work every expected number out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fusion_integrations.evaluation.benchmark_report import (
    BenchmarkReport,
    BenchmarkRow,
    CostQuality,
    HeadDetails,
    ScenarioOutcome,
)
from fusion_integrations.evaluation.level_report import Level, LevelEffect, LevelReport, LevelRow
from fusion_integrations.evaluation.model_pairs import PairMeasures
from fusion_integrations.evaluation.query_outcomes import QueryOutcome
from fusion_integrations.evaluation.reliability import ReliabilityBin
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.rows import messages_to_json
from fusion_integrations.protocols import EmbedderIdentity, FloatArray
from fusion_integrations.query_level.decision import DecisionBasis
from fusion_integrations.query_level.heads.cluster import ClusterHead
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_weights import RouterWeights
from fusion_integrations.query_level.text_features import text_features
from fusion_integrations.query_level.usage import UsageModel
from fusion_integrations.statistics import Interval
from fusion_integrations.types import Candidate, Query

SMALL = Candidate(id="small", model="small")
LARGE = Candidate(id="large", model="large")
THOUGHT = Candidate(id="small:thought", model="small", prompt_mode="thought")
STUDENT = Candidate(id="student", model="student")
COST_USD = {"small": 0.25, "large": 1.0, "small:thought": 0.5, "student": 0.25}
# What the router below expects on sums and elsewhere, and on average.
EXPECTED = {"small": (0.1, 0.8), "large": (0.9, 0.1), "small:thought": (0.5, 0.9), "student": (0.3, 0.2)}
AVERAGES = {"small": 1 / 3, "large": 3 / 4, "small:thought": 1 / 2, "student": 1 / 4}

Outcome = tuple[float | None, float | None]
Row = tuple[str, str | None, Mapping[str, Outcome]]


class SumEmbedder:
    """Embeds a text as (1, 0) if it contains the word "sum", else as (0, 1)."""

    identity = EmbedderIdentity(name="sum", engine="test", precision="fp32", dimensions=2, max_tokens=0)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        is_sum = np.array([["sum" in text.split()] for text in texts])
        return np.concatenate([is_sum, ~is_sum], axis=1).astype(np.float32)


def log_frame(rows: Sequence[Row], *, label: str = "performance") -> pl.DataFrame:
    """Make a log frame of (text, task, {candidate id: (score, USD)}) rows."""
    records = []
    for text, task, outcomes in rows:
        query = Query.from_text(text, task=task)
        records += [
            dict.fromkeys(LOG_SCHEMA)
            | {
                "record_id": f"{query.query_id}-{candidate_id}",
                "query_id": query.query_id,
                "messages": messages_to_json(query.messages),
                "query_text": query.text,
                "task": task,
                "candidate_id": candidate_id,
                "candidate_revision": "",
                "model": candidate_id,
                "prompt_mode": "direct",
                "response": "answer",
                "cost_usd": cost_usd,
                "input_tokens": 10,
                "output_tokens": 5,
                "assignment": "factorial",
                "eligible": [],
                "created_at": datetime(2026, 1, 1, tzinfo=UTC),
                "source": "test",
                "sample": 0,
                label: score,
            }
            for candidate_id, (score, cost_usd) in outcomes.items()
        ]
    return pl.DataFrame(records, schema=LOG_SCHEMA)


def scored(text: str, task: str | None, small: float, large: float) -> Row:
    """A row in which both candidates answered at their usual cost."""
    return text, task, {"small": (small, COST_USD["small"]), "large": (large, COST_USD["large"])}


# Training means: performance small (0 + 0.25 + 0.75) / 3 = 1/3, large (1 + 1 + 0.25) / 3 = 3/4.
TRAIN_ROWS = (
    scored("two apples and a sum", "math", 0.0, 1.0),
    scored("add the pears as a sum", "math", 0.25, 1.0),
    scored("write of rivers", "prose", 0.75, 0.25),
)
# The router below takes the last one for a sum, by its word.
TEST_ROWS = (
    scored("the sum of all coins", "math", 0.0, 1.0),
    scored("find a sum quickly", "math", 1.0, 1.0),
    scored("praise the harbour", "prose", 1.0, 0.0),
    scored("tell a story in sum", "prose", 0.5, 0.0),
)


def hand_made_router(
    columns: Sequence[Candidate] = (SMALL, LARGE), *, log_fingerprint: str = ""
) -> RouterModel:
    """A router that knows EXPECTED, AVERAGES and COST_USD, and always follows its prediction."""
    n_features = 2 + text_features(["any"]).shape[1]
    select = np.zeros((n_features, 2), dtype=np.float32)
    select[0, 0] = select[1, 1] = 50.0  # softmax(50, 0) is (1, 0) in float32
    means = np.array([EXPECTED[c.id] for c in columns], dtype=np.float32).T
    head = ClusterHead(weights=select, bias=np.zeros(2, dtype=np.float32), means=means)
    costs = np.array([COST_USD[c.id] for c in columns], dtype=np.float32)
    unknown = np.full(len(columns), np.nan, dtype=np.float32)
    usage = UsageModel(
        input_fit=np.stack([unknown, unknown]),
        head=ClusterHead(
            weights=np.zeros((n_features, 1), dtype=np.float32),
            bias=np.zeros(1, dtype=np.float32),
            means=np.concatenate([unknown, costs])[None, :],
        ),
        scale=np.ones(2 * len(columns), dtype=np.float32),
    )
    average = Prediction(
        candidates=tuple(columns),
        performance_members=np.array([[[AVERAGES[c.id] for c in columns]]], dtype=np.float32),
        input_tokens=unknown[None],
        output_tokens=unknown[None],
        logged_cost_usd=costs[None],
    )
    return RouterModel(
        weights=RouterWeights(
            candidates=tuple(columns), head_name="cluster", members=(head, head), usage=usage
        ),
        basis=DecisionBasis(average=average, cost_scale_usd=1.0, margin_z={0.0: 0.0}),
        embedder=SumEmbedder(),
        log_fingerprint=log_fingerprint,
    )


_FRUITS = ("apple", "pear", "plum", "fig", "lime", "date", "nut", "grape", "kiwi", "melon")
_PLACES = ("river", "harbour", "forest", "desert", "island", "valley", "meadow", "town", "cave", "lake")


def sums_and_prose(
    n_per_task: int = 25, *, costs: tuple[float | None, float | None] = (1.0, 2.0), families: bool = False
) -> pl.DataFrame:
    """Sums that `a` always solves and prose that `b` does; what is not solved scores 0."""
    rows: list[dict[str, object]] = []
    for i in range(n_per_task):
        fruit, place = _FRUITS[i % 10], _PLACES[i % 10]
        texts = {
            "sums": f"how many {fruit} plus {_FRUITS[(i // 10 + 3) % 10]} sum {'more ' * (i // 10)}",
            "prose": f"write story {place} near {_PLACES[(i // 10 + 3) % 10]} gentle {'long ' * (i // 10)}",
        }
        for task, text in texts.items():
            for name, good_at, cost in (("a", "sums", costs[0]), ("b", "prose", costs[1])):
                rows.append(
                    dict.fromkeys(LOG_SCHEMA)
                    | {
                        "record_id": f"{task}{i}{name}",
                        "query_id": f"{task}{i}",
                        "query_text": text,
                        "task": f"{task}/{i % 2}" if families else task,
                        "candidate_id": name,
                        "model": name,
                        "prompt_mode": "direct",
                        "cost_usd": cost,
                        "performance": float(task == good_at),
                    }
                )
    return pl.DataFrame(rows, schema=LOG_SCHEMA)


def one_answer_each(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep one random answer a query."""
    return frame.sample(fraction=1.0, shuffle=True, seed=0).unique(
        "query_id", keep="first", maintain_order=True
    )


def level_row(level: Level, name: str, gain: tuple[float, float, float]) -> LevelRow:
    """A row whose gain in performance and reward is (mean, low, high) over 0.5 and whose cost is unknown."""
    interval = Interval(mean=gain[0], low=gain[1], high=gain[2])
    return LevelRow(
        level=level,
        name=name,
        performance=0.5 + gain[0],
        cost_usd=None,
        reward=0.5 + gain[0],
        performance_gain=interval,
        reward_gain=interval,
        switch_share=0.25 if level in ("query level", "all levels") else None,
        per_task={"math": 0.5 + gain[0], "prose": 0.5},
        candidate_shares={},
    )


def hand_made_level_report(**gains: tuple[float, float, float]) -> LevelReport:
    """A comparison over "small" in which all, query, thought and model gain what is given, else nothing."""
    nothing = (0.0, -0.1, 0.1)
    thought = level_row("thought level", "small:thought", gains.get("thought", nothing))
    return LevelReport(
        rows=(
            level_row("zero-shot", "small", (0.0, 0.0, 0.0)),
            level_row("query level", "[bold]router", gains.get("query", nothing)),
            thought,
            level_row("model level", "student", gains.get("model", nothing)),
            level_row("all levels", "router of 4", gains.get("all", nothing)),
            level_row("baseline", "Oracle", (0.4, 0.3, 0.5)),
        ),
        effects=(
            LevelEffect(
                level="thought level",
                name="small:thought",
                against="small",
                performance_gain=thought.performance_gain,
                cost_change_usd=-0.25,
            ),
        ),
        reference="small",
        students={"student": "small"},
        without_counterpart=(),
        policy=PERFORMANCE_FIRST,
        cost_scale_usd=None,
        coverage=0.9,
        n_train_queries=20,
        n_reference_queries=40,
        candidates=("small", "small:thought", "student"),
        tasks={"math": 60, "prose": 40},
        label="performance",
        n_queries=100,
        n_groups=100,
        n_left_out=0,
        n_leaked=0,
        n_unseen_task=0,
        trained_elsewhere=(),
    )


def hand_made_benchmark(
    *,
    names: Sequence[str] = ("small", "large"),
    tasks: Sequence[str] = ("math", "prose", "code"),
    has_costs: bool = True,
    queries: Sequence[QueryOutcome] | None = None,
    **changes: object,
) -> BenchmarkReport:
    """A benchmark of the heads cluster and stack among candidates of these names; 100 queries a task."""
    if queries is None:
        sums = QueryOutcome(
            query_id="q",
            text="two pears and a sum",
            task=tasks[0],
            performance={names[0]: 0.0, names[1]: 1.0},
            chosen={"cluster": names[0], "stack": names[1]},
        )
        others = [
            replace(
                sums, query_id=f"q{i}", text=name, task=tasks[1], chosen=dict.fromkeys(sums.chosen, names[1])
            )
            for i, name in enumerate(itertools.islice(itertools.cycle(names), 40))
        ]
        queries = (sums, *others)
    costs = dict(zip(names, (0.001, 0.1, *[0.01] * len(names)), strict=False))
    pair = PairMeasures(strong=names[1], weak=names[0], apgr=0.625, cpt_50=0.25, cpt_80=0.5)
    gains = {
        "Random": -0.2,
        "Best Single": 0.0,
        "Best per Task": 0.05,
        "Oracle": 0.3,
        "cluster": 0.0,
        "stack": 0.04,
    }
    policies = ["performance-first", *(["balance"] if has_costs else [])]
    rows = []
    for strategy, gain in gains.items():
        width = 0.0 if strategy == "Best Single" else 0.02
        outcome = ScenarioOutcome(
            performance=0.5 + gain,
            cost_usd=0.05 if has_costs else None,
            reward=0.5 + gain,
            gain=Interval(mean=gain, low=gain - width, high=gain + width),
        )
        points = ((0.001, 0.25), (0.05, 0.5 + gain), (0.1, 0.5))
        head = HeadDetails(
            switch_share=0.125,
            unbounded=outcome,
            mse=0.25,
            reliability=tuple(
                ReliabilityBin(
                    n=10, predicted=each, observed=Interval(mean=each, low=each - 0.1, high=each + 0.1)
                )
                for each in (0.25, 0.75)
            ),
            cost_quality=CostQuality(points=points, aiq=0.4375, cost_at_best_single=0.5)
            if has_costs
            else None,
            pairs={"all": pair} if len(names) == 2 else {},
            train_seconds=1.0,
            n_members=7,
            head_names={strategy: 1},
        )
        rows.append(
            BenchmarkRow(
                strategy=strategy,
                scenarios=dict.fromkeys(policies, outcome),
                per_task=dict.fromkeys(tasks, 0.5 + gain),
                candidate_shares={names[0]: 0.25, names[1]: 0.75},
                head=head if strategy in ("cluster", "stack") else None,
            )
        )
    report = BenchmarkReport(
        name=names[0],
        split="5 folds, near-duplicates together",
        answers="100%",
        label="performance",
        candidates=dict.fromkeys(names, 0.5) | {names[0]: 0.25},
        candidate_costs=costs if has_costs else dict.fromkeys(names),
        candidate_tasks={name: dict.fromkeys(tasks, 0.5) for name in names},
        tasks=dict.fromkeys(tasks, 100),
        n_queries=100 * len(tasks),
        n_groups=100 * len(tasks),
        n_left_out=3,
        is_estimated=False,
        level=0.95,
        policies={name: {"cost_weight": 0.5} for name in policies},
        rows=tuple(rows),
        queries=tuple(queries),
    )
    return replace(report, **changes)  # type: ignore[arg-type]  # any field


@pytest.fixture(scope="session")
def make_benchmark() -> Callable[..., BenchmarkReport]:
    return hand_made_benchmark


@pytest.fixture
def make_level_report() -> Callable[..., LevelReport]:
    return hand_made_level_report


@pytest.fixture
def make_logs() -> Callable[..., pl.DataFrame]:
    return log_frame


@pytest.fixture(scope="session")
def make_sums_and_prose() -> Callable[..., pl.DataFrame]:
    return sums_and_prose


@pytest.fixture(scope="session")
def keep_one_answer() -> Callable[[pl.DataFrame], pl.DataFrame]:
    return one_answer_each


@pytest.fixture
def make_row() -> Callable[..., Row]:
    return scored


@pytest.fixture
def make_router() -> Callable[..., RouterModel]:
    return hand_made_router


@pytest.fixture
def candidates() -> tuple[Candidate, Candidate]:
    return SMALL, LARGE


@pytest.fixture
def all_candidates() -> tuple[Candidate, ...]:
    return SMALL, LARGE, THOUGHT, STUDENT


@pytest.fixture
def train_rows() -> tuple[Row, ...]:
    return TRAIN_ROWS


@pytest.fixture
def test_rows() -> tuple[Row, ...]:
    return TEST_ROWS
