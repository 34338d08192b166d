"""All members of a router's default stack at once, in one large matrix product and two small ones.

Deciding on one query is many small steps, each of which costs NumPy more to begin than to do; members in turn
take several times as long. The arithmetic is that of `StackHead`, with its weights multiplied out beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.heads.base import FittedHead
from fusion_integrations.query_level.heads.cluster import ClusterHead, softmax
from fusion_integrations.query_level.heads.experts import MIN_SHARE, ExpertsHead
from fusion_integrations.query_level.heads.linear import LinearHead
from fusion_integrations.query_level.heads.logistic import logistic
from fusion_integrations.query_level.heads.stack import StackHead

__all__ = ["PackedStack"]

_ROWS = 4096  # queries at once: each takes as many numbers as all members have weights a feature


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedStack:
    """m members whose base is `cluster` and whose corrections are `experts` and a logistic `linear`.

    Attributes:
        weights: (d, m * g + m * t + m * g * t) of each feature, member by member: for the scores of its g
            groups, for its logistic regression, for what the expert of each group adds.
        group_bias: (m, 1, g).
        linear_bias: (m, 1, t) of the logistic regression.
        offset: (m, 1, t) of the prediction.
        values: (m, g, t) what a group adds.
        deviation_weights: (m, 1, 1) of what the regression predicts for a candidate.
        level_weights: (m, 1, 1) of its sum over the candidates, besides.
    """

    weights: FloatArray
    group_bias: FloatArray
    linear_bias: FloatArray
    offset: FloatArray
    values: FloatArray
    deviation_weights: FloatArray
    level_weights: FloatArray

    @classmethod
    def of(cls, members: Sequence[FittedHead]) -> PackedStack | None:
        """Pack members; None if they are others than these, or differ in shape."""
        unpacked = [parts for member in members if (parts := _unpack(member)) is not None]
        if not members or len(unpacked) < len(members):
            return None
        if len({(base.weights.shape, experts.weights.shape) for _, base, experts, _ in unpacked}) > 1:
            return None
        offsets, values, expert_weights, deviations, levels = [], [], [], [], []
        for stack, base, experts, _ in unpacked:
            # The order of the components: the base, then the corrections by name.
            d_base, d_experts, d_linear = stack.deviation_weights
            l_base, l_experts, l_linear = stack.level_weights - stack.deviation_weights
            offsets.append(stack.means - _weighed(stack.means, d_base, l_base))
            values.append(
                _weighed(base.means, d_base - d_experts - d_linear, l_base - l_experts - l_linear)
                + _weighed(experts.groups.means + experts.bias, d_experts, l_experts)
            )
            by_group = _weighed(experts.weights, d_experts, l_experts)  # (g, d, t)
            expert_weights.append(by_group.transpose(1, 0, 2).reshape(by_group.shape[1], -1))
            deviations.append(d_linear)
            levels.append(l_linear / len(stack.means))
        return cls(
            weights=np.concatenate(
                [
                    *(base.weights for _, base, _, _ in unpacked),
                    *(linear.weights for _, _, _, linear in unpacked),
                    *expert_weights,
                ],
                axis=1,
            ),
            group_bias=np.stack([base.bias for _, base, _, _ in unpacked])[:, None],
            offset=np.stack(offsets)[:, None],
            values=np.stack(values),
            linear_bias=np.stack([linear.bias for _, _, _, linear in unpacked])[:, None],
            deviation_weights=np.array(deviations, dtype=np.float32)[:, None, None],
            level_weights=np.array(levels, dtype=np.float32)[:, None, None],
        )

    def predict(self, features: FloatArray) -> FloatArray:
        """Predict (m, n, t) values from (n, d) features."""
        if len(features) <= _ROWS:
            return self._predict(features)
        starts = range(0, len(features), _ROWS)
        return np.concatenate([self._predict(features[start : start + _ROWS]) for start in starts], axis=1)

    def _predict(self, features: FloatArray) -> FloatArray:
        m, g, t = self.values.shape
        by_feature = features @ self.weights
        shares = softmax(_by_member(by_feature[:, : m * g], m) + self.group_bias)
        predicted: FloatArray = shares @ self.values + self.offset
        shares[shares < MIN_SHARE] = 0.0
        by_expert = by_feature[:, m * (g + t) :].reshape(len(features), m, g, t).transpose(1, 0, 2, 3)
        predicted += (shares[:, :, None] @ by_expert)[:, :, 0]
        regression = logistic(_by_member(by_feature[:, m * g : m * (g + t)], m) + self.linear_bias)
        predicted += self.deviation_weights * regression
        predicted += self.level_weights * np.add.reduce(regression, axis=2, keepdims=True)
        return predicted


def _by_member(values: FloatArray, m: int) -> FloatArray:
    """Turn (n, m * x) into (m, n, x)."""
    return values.reshape(len(values), m, values.shape[1] // m).transpose(1, 0, 2)


def _unpack(member: FittedHead) -> tuple[StackHead, ClusterHead, ExpertsHead, LinearHead] | None:
    if not isinstance(member, StackHead) or list(member.components) != ["cluster", "experts", "linear"]:
        return None
    base, experts, linear = member.components.values()
    if not (
        isinstance(base, ClusterHead) and isinstance(experts, ExpertsHead) and isinstance(linear, LinearHead)
    ):
        return None
    same_groups = np.array_equal(base.weights, experts.groups.weights) and np.array_equal(
        base.bias, experts.groups.bias
    )
    return (member, base, experts, linear) if same_groups and linear.is_logistic[0] else None


def _weighed(values: FloatArray, deviation_weight: np.float32, level_weight: np.float32) -> FloatArray:
    """Weigh the values, and their mean over the last axis, the candidates, besides."""
    weighed: FloatArray = deviation_weight * values + level_weight * values.mean(axis=-1, keepdims=True)
    return weighed
