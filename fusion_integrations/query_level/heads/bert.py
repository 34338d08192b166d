"""A fine-tuned sentence encoder with one output a candidate; the one head that reads the texts themselves.

Training a whole encoder for every member would take hours on a CPU. Here the lower layers of all-MiniLM-L6-v2
stay as published, so that their work on a text is done once, and the members share the layers trained on top.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fusion_integrations.embedders.minilm_layers import MINILM_LAYERS, MiniLMLayers
from fusion_integrations.embedders.minilm_weights import MINILM_DIMENSIONS
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import HeadInputs, column_means, require_above_zero
from fusion_integrations.query_level.heads.gradient_descent import as_array, cell_loss, seeded_torch
from fusion_integrations.query_level.heads.linear import LinearHead
from fusion_integrations.query_level.heads.logistic import logit
from fusion_integrations.query_level.heads.scaling import FeatureScaling
from fusion_integrations.query_level.heads.tuned_embedding import TunedEmbedding, batches_of_like_length

__all__ = ["BertHeadConfig", "fit_bert_members"]

_MAX_QUERIES = 10_000  # whose hidden states, 0.1 MB each at most, are held in memory
_BATCHES_SORTED_TOGETHER = 16
_MIN_STEPS = 40
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True, kw_only=True)
class BertHeadConfig:
    """Settings of the fine-tuned encoder.

    Attributes:
        n_tuned_layers: Layers trained, from the top, of 6.
        max_tokens: Longer texts are cut here, at 256 at the latest.
        n_epochs: Passes over the queries; more where they are too few to make 40 steps.
        learning_rate: Of AdamW on the layers, at its highest.
        output_learning_rate: Of AdamW on the output layer.
        weight_decay: Of AdamW.
        dropout: Share of a layer's additions left out in each training step.
        batch_size: Queries a step.
    """

    name: Literal["bert"] = "bert"
    n_tuned_layers: int = 1
    max_tokens: int = 128
    n_epochs: int = 3
    learning_rate: float = 1e-4
    output_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value is not above 0, or there are fewer layers than are to be trained.
        """
        require_above_zero(self, *(name for name in asdict(self) if name != "name"))
        if self.n_tuned_layers > MINILM_LAYERS:
            message = (
                f"BertHeadConfig.n_tuned_layers must be at most {MINILM_LAYERS}, got {self.n_tuned_layers}."
            )
            raise InvalidPolicyError(message)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)


def fit_bert_members(
    config: BertHeadConfig, inputs: HeadInputs, sees: npt.NDArray[np.bool_]
) -> tuple[TunedEmbedding, tuple[LinearHead, ...]]:
    """Train one embedding, and for each member an output layer on it that learns from some of the queries.

    All is trained together, by the weighted cross-entropy of the values there are: the embedding by every
    query, an output layer by those its member sees. The members therefore differ less than members that share
    nothing, and their spread alone is too small an uncertainty; and on its own fold a member is not unseen.
    What a router calibrates its errors and margins on is predicted by routers trained without it altogether,
    and so is right.

    Args:
        config: The settings.
        inputs: What to learn from, n queries; a sample of them if there are more than 10,000.
        sees: (n, m) which queries each of the m members learns from.

    Returns:
        The embedding, and the members, which read the features it gives.

    Raises:
        MissingDependencyError: If a package or the weights of all-MiniLM-L6-v2 are missing.
        ArtifactFormatError: If those weights are not the published ones.
    """
    m, t = sees.shape[1], inputs.targets.shape[1]
    means = [column_means(inputs.targets, inputs.weights * sees[:, [member]]) for member in range(m)]
    beside = _side_by_side(inputs, sees).sample(_MAX_QUERIES)
    scaling = _scaling(beside.features[:, inputs.n_embedding :])
    layers = MiniLMLayers(max_tokens=config.max_tokens)
    with seeded_torch(seed=inputs.seed, n_threads=inputs.n_threads) as torch:
        top = [
            {name: tensor.clone().requires_grad_() for name, tensor in layers.layer_weights(number).items()}
            for number in range(MINILM_LAYERS - config.n_tuned_layers, MINILM_LAYERS)
        ]
        output = torch.nn.Linear(len(scaling.scale), m * t)
        with torch.no_grad():
            output.weight.zero_()
            output.bias.copy_(torch.from_numpy(logit(np.concatenate(means))))
        _descend(torch, config, beside, layers=layers, top=top, output=output, scaling=scaling)
        weights, bias = scaling.fold(as_array(output.weight).T, as_array(output.bias))
    embedding = TunedEmbedding(
        layers=layers,
        # Rounded to the 16 bits that are stored, so that a saved router predicts what this one does.
        top=tuple({name: tensor.detach().half().float() for name, tensor in each.items()} for each in top),
        n_embedding=inputs.n_embedding,
        max_tokens=config.max_tokens,
    )
    members = tuple(
        LinearHead(weights=np.ascontiguousarray(of_weights), bias=of_bias, is_logistic=np.array([1]))
        for of_weights, of_bias in zip(np.split(weights, m, axis=1), np.split(bias, m), strict=True)
    )
    return embedding, members


def _side_by_side(inputs: HeadInputs, sees: npt.NDArray[np.bool_]) -> HeadInputs:
    """Repeat the t columns for each of the m members, with weights for what it sees: (n, m * t)."""
    m, t = sees.shape[1], inputs.targets.shape[1]
    weights = np.tile(inputs.weights, (1, m)) * np.repeat(sees, t, axis=1)
    return replace(inputs, targets=np.tile(inputs.targets, (1, m)), weights=weights)


def _scaling(surface: FloatArray) -> FeatureScaling:
    """Scale (n, s) surface features as other heads do, the embedding to as much variance as all of them."""
    of_surface = FeatureScaling.fit(surface, n_embedding=0)
    share = max(surface.shape[1], 1) ** -0.5
    return FeatureScaling(
        center=np.concatenate([np.zeros(MINILM_DIMENSIONS), of_surface.center]),
        scale=np.concatenate([np.full(MINILM_DIMENSIONS, share), of_surface.scale]),
    )


def _descend(
    torch: Any,
    config: BertHeadConfig,
    inputs: HeadInputs,
    *,
    layers: MiniLMLayers,
    top: list[dict[str, Any]],
    output: Any,
    scaling: FeatureScaling,
) -> None:
    """Fit the layers and the output under a learning rate that rises, then falls."""
    states = _lower_states(config, inputs, layers=layers)
    embedded_scale, loss_of = float(scaling.scale[0]), cell_loss(torch, inputs)
    surface = inputs.features[:, inputs.n_embedding :]
    padded = np.concatenate([np.zeros((len(inputs), MINILM_DIMENSIONS), dtype=np.float32), surface], axis=1)
    scaled_surface = torch.from_numpy(scaling.apply(padded)[:, MINILM_DIMENSIONS:])
    tuned = [tensor for weights in top for tensor in weights.values()]
    optimizer = torch.optim.AdamW(
        [
            {"params": tuned, "lr": config.learning_rate},
            {"params": [output.weight], "lr": config.output_learning_rate},
            {"params": [output.bias], "lr": config.output_learning_rate, "weight_decay": 0.0},
        ],
        weight_decay=config.weight_decay,
    )
    n_batches = -(-len(inputs) // config.batch_size)
    n_epochs = max(config.n_epochs, -(-_MIN_STEPS // n_batches))
    n_steps = n_epochs * n_batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (_WARM_UP * n_steps), 1.0, 1.0 - step / n_steps)
    )
    rng = np.random.default_rng(inputs.seed)
    for _ in range(n_epochs):
        for rows in _batches(states, config.batch_size, rng=rng):
            hidden, mask = layers.pad([states[row].float() for row in rows])
            for weights in top:
                hidden = layers.run_layer(hidden, mask, weights, dropout=config.dropout)
            seen = torch.cat([layers.pool(hidden, mask) / embedded_scale, scaled_surface[rows]], dim=1)
            loss = loss_of(output(seen), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _lower_states(config: BertHeadConfig, inputs: HeadInputs, *, layers: MiniLMLayers) -> list[Any]:
    """Run the layers that stay as they are: n tensors (l, 384) of 16 bits, l the tokens of each text."""
    token_ids = layers.tokenize(inputs.texts)
    states: list[Any] = [None] * len(token_ids)
    for rows in batches_of_like_length([len(ids) for ids in token_ids], batch_size=config.batch_size):
        hidden, _ = layers.run_lower(
            [token_ids[row] for row in rows], n_layers=MINILM_LAYERS - config.n_tuned_layers
        )
        for row, state in zip(rows, hidden, strict=True):
            states[row] = state[: len(token_ids[row])].half()
    return states


def _batches(states: list[Any], batch_size: int, *, rng: np.random.Generator) -> list[list[int]]:
    """Draw the batches of an epoch: at random, but of like lengths among some hundred drawn together."""
    order, size = rng.permutation(len(states)), batch_size * _BATCHES_SORTED_TOGETHER
    batches = []
    for start in range(0, len(order), size):
        drawn = order[start : start + size]
        groups = batches_of_like_length([len(states[row]) for row in drawn], batch_size=batch_size)
        batches += [[int(drawn[place]) for place in places] for places in groups]
    return [batches[number] for number in rng.permutation(len(batches))]
