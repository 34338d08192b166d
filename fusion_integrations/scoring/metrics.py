"""Task metrics: how well an answer agrees with the reference, from 0 to 1.

A closed table: logs name a metric, and every score is stored with the version of the metric's rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import clean_answer, is_refusal
from fusion_integrations.scoring.choice_metrics import choice_match, label_match
from fusion_integrations.scoring.numeric_match import numeric_match
from fusion_integrations.scoring.text_metrics import cover_match, exact_match

__all__ = ["METRICS", "Metric", "score"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to compare an answer with a reference.

    Attributes:
        name: What `Query.metric` and the score rows call it.
        version: Raised when the rule changes; scores of different versions are not comparable.
        function: Maps a cleaned answer and a reference to [0, 1]; the empty answer maps to 0.
    """

    name: str
    version: str
    function: Callable[[str, str], float]


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        function.__name__: Metric(name=function.__name__, version="1", function=function)
        for function in (numeric_match, choice_match, label_match, cover_match, exact_match)
    }
)
"""Every metric by name. A change of `answer_extraction` is a change of all of them."""


def score(answer: str, *, metric: str, reference: str) -> float:
    """Score an answer.

    Args:
        answer: What the candidate wrote.
        metric: A name in `METRICS`.
        reference: The right answer, in the form the metric reads.

    Returns:
        From 0 (wrong) to 1 (right). Blank answers and refusals score 0.

    Raises:
        LogSchemaError: If the metric is unknown or cannot read the reference.

    Example:
        >>> score("3 + 4 = 7, so the answer is 7.", metric="numeric_match", reference="7")
        1.0

    Source:
        FusionFactory (arXiv 2507.10540), the task metrics of its benchmark; see docs/paper_map.md.
    """
    if metric not in METRICS:
        known = ", ".join(f"'{name}'" for name in METRICS)
        raise LogSchemaError(f"There is no metric '{metric}'. Use one of {known}.")
    text = clean_answer(answer)
    return METRICS[metric].function("" if is_refusal(text) else text, reference)
