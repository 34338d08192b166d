"""Find what is wrong with a collection before its first call costs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion_integrations.collection.call_limits import CallLimits
from fusion_integrations.collection.spending import is_billed, most_cost_usd
from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.protocols import ChatClient
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Candidate, GenerationOptions, PriceTable

__all__ = ["CollectionSettings"]


@dataclass(frozen=True, kw_only=True)
class CollectionSettings:
    """How a collection asks; checked as a whole, since its parts have to fit each other.

    Attributes:
        clients: Who runs each model.
        candidates: Who answers.
        prices: What they charge.
        options: How they generate, by candidate id.
        samples: How often they answer a query, by candidate id.
        limits: How fast they may be called, by candidate id.
        thoughts: Their guidance.
        budget_usd: What the collection may be billed.
        batch_size: Most conversations of a batch.
    """

    clients: Mapping[str, ChatClient]
    candidates: Sequence[Candidate]
    prices: PriceTable
    options: Mapping[str, GenerationOptions]
    samples: Mapping[str, int]
    limits: Mapping[str, CallLimits]
    thoughts: ThoughtPrompter | None
    budget_usd: float | None
    batch_size: int

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            UnknownCandidateError: As `LogCollector` says.
            InvalidPolicyError: As `LogCollector` says.
        """
        ids = [candidate.id for candidate in self.candidates]
        if len(set(ids)) < len(ids):
            raise InvalidPolicyError(f"Candidate ids must be distinct, got {ids}.")
        if self.batch_size < 1:
            raise InvalidPolicyError(f"batch_size must be at least 1, got {self.batch_size}.")
        for what, given in (("Options", self.options), ("Samples", self.samples), ("Limits", self.limits)):
            unknown = sorted(given.keys() - set(ids))
            if unknown:
                message = f"{what} are given for {unknown}, which are no candidates. Known: {ids}."
                raise UnknownCandidateError(message)
        for candidate in self.candidates:
            self._check_client(candidate)
            self._check_samples(candidate)
            if candidate.prompt_mode == "thought":
                self._check_guidance(candidate)
            if self.budget_usd is not None:
                self._check_bound(candidate)

    def _check_client(self, candidate: Candidate) -> None:
        if candidate.kind != "model":
            message = f"Candidate '{candidate.id}' is a tool: only models can be collected from."
            raise InvalidPolicyError(message)
        if candidate.model not in self.clients:
            message = (
                f"Candidate '{candidate.id}' needs a client for model '{candidate.model}'; "
                f"there are clients for: {', '.join(self.clients) or 'none'}."
            )
            raise UnknownCandidateError(message)

    def _check_samples(self, candidate: Candidate) -> None:
        n_samples = self.samples.get(candidate.id, 1)
        if n_samples < 1:
            raise InvalidPolicyError(f"samples of '{candidate.id}' must be at least 1, got {n_samples}.")
        options = self.options.get(candidate.id)
        if n_samples > 1 and (options is None or options.temperature == 0):
            message = (
                f"{n_samples} samples of '{candidate.id}' would all be the same. "
                "Give it options with a temperature above 0."
            )
            raise InvalidPolicyError(message)

    def _check_guidance(self, candidate: Candidate) -> None:
        if self.thoughts is None:
            message = (
                f"Candidate '{candidate.id}' is prompted with thought templates. "
                "Pass LogCollector(..., thoughts=ThoughtPrompter(store))."
            )
            raise InvalidPolicyError(message)
        if candidate.revision != self.thoughts.revision:
            message = (
                f"Candidate '{candidate.id}' has the revision '{candidate.revision}', but would be guided by "
                f"'{self.thoughts.revision}'. Make it with that revision, so that answers with other "
                "templates are not taken for its own."
            )
            raise InvalidPolicyError(message)

    def _check_bound(self, candidate: Candidate) -> None:
        if candidate.price_key not in self.prices.prices:
            message = (
                f"A budget needs the price of model '{candidate.model}'. Give it one; "
                "is_nominal says that nobody charges it, as for models on your own machine."
            )
            raise InvalidPolicyError(message)
        options = self.options.get(candidate.id)
        bound = most_cost_usd(candidate, (), options=options, prices=self.prices)
        if is_billed(candidate, self.prices) and bound is None:
            message = (
                f"A budget needs a bound on the answers of '{candidate.id}'. Give it options with max_tokens."
            )
            raise InvalidPolicyError(message)
