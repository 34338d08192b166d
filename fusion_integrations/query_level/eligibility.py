"""Who a policy lets answer a query, and why the others not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import NoEligibleCandidateError, UnknownCandidateError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate

__all__ = ["ROUNDING", "Exclusions", "exclude_others_than", "exclusions"]

# Predictions differ in their last digits with the size of a batch: what costs just the limit must not be out
# in one batch and in in another.
ROUNDING = 1 + 1e-5

Exclusions = npt.NDArray[np.object_]
"""(n, k) reasons of exclusion, "" where eligible."""


def exclusions(prediction: Prediction, policy: RoutingPolicy, *, cost_usd: FloatArray) -> Exclusions:
    """Apply the limits of a policy.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants.
        cost_usd: (n, k) expected cost, NaN if unknown.

    Returns:
        Why each candidate is out; every query has an eligible one.

    Raises:
        NoEligibleCandidateError: If the policy excludes every candidate for a query; says why for each.
        UnknownCandidateError: If `allowed` names a candidate the router does not know.
    """
    candidates = prediction.candidates
    excluded = _limits(prediction, policy, cost_usd)
    _exclude_unable(excluded, candidates, policy)
    _check_all_have_a_choice(candidates, excluded)
    _exclude_below_wanted_performance(excluded, prediction.performance, policy)
    return excluded


def exclude_others_than(
    may_stand_in: npt.NDArray[np.bool_], excluded: Exclusions, *, wanted: Candidate
) -> None:
    """Exclude, in place, who may not stand in for a wanted candidate, where anybody eligible may.

    Args:
        may_stand_in: (n, k).
        excluded: (n, k) reasons so far.
        wanted: The candidate.
    """
    eligible = excluded == ""
    binds = (eligible & may_stand_in).any(axis=1, keepdims=True)
    excluded[eligible & binds & ~may_stand_in] = (
        f"dearer than '{wanted.id}', or not sure enough to be as good"
    )


def _limits(prediction: Prediction, policy: RoutingPolicy, cost: FloatArray) -> Exclusions:
    """Exclude by what a call would use."""
    excluded = np.full(cost.shape, "", dtype=np.object_)
    if policy.max_latency_s is not None:
        latency = prediction.latency_s
        excluded[latency > policy.max_latency_s * ROUNDING] = f"slower than {policy.max_latency_s:g} s"
        excluded[np.isnan(latency)] = "latency unknown: log it"
    if policy.max_cost_usd is not None:
        excluded[cost > policy.max_cost_usd * ROUNDING] = (
            f"over the budget of {policy.max_cost_usd:g} USD a call"
        )
    if policy.needs_cost:
        excluded[np.isnan(cost)] = "cost unknown: pass its price, or log its cost"
    for column, candidate in enumerate(prediction.candidates):
        if candidate.context_tokens is not None:
            # Where logs counted no tokens this compares with NaN, and nobody is excluded.
            answer = np.nan_to_num(prediction.output_tokens[:, column])
            too_long = prediction.input_tokens[:, column] + answer > candidate.context_tokens
            excluded[too_long, column] = f"prompt and answer exceed its {candidate.context_tokens} tokens"
    return excluded


def _exclude_unable(excluded: Exclusions, candidates: tuple[Candidate, ...], policy: RoutingPolicy) -> None:
    if not policy.required_capabilities and policy.allowed is None:
        return
    ids = [candidate.id for candidate in candidates]
    unknown = sorted((policy.allowed or frozenset()) - set(ids))
    if unknown:
        raise UnknownCandidateError(
            f"The policy allows {unknown}, which the router does not know. Known: {ids}."
        )
    for column, candidate in enumerate(candidates):
        lacking = sorted(policy.required_capabilities - candidate.capabilities)
        if lacking:
            excluded[:, column] = f"lacks {', '.join(lacking)}"
        if policy.allowed is not None and candidate.id not in policy.allowed:
            excluded[:, column] = "not allowed"


def _exclude_below_wanted_performance(
    excluded: Exclusions, performance: FloatArray, policy: RoutingPolicy
) -> None:
    if policy.min_performance is None:
        return
    eligible = excluded == ""
    wanted = np.where(eligible, performance, -np.inf)
    # Where nobody reaches the wanted performance, the one expected to come nearest stays.
    bar = np.minimum(policy.min_performance, wanted.max(axis=1, keepdims=True))
    excluded[eligible & (performance < bar)] = f"expected performance below {policy.min_performance:g}"


def _check_all_have_a_choice(candidates: tuple[Candidate, ...], excluded: Exclusions) -> None:
    if not excluded.any():
        return
    stuck = np.flatnonzero((excluded != "").all(axis=1))
    if stuck.size:
        reasons = "; ".join(
            f"'{candidate.id}': {reason}"
            for candidate, reason in zip(candidates, excluded[stuck[0]], strict=True)
        )
        message = (
            f"The policy excludes every candidate for {stuck.size} of {len(excluded)} queries ({reasons}). "
            "Loosen it."
        )
        raise NoEligibleCandidateError(message)
