"""Choose among query engines or retrievers with a router trained on their logs, without asking an LLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, MultiSelection, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata
from pydantic import Field, field_serializer

from fusion_integrations.errors import InvalidPolicyError, UnknownCandidateError
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import find_candidate

__all__ = ["FusionSelector", "FusionSelectorResult"]


class FusionSelectorResult(MultiSelection):
    """LlamaIndex's selection, with the route decision behind each entry.

    Attributes:
        decisions: One a selection, in their order.
    """

    decisions: list[RouteDecision] = Field(default_factory=list)

    @field_serializer("decisions")
    def _decisions_to_json(self, decisions: list[RouteDecision]) -> list[dict[str, Any]]:
        return [decision.to_json() for decision in decisions]


class FusionSelector(BaseSelector):
    """A selector for `RouterQueryEngine` and `RouterRetriever` that learned from logs who answers what well.

    The candidates of the pipeline's router are tools. A choice stands for the candidate whose id is its tool
    name, unless `candidate_ids` says otherwise; only what LlamaIndex offers can be chosen. One choice is
    selected a query. Nothing is recorded: a selector does not see the answer.

    Args:
        pipeline: Its router decides, by its policy.
        candidate_ids: Candidate id by tool name, for tools named differently than their candidates.
        policy: Replaces the pipeline's policy.

    Raises:
        InvalidPolicyError: If the router has no tools among its candidates, or two tool names stand for one
            candidate.
        UnknownCandidateError: If `candidate_ids` names a candidate the router does not know.

    Example:
        ```python
        selector = FusionSelector(pipeline, candidate_ids={"docs_engine": "docs"})
        engine = RouterQueryEngine(selector=selector, query_engine_tools=[docs_tool, tickets_tool], llm=llm)
        response = engine.query("How do I reset my password?")
        response.metadata["selector_result"].decisions[0].reason
        ```
    """

    def __init__(
        self,
        pipeline: FusionPipeline,
        *,
        candidate_ids: Mapping[str, str] | None = None,
        policy: RoutingPolicy | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.candidate_ids = dict(candidate_ids or {})
        self.policy = policy
        candidates = pipeline.router.candidates
        self._tool_ids = [candidate.id for candidate in candidates if candidate.kind == "tool"]
        if not self._tool_ids:
            message = (
                "FusionSelector chooses among tools, but the router's candidates are all models: "
                f"{[candidate.id for candidate in candidates]}. Use FusionLLM for those."
            )
            raise InvalidPolicyError(message)
        for candidate_id in self.candidate_ids.values():
            find_candidate(candidates, candidate_id)
        _check_distinct(self.candidate_ids)

    @classmethod
    def class_name(cls) -> str:
        """Return the name LlamaIndex files the component under."""
        return "FusionSelector"

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> FusionSelectorResult:
        offered = self._offered(choices)
        return _result(offered, self.pipeline.plan(query.query_str, policy=self._policy(offered)))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> FusionSelectorResult:
        offered = self._offered(choices)
        return _result(offered, await self.pipeline.aplan(query.query_str, policy=self._policy(offered)))

    def _offered(self, choices: Sequence[ToolMetadata]) -> list[str]:
        """Return the candidate id of each choice."""
        names = [self._name(choice, number) for number, choice in enumerate(choices)]
        offered = {name: self.candidate_ids.get(name, name) for name in names}
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            message = (
                f"Several choices are named {repeated}; the router could not tell them apart. "
                "Give each tool a name of its own."
            )
            raise InvalidPolicyError(message)
        _check_distinct(offered)
        for name, candidate_id in offered.items():
            if candidate_id not in self._tool_ids:
                message = (
                    f"Tool '{name}' stands for no candidate: '{candidate_id}' is not among the router's "
                    f"tools {self._tool_ids}. Name the tool so, or pass candidate_ids={{'{name}': ...}}."
                )
                raise UnknownCandidateError(message)
        return list(offered.values())

    def _name(self, choice: ToolMetadata, number: int) -> str:
        if choice.name:
            return choice.name
        message = (
            f"Choice {number} ('{choice.description}') has no name, so the router cannot know it. "
            f"Pass ToolMetadata(name=...) with one of {[*self.candidate_ids, *self._tool_ids]}."
        )
        raise UnknownCandidateError(message)

    def _policy(self, offered: Sequence[str]) -> RoutingPolicy:
        """Narrow the policy to what is offered; ids the router does not know stay, for the core to refuse."""
        policy = self.policy or self.pipeline.policy
        known = {candidate.id for candidate in self.pipeline.router.candidates}
        allowed = frozenset(offered) if policy.allowed is None else policy.allowed - (known - set(offered))
        return replace(policy, allowed=allowed)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        """Do nothing: there is no prompt."""


def _result(offered: Sequence[str], plan: FusionPlan) -> FusionSelectorResult:
    decision = plan.decision
    selection = SingleSelection(index=offered.index(decision.candidate.id), reason=decision.reason)
    return FusionSelectorResult(selections=[selection], decisions=[decision])


def _check_distinct(ids_by_name: Mapping[str, str]) -> None:
    shared = sorted(id_ for id_, count in Counter(ids_by_name.values()).items() if count > 1)
    if shared:
        message = (
            f"Several tool names stand for the candidates {shared}: {dict(ids_by_name)}. "
            "Map each name to a candidate of its own."
        )
        raise InvalidPolicyError(message)
