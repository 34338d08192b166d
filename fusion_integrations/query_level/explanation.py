"""The words of a decision: what came out, and one sentence that says why.

Apart from deciding, so that wording never touches who is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fusion_integrations.protocols import FloatArray

__all__ = ["Outcome", "explain_choice"]

Outcome = Literal["default", "switched", "only_eligible", "pinned"]


def explain_choice(
    candidate_ids: Sequence[str],
    *,
    chosen: int,
    default: int,
    gain: FloatArray,
    gain_se: FloatArray,
    margin_z: float,
    tie: float,
    unreached: float | None = None,
) -> tuple[Outcome, str]:
    """Say what a decision came to, and why.

    Args:
        candidate_ids: k ids.
        chosen: Column of the chosen candidate.
        default: Column of the best single one.
        gain: (k,) predicted gain over the default; -inf where not eligible.
        gain_se: (k,) its standard error.
        margin_z: The margin that was applied.
        tie: Gains up to this are none.
        unreached: The wanted performance, if no candidate is expected to reach it.

    Returns:
        The outcome and the reason, a sentence or two for people.
    """
    outcome, reason = _reason(
        candidate_ids, chosen=chosen, default=default, gain=gain, gain_se=gain_se, margin_z=margin_z, tie=tie
    )
    if unreached is not None:
        reason += f" No candidate is expected to reach the wanted performance {unreached:g}."
    return outcome, reason


def _reason(
    ids: Sequence[str],
    *,
    chosen: int,
    default: int,
    gain: FloatArray,
    gain_se: FloatArray,
    margin_z: float,
    tie: float,
) -> tuple[Outcome, str]:
    name, usual = ids[chosen], ids[default]
    eligible = np.flatnonzero(gain > -np.inf)
    if len(eligible) == 1:
        return "only_eligible", f"'{name}' is the only eligible candidate."
    if chosen != default:
        text = (
            f"'{name}' is expected to gain {gain[chosen]:.3f} reward over the best single candidate "
            f"'{usual}', more than {margin_z:g} standard errors of {gain_se[chosen]:.3f}."
        )
        return "switched", text
    rival = int(eligible[np.argmax(gain[eligible])])
    if gain[rival] <= tie:
        return (
            "default",
            f"'{name}' is the best single candidate and also the best prediction for this query.",
        )
    if math.isinf(margin_z):
        why = "on validation data leaving it did not pay"
    else:
        why = f"less than {margin_z:g} standard errors of {gain_se[rival]:.3f}"
    text = (
        f"'{name}' is the best single candidate; '{ids[rival]}' is expected to gain only "
        f"{gain[rival]:.3f} reward over it: {why}."
    )
    return "default", text
