"""Task metrics: how well an answer agrees with the reference, from 0 to 1.

A closed table: logs name a metric, and every score is stored with the version of the metric's rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring.answer_extraction import clean_answer, has_negation, is_refusal
from fusion_integrations.scoring.choice_metrics import choice_match, label_match
from fusion_integrations.scoring.code_metrics import code_pass, reference_with_prompt
from fusion_integrations.scoring.math_match import math_match
from fusion_integrations.scoring.numeric_match import numeric_match
from fusion_integrations.scoring.text_metrics import cover_match, exact_match, token_f1, word_coverage

__all__ = ["METRICS", "METRIC_ALIASES", "Metric", "find_metric", "score"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to compare an answer with a reference.

    Attributes:
        name: What `Query.metric` and the score rows call it.
        version: Raised when the rule changes; scores of different versions are not comparable.
        function: Maps an answer and a reference to [0, 1]; the empty answer maps to 0.
        reads: What it takes as answer. `"prose"`: after `clean_answer`, a refusal being empty; `"phrase"`:
            the same, but with what "not" negates if the reference negates something; `"words"`: with all that
            was said; `"source"`: as it was written, where clean-up would damage LaTeX or code.
        complete_reference: Adds to a reference what only the text of the query says; None if the reference
            always says all.
    """

    name: str
    version: str
    function: Callable[[str, str], float]
    reads: Literal["prose", "phrase", "words", "source"] = "prose"
    complete_reference: Callable[[str, str], str] | None = None


_OF_TEXT: tuple[tuple[Callable[[str, str], float], str, Literal["prose", "phrase", "words"]], ...] = (
    (numeric_match, "3", "prose"),
    (choice_match, "3", "prose"),
    (label_match, "1", "prose"),
    (cover_match, "2", "phrase"),
    (exact_match, "2", "phrase"),
    (token_f1, "2", "words"),
    (word_coverage, "2", "words"),
)

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        **{
            function.__name__: Metric(name=function.__name__, version=version, function=function, reads=reads)
            for function, version, reads in _OF_TEXT
        },
        "math_match": Metric(name="math_match", version="2", function=math_match, reads="source"),
        "code_pass": Metric(
            name="code_pass",
            version="1",
            function=code_pass,
            reads="source",
            complete_reference=reference_with_prompt,
        ),
    }
)
"""Every metric by name. A change of `answer_extraction` is a change of all that read prose."""

METRIC_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "GSM8K": "numeric_match",
        "MATH": "math_match",
        "code_eval": "code_pass",
        "commongen_coverage": "word_coverage",
        "em_mc": "choice_match",
        "f1_score": "token_f1",
    }
)
"""What the metrics are called in the paper's published logs, which can be scored as they are."""


def find_metric(name: str) -> Metric:
    """Find a metric by its name here or in the paper's logs.

    Args:
        name: A name in `METRICS` or `METRIC_ALIASES`.

    Returns:
        The metric.

    Raises:
        LogSchemaError: If no metric has that name.
    """
    metric = METRICS.get(METRIC_ALIASES.get(name, name))
    if metric is None:
        known = ", ".join(f"'{known}'" for known in METRICS)
        raise LogSchemaError(f"There is no metric '{name}'. Use one of {known}.")
    return metric


def score(answer: str, *, metric: str, reference: str, query: str = "") -> float:
    """Score an answer.

    Args:
        answer: What the candidate wrote.
        metric: A name in `METRICS` or `METRIC_ALIASES`.
        reference: The right answer, in the form the metric reads.
        query: Text of the query. Only code tasks that go on with a given program need it.

    Returns:
        From 0 (wrong) to 1 (right). Blank answers and refusals score 0.

    Raises:
        LogSchemaError: If the metric is unknown or cannot read the reference.
        MetricFailedError: If the metric failed for a reason that is not the answer's.
        MissingDependencyError: If the metric needs a package that is not installed.
        SandboxUnavailableError: If the metric runs code and this machine cannot isolate it.

    Example:
        >>> score("3 + 4 = 7, so the answer is 7.", metric="numeric_match", reference="7")
        1.0

    Source:
        FusionFactory (arXiv 2507.10540), the task metrics of its benchmark; see docs/paper_map.md.
    """
    found = find_metric(metric)
    if found.complete_reference is not None:
        reference = found.complete_reference(reference, query)
    if found.reads == "source":
        return found.function(answer, reference)
    # What the reference itself negates or apologises for is no negation and no refusal of the answer.
    keeps_negated = found.reads == "words" or (found.reads == "phrase" and has_negation(reference))
    text = clean_answer(answer, keeps_negated=keeps_negated)
    is_declined = is_refusal(text) and not is_refusal(reference)
    return found.function("" if is_declined else text, reference)
