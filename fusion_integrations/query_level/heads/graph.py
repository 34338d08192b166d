"""A graph of tasks, queries and candidates, whose edges carry who did how well where.

Candidate nodes start from their descriptions and gather what they reached in each task; task nodes start from
their queries and gather who does well there; a query gathers from the tasks it resembles, and is then matched
with every candidate. A new query joins the graph by its features alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means, require_above_zero
from fusion_integrations.query_level.heads.gradient_descent import as_array, descend, seeded_torch
from fusion_integrations.query_level.heads.logistic import logistic, logit
from fusion_integrations.query_level.heads.scaling import FeatureScaling

__all__ = ["GraphHead", "GraphHeadConfig", "fit_graph_head"]

_MAX_QUERIES = 100_000
_SHRINKAGE = 10.0  # weight of a candidate's mean in its mean within a task, in answers


@dataclass(frozen=True, kw_only=True)
class GraphHeadConfig:
    """Settings of the graph head.

    Attributes:
        n_hidden: Length of every node's state.
        n_epochs: Passes over the queries.
        learning_rate: Of AdamW, at the start.
        weight_decay: Of AdamW.
        dropout: Share of a query's state left out in each training step.
    """

    name: Literal["graph"] = "graph"
    n_hidden: int = 64
    n_epochs: int = 15
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    dropout: float = 0.3

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0.
        """
        require_above_zero(self, "n_hidden", "n_epochs", "learning_rate", "weight_decay", "dropout")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphHead:
    """The states of the trained graph; a query is matched with them.

    Attributes:
        query: (d, h) turn features into a query's first state.
        query_bias: (h,).
        task_keys: (h, g) a query resembles task i by its first state times column i.
        task_states: (g, h) what a query gathers from each task.
        candidates: (h, t) state of each candidate, ready to be multiplied with a query's state.
        bias: (t,).
    """

    query: FloatArray
    query_bias: FloatArray
    task_keys: FloatArray
    task_states: FloatArray
    candidates: FloatArray
    bias: FloatArray

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (n, t) values from (n, d) features."""
        first = np.maximum(features @ self.query + self.query_bias, 0.0)
        resemblance = first @ self.task_keys
        shares = np.exp(resemblance - resemblance.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        state = first + shares @ self.task_states
        return logistic(state @ self.candidates + self.bias)

    def tensors(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return everything learned as named arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild the head from `tensors`."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


def fit_graph_head(config: GraphHeadConfig, inputs: HeadInputs) -> GraphHead:
    """Train the graph end to end on the edges between queries and candidates.

    Source:
        GraphRouter (arXiv 2410.03834): the same nodes and edges, in plain PyTorch; it predicts every
        candidate's performance where the paper predicts the best edge.
    """
    means = column_means(inputs.targets, inputs.weights)
    inputs = inputs.sample(_MAX_QUERIES)
    scaling = FeatureScaling.fit(inputs.features, n_embedding=inputs.n_embedding)
    features = scaling.apply(inputs.features)
    assignment = _assignment(inputs.tasks)
    edges = _task_edges(assignment, inputs, means)
    with seeded_torch(seed=inputs.seed, n_threads=inputs.n_threads) as torch:
        network = _network(torch, config, inputs, features=features, assignment=assignment, edges=edges)
        with torch.no_grad():
            network["matching"].bias.copy_(torch.from_numpy(logit(means)))
        forward, states = network["forward"], network["states"]
        parameters = dict(network["modules"].named_parameters())
        descend(
            torch,
            forward,
            parameters,
            features=features,
            inputs=inputs,
            n_epochs=config.n_epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        network["modules"].eval()
        task_keys, task_states, candidates = (as_array(state).astype(np.float32) for state in states())
        query = network["modules"]["query"]
        weights, bias = scaling.fold(as_array(query.weight).T, as_array(query.bias))
        return GraphHead(
            query=weights,
            query_bias=bias,
            task_keys=np.ascontiguousarray(task_keys.T),
            task_states=np.ascontiguousarray(task_states),
            candidates=np.ascontiguousarray(candidates.T),
            bias=as_array(network["matching"].bias).astype(np.float32),
        )


def _assignment(tasks: tuple[str | None, ...]) -> FloatArray:
    """Give (g, n) shares of the queries in each task node, rows summing to 1; unknown tasks share a node."""
    names, index = np.unique([task or "" for task in tasks], return_inverse=True)
    member = np.zeros((len(names), len(tasks)), dtype=np.float32)
    member[index, np.arange(len(tasks))] = 1.0
    shares: FloatArray = member / member.sum(axis=1, keepdims=True)
    return shares


def _task_edges(assignment: FloatArray, inputs: HeadInputs, means: FloatArray) -> FloatArray:
    """Give (g, t) how much better than its mean each candidate does in each task, shrunk towards 0."""
    member = (assignment > 0).astype(np.float32)
    sums = member @ ((np.nan_to_num(inputs.targets) - means) * inputs.weights)
    edges: FloatArray = (sums / (member @ inputs.weights + _SHRINKAGE)).astype(np.float32)
    return edges


def _network(
    torch: Any,
    config: GraphHeadConfig,
    inputs: HeadInputs,
    *,
    features: FloatArray,
    assignment: FloatArray,
    edges: FloatArray,
) -> dict[str, Any]:
    """Build the layers, the function of the node states and the forward pass that uses them."""
    h, (n_tasks, n_candidates) = config.n_hidden, edges.shape
    linear = torch.nn.Linear
    modules = torch.nn.ModuleDict(
        {
            "query": linear(features.shape[1], h),
            "description": linear(inputs.column_embeddings.shape[1], h),
            "candidate_from_tasks": linear(h, h, bias=False),
            "task_from_candidates": linear(h, h, bias=False),
            "query_from_tasks": linear(h, h, bias=False),
            "candidate_state": linear(h, h),
        }
    )
    matching = linear(1, n_candidates)  # only its bias is used: what a candidate reaches on any query
    modules["matching"] = matching
    descriptions = torch.from_numpy(inputs.column_embeddings)
    of_task = torch.from_numpy(edges)
    task_features = torch.from_numpy(assignment @ features)
    scale = float(h) ** -0.5
    dropout = torch.nn.Dropout(config.dropout)

    def states() -> tuple[Any, Any, Any]:
        task = torch.relu(modules["query"](task_features))
        candidate = torch.relu(modules["description"](descriptions))
        candidate = candidate + modules["candidate_from_tasks"](of_task.T @ task / n_tasks)
        gathered = modules["task_from_candidates"](of_task @ candidate / n_candidates)
        matched = modules["candidate_state"](candidate)
        return task * scale, modules["query_from_tasks"](task + gathered), matched * scale

    def forward(x: Any) -> Any:
        keys, values, candidates = states()
        first = torch.relu(modules["query"](x))
        state = first + torch.softmax(first @ keys.T, dim=1) @ values
        if modules.training:
            state = dropout(state)
        return state @ candidates.T + matching.bias

    return {"modules": modules, "matching": matching, "forward": forward, "states": states}
