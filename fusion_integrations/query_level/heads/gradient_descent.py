"""Train a torch module on the cells there are; shared by the neural heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion_integrations._optional import require
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import MIN_ANSWERS, HeadInputs

__all__ = ["as_array", "cell_loss", "descend", "seeded_torch"]

_MIN_STEPS = 200


@contextmanager
def seeded_torch(*, seed: int, n_threads: int) -> Iterator[Any]:
    """Give torch with a seed and a thread count of its own; the caller's are restored after."""
    torch = require("torch", extra="transformers")
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(n_threads)
        try:
            yield torch
        finally:
            torch.set_num_threads(before)


def descend(
    torch: Any,
    forward: Callable[[Any], Any],
    parameters: Mapping[str, Any],
    *,
    features: FloatArray,
    inputs: HeadInputs,
    n_epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int = 128,
) -> None:
    """Fit parameters with AdamW under a falling learning rate.

    The loss is `cell_loss`.

    Args:
        torch: From `seeded_torch`.
        forward: Maps a (b, d) tensor of features to (b, t) logits.
        parameters: What to fit, by name; names that end in `bias` do not decay.
        features: (n, d), scaled.
        inputs: Targets in [0, 1] and their weights.
        n_epochs: Passes over the queries; more where they are too few to make 200 steps.
        learning_rate: At the start.
        weight_decay: AdamW's, on all but biases.
        batch_size: Queries a step.
    """
    x, loss_of = torch.from_numpy(features), cell_loss(torch, inputs)
    decaying = [p for name, p in parameters.items() if not name.endswith("bias")]
    others = [p for name, p in parameters.items() if name.endswith("bias")]
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)
    n_batches = -(-len(x) // batch_size)
    n_epochs = max(n_epochs, -(-_MIN_STEPS // max(n_batches, 1)))
    n_steps = n_epochs * n_batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(x)).split(batch_size):
            loss = loss_of(forward(x[rows]), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def cell_loss(torch: Any, inputs: HeadInputs) -> Callable[[Any, Any], Any]:
    """Give the loss of logits (b, t) for b rows: the weighted cross-entropy of the values that these have.

    Missing cells pull nowhere.
    """
    targets = torch.from_numpy(np.nan_to_num(inputs.targets))
    # A candidate with few answers keeps the mean it starts from; descent would follow each of them.
    enough = (inputs.weights > 0).sum(axis=0) >= MIN_ANSWERS
    weights = torch.from_numpy(inputs.weights * enough)

    def loss_of(logits: Any, rows: Any) -> Any:
        cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
        total = cross_entropy(logits, targets[rows], weight=weights[rows], reduction="sum")
        return total / weights[rows].sum().clamp(min=1.0)

    return loss_of


def as_array(tensor: Any) -> npt.NDArray[np.float64]:
    """Return a fitted parameter as an array."""
    array: npt.NDArray[np.float64] = tensor.detach().double().numpy()
    return array
