"""The words of a decision: what came out, and one sentence that says why.

Apart from deciding, so that wording never touches who is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fusion_integrations.protocols import FloatArray
from fusion_integrations.query_level.quality_target import QualityBar
from fusion_integrations.types import Candidate

__all__ = ["Outcome", "explain_choice", "explain_quality"]

Outcome = Literal["default", "switched", "explored", "only_eligible", "pinned"]


def explain_quality(
    candidates: Sequence[Candidate],
    *,
    chosen: int,
    bar: QualityBar,
    is_permitted: npt.NDArray[np.bool_],
    performance: FloatArray,
    cost_usd: FloatArray,
) -> tuple[Outcome, str]:
    """Say what holding a candidate's quality came to, and why.

    Args:
        candidates: k of them.
        chosen: Column of the chosen candidate.
        bar: The quality to hold.
        is_permitted: (k,) whom the policy's limits let answer.
        performance: (k,) expected performance.
        cost_usd: (k,) expected cost.

    Returns:
        The outcome and the reason, a sentence or two for people.
    """
    name, wanted = candidates[chosen].id, candidates[bar.column].id
    if is_permitted.sum() == 1:
        instead = "" if chosen == bar.column else f", and '{wanted}' itself is not"
        return "only_eligible", f"'{name}' is the only eligible candidate{instead}."
    if chosen == bar.column:
        return "default", f"'{name}' answers itself: {_why_nobody_else(bar)}."
    gain, saved = performance[chosen] - performance[bar.column], cost_usd[bar.column] - cost_usd[chosen]
    beside = (
        f"it is expected to reach {gain:+.3f} performance beside it and to cost {abs(saved):.2g} USD "
        f"{'less' if saved >= 0 else 'more'}"
    )
    if not is_permitted[bar.column]:  # what was validated could always fall back on the wanted one
        text = (
            f"'{name}' stands in for '{wanted}', which may not answer: {beside}. That this holds its quality "
            "on average was not validated."
        )
        return "switched", text
    return "switched", f"'{name}' stands in for '{wanted}': {beside}, {_by_which_bar(bar)}."


def explain_choice(
    candidates: Sequence[Candidate],
    *,
    chosen: int,
    default: int,
    gain: FloatArray,
    gain_se: FloatArray,
    margin_z: npt.NDArray[np.float64],
    tie: float,
    is_novel: bool = False,
) -> tuple[Outcome, str]:
    """Say what a decision came to, and why.

    Args:
        candidates: k of them.
        chosen: Column of the chosen candidate.
        default: Column of the best single one.
        gain: (k,) predicted gain over the default; -inf where not eligible.
        gain_se: (k,) its standard error.
        margin_z: (k,) the margin that was applied to each.
        tie: Gains up to this are none.
        is_novel: Whether the default was kept because the query is unlike those of the logs.

    Returns:
        The outcome and the reason, a sentence or two for people.
    """
    name, usual = candidates[chosen].id, candidates[default].id
    if chosen != default:
        text = (
            f"'{name}' is expected to gain {gain[chosen]:.3f} reward over the best single candidate "
            f"'{usual}', more than {margin_z[chosen]:g} standard errors of {gain_se[chosen]:.3f}."
        )
        return "switched", text
    eligible = np.flatnonzero(gain > -np.inf)
    if len(eligible) == 1:
        return "only_eligible", f"'{name}' is the only eligible candidate."
    rival = int(eligible[np.argmax(gain[eligible])])
    if gain[rival] <= tie:
        return (
            "default",
            f"'{name}' is the best single candidate and also the best prediction for this query.",
        )
    if is_novel:
        text = f"'{name}' is the best single candidate, and this query is unlike any in the logs."
        return "default", text
    if math.isinf(margin_z[rival]):
        why = "on validation data leaving it did not pay"
    else:
        why = f"less than {margin_z[rival]:g} standard errors of {gain_se[rival]:.3f}"
    text = (
        f"'{name}' is the best single candidate; '{candidates[rival].id}' is expected to gain only "
        f"{gain[rival]:.3f} reward over it: {why}."
    )
    return "default", text


def _why_nobody_else(bar: QualityBar) -> str:
    if bar.rate == -math.inf:
        return "on validation data nobody cheaper held its quality"
    return "nobody cheaper is sure enough to be as good for what that saves"


def _by_which_bar(bar: QualityBar) -> str:
    if bar.rate is None:
        return f"and even {bar.margin_z:g} standard errors lower to lose no more than {bar.max_loss:g}"
    return (
        f"which at the validated rate ({bar.rate:.3g} performance for a whole call's cost) holds its quality"
    )
