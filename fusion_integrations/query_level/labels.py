"""Which score a router learns: one of those a log holds, or a declared blend of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import polars as pl

from fusion_integrations.errors import InvalidPolicyError

__all__ = [
    "AnyLabel",
    "Label",
    "LabelBlend",
    "label_from_json",
    "label_from_name",
    "label_name",
    "label_to_json",
    "label_values",
    "parse_label",
]

Label = Literal["performance", "judge_score", "feedback"]


@dataclass(frozen=True, kw_only=True)
class LabelBlend:
    """A weighted mean of scores. An answer that lacks one of them has no label.

    Attributes:
        weights: Share of each score; they sum to 1.
    """

    weights: Mapping[Label, float]

    def __post_init__(self) -> None:
        """Check the shares.

        Raises:
            InvalidPolicyError: If a score is unknown, a share is not above 0, or they do not sum to 1.
        """
        unknown = sorted(set(self.weights) - set(get_args(Label)))
        if unknown or not self.weights:
            message = f"A label blend weighs some of {get_args(Label)}, got {dict(self.weights)}."
            raise InvalidPolicyError(message)
        shares = self.weights.values()
        is_numbers = all(isinstance(share, Real) and share > 0 for share in shares)
        if not is_numbers or abs(sum(shares) - 1) > 1e-6:
            message = f"The shares of a label blend are above 0 and sum to 1, got {dict(self.weights)}."
            raise InvalidPolicyError(message)


AnyLabel = Label | LabelBlend


def label_name(label: AnyLabel) -> str:
    """Name a label for people, for example `0.7 performance + 0.3 judge_score`."""
    if isinstance(label, LabelBlend):
        # In one order, so that equal blends have one name.
        return " + ".join(
            f"{label.weights[name]:g} {name}" for name in get_args(Label) if name in label.weights
        )
    return label


def label_from_name(name: str) -> AnyLabel:
    """Rebuild a label from its `label_name`."""
    if " " not in name:
        return label_from_json(name)
    shares = (part.split(" ") for part in name.split(" + "))
    return label_from_json({score: float(share) for share, score in shares})


def parse_label(text: str) -> AnyLabel:
    """Read a label as a person writes it.

    Args:
        text: A score's name, or shares such as `performance=0.7,judge_score=0.3`.

    Returns:
        The label.

    Raises:
        InvalidPolicyError: If it names no score, or the shares are none.
    """
    if "=" not in text:
        return label_from_json(text)
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            weights[name.strip()] = float(share)
        except ValueError as error:
            message = f"'{part}' is no share of a score. Write performance=0.7,judge_score=0.3."
            raise InvalidPolicyError(message) from error
    return label_from_json(weights)


def label_values(label: AnyLabel) -> pl.Expr:
    """Give the expression that computes a label from the columns of a log frame; null where it is missing."""
    if isinstance(label, LabelBlend):
        return pl.sum_horizontal(
            *(pl.col(name) * share for name, share in label.weights.items()), ignore_nulls=False
        )
    return pl.col(label)


def label_to_json(label: AnyLabel) -> Any:
    """Return a label as JSON data."""
    return dict(label.weights) if isinstance(label, LabelBlend) else label


def label_from_json(data: Any) -> AnyLabel:
    """Rebuild a label from `label_to_json`.

    Args:
        data: JSON data, not trusted.

    Returns:
        The label.

    Raises:
        InvalidPolicyError: If it is none.
    """
    if isinstance(data, Mapping):
        return LabelBlend(weights=dict(data))
    for known in get_args(Label):
        if data == known:
            label: Label = known
            return label
    raise InvalidPolicyError(f"There is no label {data!r}. Choose one of {get_args(Label)}, or blend them.")
