"""Choose who answers, as arrays over many queries: the pure core that decisions and validation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.basis import ADDED_MARGIN_Z, DecisionBasis
from fusion_integrations.query_level.eligibility import Exclusions, exclude_others_than, exclusions
from fusion_integrations.query_level.exploration import epsilon_greedy, thompson
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.quality_target import QualityBar, quality_bar, quality_rewards
from fusion_integrations.types import PriceTable

__all__ = ["ROUNDING", "Choice", "choose", "reward"]

# Rewards that differ by less are tied: float32 products of equal numbers differ in their last bits, and by
# how many queries are predicted at once.
ROUNDING = 1e-6
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The policy applied to n queries, as arrays.

    Attributes:
        chosen: (n,) column of the chosen candidate.
        favourite: (n,) column that would have been chosen without exploration.
        default: (n,) column of the best single candidate that is eligible for the query; with a quality to
            hold, of the candidate whose quality it is, if that is eligible.
        rewards: (n, k) what the policy maximises: predicted reward, or with a quality to hold what a
            candidate is worth beside the wanted one (see `quality_rewards`); -inf where not eligible.
        cost_usd: (n, k) expected cost; NaN if unknown.
        gain: (n, k) predicted gain of reward over the default; -inf where not eligible.
        gain_se: (n, k) standard error of the gain. With a quality to hold, rewards are lower bounds already.
        margin_z: (k,) the margin that each candidate's gain must exceed.
        propensity: (n,) probability of the chosen candidate under the policy; 1 without exploration.
        permitted: (n, k) whom the policy's limits let answer, whatever quality is to be held.
        excluded: (n, k) reason of exclusion, "" where eligible.
        bar: The quality that was held, if any.
    """

    chosen: npt.NDArray[np.intp]
    favourite: npt.NDArray[np.intp]
    default: npt.NDArray[np.intp]
    rewards: FloatArray
    cost_usd: FloatArray
    gain: FloatArray
    gain_se: FloatArray
    margin_z: npt.NDArray[np.float64]
    propensity: npt.NDArray[np.float64]
    permitted: npt.NDArray[np.bool_]
    excluded: Exclusions
    bar: QualityBar | None


def choose(
    prediction: Prediction,
    policy: RoutingPolicy,
    *,
    basis: DecisionBasis,
    prices: PriceTable | None = None,
    generators: Sequence[np.random.Generator] | None = None,
) -> Choice:
    """Apply a policy to predictions.

    The default is, among those eligible, the candidate of highest mean reward in training, counting its mean
    performance one standard error lower. Another one is
    chosen only if its predicted gain over the default, paired within the ensemble members, exceeds
    `margin_z` standard errors, and only for a query like those of the logs, unless the policy's margin is 0.
    Ties keep the default, then the candidates' order.

    With `quality_of`, the default is that candidate, and it is left for whoever is worth more beside it by
    `quality_rewards`. Exploration then moves among the eligible.

    Args:
        prediction: Expectations for n queries.
        policy: What the caller wants.
        basis: What training learned.
        prices: Today's prices; None takes costs as logged.
        generators: n random sources; needed by a policy that explores.

    Returns:
        The choices, in the order of the queries.

    Raises:
        InvalidPolicyError: If cost counts but no cost scale is known, a wanted quality was not validated, or
            the policy explores and there is no random source.
        NoEligibleCandidateError: If the policy excludes every candidate for a query; says why for each.
        UnknownCandidateError: If the policy names a candidate the router does not know.

    Source:
        Reward: FusionFactory (arXiv 2507.10540), section 4.2, alpha = 1 - cost_weight, beta = cost_weight.
    """
    _check_random_source(policy, generators)
    scale = basis.scale_for(policy)
    cost = prediction.cost_usd(prices)
    excluded = exclusions(prediction, policy, cost_usd=cost)
    permitted = eligible = excluded == ""
    bar = None
    if policy.quality_of is None:
        rewards = reward(prediction.performance, cost, cost_weight=policy.cost_weight, cost_scale_usd=scale)
        margins = _margins(prediction, policy, basis=basis)
        # NaN, which no gain exceeds, means never, whatever the standard error; infinity times 0 is undefined.
        needed = np.where(np.isinf(margins), np.nan, margins)
    else:
        average_usd = basis.average.cost_usd(prices)[0]
        bar = quality_bar(policy, prediction, average_usd=average_usd, curves=basis.quality)
        rewards, may_stand_in = quality_rewards(prediction, cost, bar)
        exclude_others_than(may_stand_in, excluded, wanted=prediction.candidates[bar.column])
        eligible = excluded == ""
        margins = np.full(len(average_usd), bar.margin_z)
        needed = np.zeros_like(margins)  # the rewards are lower bounds already
    default = _default(eligible, policy, basis=basis, prices=prices, scale=scale, bar=bar)
    rows = np.arange(len(default))
    rewards = np.where(eligible, rewards, -np.inf).astype(np.float32, copy=False)
    gain = rewards - rewards[rows, default][:, None]
    gain_se = (1 - policy.cost_weight) * prediction.paired_gain_se(default)
    convincing = (gain > ROUNDING) & (gain > needed * gain_se)
    if prediction.is_novel is not None and policy.margin_z != 0:
        convincing &= ~prediction.is_novel[:, None]
    worth = np.where(convincing, gain, -np.inf)
    worth[rows, default] = 0.0  # less than any convincing gain, more than none
    favourite = worth.argmax(axis=1)
    chosen, propensity = _explored(
        favourite,
        eligible,
        policy,
        deviations=prediction.performance_deviations,
        rewards=rewards,
        by=generators,
    )
    return Choice(
        chosen=chosen,
        favourite=favourite,
        default=default,
        rewards=rewards,
        cost_usd=cost,
        gain=gain,
        gain_se=gain_se,
        margin_z=margins,
        propensity=propensity,
        permitted=permitted,
        excluded=excluded,
        bar=bar,
    )


def reward(
    performance: FloatArray, cost_usd: FloatArray, *, cost_weight: float, cost_scale_usd: float
) -> FloatArray:
    """Weigh performance against cost; NaN where cost counts and is unknown.

    Args:
        performance: Any shape, in [0, 1].
        cost_usd: Same shape, USD a call.
        cost_weight: In [0, 1].
        cost_scale_usd: The cost that counts as much as one full point of performance.

    Returns:
        Same shape: (1 - cost_weight) * performance - cost_weight * cost_usd / cost_scale_usd.

    Source:
        FusionFactory (arXiv 2507.10540), section 4.2, with alpha = 1 - beta = 1 - cost_weight. The paper
        scales cost per task with test statistics; ours is one stated scale, so a reward is comparable.
    """
    if cost_weight == 0:
        return performance
    weighed: FloatArray = (1 - cost_weight) * performance - cost_weight * (cost_usd / cost_scale_usd)
    return weighed


def _check_random_source(policy: RoutingPolicy, generators: Sequence[np.random.Generator] | None) -> None:
    if policy.exploration != "none" and generators is None:
        message = (
            f"The policy explores ({policy.exploration}), which needs a random source: pass random=<seed or "
            "numpy Generator>."
        )
        raise InvalidPolicyError(message)


def _default(
    eligible: npt.NDArray[np.bool_],
    policy: RoutingPolicy,
    *,
    basis: DecisionBasis,
    prices: PriceTable | None,
    scale: float,
    bar: QualityBar | None,
) -> npt.NDArray[np.intp]:
    # Today's prices move the default as they move the candidates: a model made dearer stops being it.
    usual = reward(
        basis.average.performance - basis.average.performance_se,
        basis.average.cost_usd(prices),
        cost_weight=policy.cost_weight,
        cost_scale_usd=scale,
    )
    if policy.cost_weight > 0:
        usual = np.where(np.isnan(usual), _LOWEST, usual)
    default = np.where(eligible, usual, -np.inf).argmax(axis=1)
    return default if bar is None else np.where(eligible[:, bar.column], bar.column, default)


def _margins(
    prediction: Prediction, policy: RoutingPolicy, *, basis: DecisionBasis
) -> npt.NDArray[np.float64]:
    """Return (k,) margins: as validated, no less than `ADDED_MARGIN_Z` for who came later."""
    margin = basis.margin_for(policy)
    margins = np.full(len(prediction.candidates), margin)
    if basis.added and policy.margin_z is None:
        is_added = [candidate.id in basis.added for candidate in prediction.candidates]
        margins[is_added] = max(margin, ADDED_MARGIN_Z)
    return margins


def _explored(
    favourite: npt.NDArray[np.intp],
    eligible: npt.NDArray[np.bool_],
    policy: RoutingPolicy,
    *,
    deviations: FloatArray,
    rewards: FloatArray,
    by: Sequence[np.random.Generator] | None,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    if policy.exploration == "none" or by is None:
        return favourite, np.ones(len(favourite))
    if policy.exploration == "epsilon":
        return epsilon_greedy(favourite, eligible, epsilon=policy.epsilon, generators=by)
    return thompson(deviations, rewards, eligible, performance_weight=1 - policy.cost_weight, generators=by)
