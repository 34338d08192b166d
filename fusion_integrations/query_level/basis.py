"""What training learned that decisions rest on: averages, the cost scale, and what validation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.quality_target import QualityCurves

__all__ = ["ADDED_MARGIN_Z", "DecisionBasis"]

# Validation may find that predictions can be trusted as they are; that was not of candidates added later.
ADDED_MARGIN_Z = 1.0


@dataclass(frozen=True, kw_only=True)
class DecisionBasis:
    """What training learned that decisions rest on.

    Attributes:
        average: Every candidate's mean over the training queries, as the prediction for one average query.
        cost_scale_usd: The router's own cost scale; None if no cost is known.
        margin_z: Validated margin by cost weight; infinity where leaving the default did not pay.
        se_scale: What stated standard errors of performance are multiplied by to fit validation data, in
            intervals; margins were validated on the stated ones.
        quality: What holding a candidate's quality cost on validation data; None if it was not validated.
        added: Ids of candidates added since, whom no validation has seen.
        artifact: Digest of the router artifact, or "" before it is saved.
    """

    average: Prediction
    cost_scale_usd: float | None
    margin_z: Mapping[float, float] = field(default_factory=dict)
    se_scale: float = 1.0
    quality: QualityCurves | None = None
    added: frozenset[str] = frozenset()
    artifact: str = ""

    def margin_for(self, policy: RoutingPolicy) -> float:
        """Return the policy's margin, else the validated one of the nearest cost weight, else 1."""
        if policy.margin_z is not None:
            return policy.margin_z
        if not self.margin_z:
            return 1.0
        return self.margin_z[min(self.margin_z, key=lambda weight: abs(weight - policy.cost_weight))]

    def scale_for(self, policy: RoutingPolicy) -> float:
        """Say what cost counts as much as one full point of performance.

        Args:
            policy: The policy that is applied.

        Returns:
            USD a call; 1 where cost does not count.

        Raises:
            InvalidPolicyError: If cost counts but neither policy nor router knows a scale.
        """
        scale = policy.cost_scale_usd or self.cost_scale_usd
        if scale is not None:
            return scale
        if policy.cost_weight > 0:
            message = (
                "The policy weighs cost, but the router has no cost scale: its logs hold no cost, or too "
                "rarely, or only cost 0. Set RoutingPolicy(cost_scale_usd=...) and pass prices, or use "
                "cost_weight=0."
            )
            raise InvalidPolicyError(message)
        return 1.0
