"""What the caller wants of a choice, stated at call time: the router predicts, the policy decides."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Literal, get_args

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.types import fingerprint

__all__ = [
    "BALANCE",
    "COST_FIRST",
    "MIN_COST_SCALE_USD",
    "PERFORMANCE_FIRST",
    "POLICY_PRESETS",
    "Exploration",
    "RoutingPolicy",
]

Exploration = Literal["none", "epsilon", "thompson"]


# A scale divides costs: by less, rewards would leave the range of float32.
MIN_COST_SCALE_USD = 1e-12


def _check(name: str, value: float | None, *, low: float, high: float) -> None:
    if value is None or (isinstance(value, Real) and low <= value <= high):  # NaN fails every comparison
        return
    raise InvalidPolicyError(f"RoutingPolicy.{name} must lie in [{low}, {high}], got {value!r}.")


@dataclass(frozen=True, kw_only=True)
class RoutingPolicy:
    """What the caller wants of a choice.

    Attributes:
        cost_weight: Weight of cost in the reward, in [0, 1]; performance has the rest.
        cost_scale_usd: USD a call that count as much as one full point of performance. None: the router's
            own scale, the mean cost of its dearest candidate.
        max_cost_usd: Budget a call; dearer candidates are out.
        max_latency_s: Longest expected duration of a call, seconds; candidates of unknown duration are out.
        min_performance: Wanted expected performance in [0, 1]. Candidates below are out; if none reaches it,
            the one expected to come nearest stays.
        quality_of: Id of a candidate whose quality is to be held as cheaply as possible. Excludes
            `cost_weight`. Without `margin_z`, validation chose how sure that must be for the average to
            hold; with it, the lower bound of every single predicted gain must not be below `-max_loss`.
        max_loss: Mean performance that may be lost to `quality_of`, in [0, 1].
        allowed: Ids that may be chosen. None: all.
        required_capabilities: What the candidate must be able to do.
        margin_z: How many standard errors a predicted gain must exceed before the default is left.
            None: the value the router found on validation data. 0: always take the best prediction.
        exploration: `"epsilon"` takes a random eligible candidate with probability `epsilon`; `"thompson"`
            takes the best one under a random draw from what the router may be wrong about, in place of the
            margin. Both need a random source at call time, and log the probability of what they took.
        epsilon: Probability of a random candidate, in [0, 1].
    """

    cost_weight: float = 0.0
    cost_scale_usd: float | None = None
    max_cost_usd: float | None = None
    max_latency_s: float | None = None
    min_performance: float | None = None
    quality_of: str | None = None
    max_loss: float = 0.0
    allowed: frozenset[str] | None = None
    required_capabilities: frozenset[str] = frozenset()
    margin_z: float | None = None
    exploration: Exploration = "none"
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidPolicyError: If a value lies outside its range, names are one text instead of several, or
                two wishes exclude each other.
        """
        for name in ("allowed", "required_capabilities"):
            names = getattr(self, name)
            if isinstance(names, str):
                raise InvalidPolicyError(f"RoutingPolicy.{name} holds names, got the text {names!r}.")
            if names is not None:
                object.__setattr__(self, name, frozenset(names))
        for name in ("cost_weight", "max_loss", "epsilon"):
            _check(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("max_cost_usd", "max_latency_s"):
            _check(name, getattr(self, name), low=0.0, high=math.inf)
        _check("cost_scale_usd", self.cost_scale_usd, low=MIN_COST_SCALE_USD, high=math.inf)
        _check("min_performance", self.min_performance, low=0.0, high=1.0)
        _check("margin_z", self.margin_z, low=0.0, high=math.inf)
        if self.exploration not in get_args(Exploration):
            message = (
                f"RoutingPolicy.exploration must be one of {get_args(Exploration)}, got {self.exploration!r}."
            )
            raise InvalidPolicyError(message)
        _check_wishes(self)

    @property
    def needs_cost(self) -> bool:
        """Whether a candidate of unknown cost cannot be judged."""
        return self.cost_weight > 0 or self.max_cost_usd is not None or self.quality_of is not None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return asdict(self) | {
            "allowed": None if self.allowed is None else sorted(self.allowed),
            "required_capabilities": sorted(self.required_capabilities),
        }

    @cached_property  # hashing takes longer than deciding, and policies serve many calls
    def fingerprint(self) -> str:
        """Hash of the policy, for logs; equal policies have the same."""
        # repr, because JSON has no infinity; of floats, because the equal 1, 1.0 and NumPy's 1.0 print apart.
        values = self.to_json()
        return fingerprint({name: repr(float(v) if isinstance(v, Real) else v) for name, v in values.items()})


def _check_wishes(policy: RoutingPolicy) -> None:
    """Refuse what cannot be wished for together."""
    if policy.quality_of is None:
        if policy.max_loss > 0:
            raise InvalidPolicyError("RoutingPolicy.max_loss is lost to `quality_of`: set that too.")
        return
    if policy.cost_weight > 0:
        message = (
            "RoutingPolicy.quality_of asks for the cheapest candidate of a quality, cost_weight for a "
            "balance of cost and quality. Give one of them."
        )
        raise InvalidPolicyError(message)
    if policy.exploration == "thompson":
        message = (
            "RoutingPolicy.exploration='thompson' draws who is best, and `quality_of` takes the cheapest. "
            "Explore with exploration='epsilon'."
        )
        raise InvalidPolicyError(message)


# The paper's scenarios (section 4.2): reward = alpha * performance - beta * cost with (alpha, beta) =
# (1, 0), (0.5, 0.5) and (0.2, 0.8).
PERFORMANCE_FIRST = RoutingPolicy()
BALANCE = RoutingPolicy(cost_weight=0.5)
COST_FIRST = RoutingPolicy(cost_weight=0.8)

POLICY_PRESETS: dict[str, RoutingPolicy] = {
    "performance-first": PERFORMANCE_FIRST,
    "balance": BALANCE,
    "cost-first": COST_FIRST,
}
