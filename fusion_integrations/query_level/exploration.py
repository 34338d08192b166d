"""Try what is not yet known to be best, with the exact probability of what was taken.

Logs of a router that always takes its favourite can never show that another candidate became better. Logs
with known probabilities can: inverse-propensity estimates read them without bias.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import numpy.typing as npt

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import FloatArray

__all__ = ["RandomSource", "epsilon_greedy", "generators_for", "thompson"]

RandomSource = np.random.Generator | int
"""A generator, drawn from query by query; or a seed, which with its text gives every query its own."""

_N_DRAWS = 256  # the mixture a query's candidate is drawn from; also the inverse of its smallest probability


def generators_for(source: RandomSource, texts: Sequence[str]) -> list[np.random.Generator]:
    """Give every query its generator.

    Args:
        source: A generator serves all, in order. A seed makes one for each text, so that a choice depends
            neither on the batch nor on what was asked before: equal texts draw alike.
        texts: n query texts.

    Returns:
        n generators.

    Raises:
        InvalidPolicyError: If the seed is no number of at least 0.
    """
    if isinstance(source, np.random.Generator):
        return [source] * len(texts)
    if not isinstance(source, Integral) or source < 0:
        message = f"The seed of exploration must be a whole number of at least 0, got {source!r}."
        raise InvalidPolicyError(message)
    digests = (hashlib.sha256(text.encode(errors="backslashreplace")).digest() for text in texts)
    return [np.random.default_rng([int(source), int.from_bytes(digest[:8], "big")]) for digest in digests]


def epsilon_greedy(
    greedy: npt.NDArray[np.intp],
    eligible: npt.NDArray[np.bool_],
    *,
    epsilon: float,
    generators: Sequence[np.random.Generator],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Take a uniformly random eligible candidate with probability epsilon, else the greedy choice.

    Args:
        greedy: (n,) columns of the greedy choices, eligible.
        eligible: (n, k).
        epsilon: In [0, 1].
        generators: n random sources.

    Returns:
        (n,) columns taken, and the exact probability of each.
    """
    taken = greedy.copy()
    for row, generator in enumerate(generators):
        # Two draws whatever comes out, so that a shared generator stays in step.
        is_random, among = generator.random() < epsilon, generator.random()
        if is_random:
            columns = np.flatnonzero(eligible[row])
            taken[row] = columns[int(among * len(columns))]
    probability = epsilon / eligible.sum(axis=1) + (1 - epsilon) * (taken == greedy)
    return taken, probability


def thompson(
    deviations: FloatArray,
    rewards: npt.NDArray[np.floating],
    eligible: npt.NDArray[np.bool_],
    *,
    performance_weight: float,
    generators: Sequence[np.random.Generator],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Take the best candidate under a draw from what the router may be wrong about.

    The posterior is normal with the mean of the ensemble and its delete-a-group jackknife covariance between
    the candidates: a sum of the members' scaled deviations, each times an independent normal draw. A query
    draws 256 times; the share of the draws in which a candidate is best is exactly the probability with which
    it is taken.

    Args:
        deviations: (m, n, k) of the members from their mean; see `Prediction.performance_deviations`.
        rewards: (n, k) reward of the mean.
        eligible: (n, k).
        performance_weight: What one point of performance adds to the reward.
        generators: n random sources.

    Returns:
        (n,) columns taken, and the exact probability of each.

    Source:
        Russo et al., A Tutorial on Thompson Sampling (arXiv 1707.02038), algorithm 4.2; covariance as in
        Shao and Tu, The Jackknife and Bootstrap (1995), section 2.3.
    """
    m, n, k = deviations.shape
    deviations = deviations * performance_weight
    taken, probability = np.empty(n, dtype=np.intp), np.empty(n)
    for row, generator in enumerate(generators):
        drawn = rewards[row] + generator.standard_normal((_N_DRAWS, m)) @ deviations[:, row]
        best = np.where(eligible[row], drawn, -np.inf).argmax(axis=1)
        shares = np.bincount(best, minlength=k) / _N_DRAWS
        taken[row] = best[generator.integers(_N_DRAWS)]
        probability[row] = shares[taken[row]]
    return taken, probability
