"""Choose who answers a call and lay out what they are asked, alike for the chat model and the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from fusion_integrations.errors import (
    InvalidPolicyError,
    NoEligibleCandidateError,
    UnknownCandidateError,
)
from fusion_integrations.pipeline import FusionPipeline, FusionPlan
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.types import Candidate, Query
from langchain_fusion._convert import edit_last_user_message, portable_messages, to_core
from langchain_fusion._overrides import CallOverrides
from langchain_fusion._routed_call import PlannedCall

__all__ = ["CallRequest", "RoutePlanner", "check_models", "refuse_model_option"]


@dataclass(frozen=True, kw_only=True)
class CallRequest:
    """What one call asks for.

    Attributes:
        messages: The conversation.
        needed: What the candidate must declare that it can do. Nothing is asked of a pinned one: a caller who
            pins knows what the candidate can do.
        overrides: What the call's config says about routing.
        begun_by: Id of the candidate that has begun to answer and goes on if the policy lets it; a pinned one
            precedes it. None if the answer begins here.
    """

    messages: list[BaseMessage]
    needed: frozenset[str]
    overrides: CallOverrides
    begun_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class RoutePlanner:
    """Turns a request into a planned call.

    Attributes:
        pipeline: Decides and prices.
        models: Models by `Candidate.model`.
        policy: The policy of calls that bring none.
    """

    pipeline: FusionPipeline
    models: Mapping[str, BaseChatModel]
    policy: RoutingPolicy

    def plan(self, request: CallRequest) -> PlannedCall:
        """Plan a call.

        Args:
            request: What it asks for.

        Returns:
            The planned call.

        Raises:
            EmptyQueryError: If the last user message has no text.
            NoEligibleCandidateError: If policy and needs exclude every candidate.
            UnknownCandidateError: If a pinned or allowed candidate is unknown, or has no model here.
        """
        query = Query(messages=to_core(request.messages))
        return self._planned(request, self.pipeline.plan(query, policy=self._policy(request)))

    async def aplan(self, request: CallRequest) -> PlannedCall:
        """Plan a call without blocking the event loop; otherwise as `plan`."""
        # As a whole: not only the router embeds, a candidate that is pinned or goes on may need templates.
        return await asyncio.to_thread(self.plan, request)

    def _policy(self, request: CallRequest) -> RoutingPolicy:
        policy = request.overrides.policy or self.policy
        if not request.needed or request.overrides.route is not None:
            return policy
        if not any(candidate.capabilities for candidate in self.pipeline.router.candidates):
            wanted = ", ".join(f"'{name}'" for name in sorted(request.needed))
            message = (
                f"This call needs a candidate with {wanted}, but no candidate of the router declares any "
                "capability. Declare them, Candidate(..., capabilities=frozenset({...})), in the candidates "
                "that the router is trained with; or pin one: "
                "config={'configurable': {'fusion_route': '<id>'}}."
            )
            raise NoEligibleCandidateError(message)
        return replace(policy, required_capabilities=policy.required_capabilities | request.needed)

    def _planned(self, request: CallRequest, plan: FusionPlan) -> PlannedCall:
        if request.overrides.route is not None:
            plan = self.pipeline.pin(plan, request.overrides.route)
        elif request.begun_by is not None:
            plan = self._going_on(plan, request.begun_by)
        model = self.models.get(plan.candidate.model)
        if model is None:
            raise UnknownCandidateError(_lacks_model(plan.candidate, self.models))
        own = portable_messages(request.messages, model=plan.candidate.model)
        return PlannedCall(
            plan=plan,
            model=model,
            messages=edit_last_user_message(own, plan.prompt),
            session_id=request.overrides.session_id,
        )

    def _going_on(self, plan: FusionPlan, candidate_id: str) -> FusionPlan:
        """Leave no choice but the candidate that has begun, if the router knows it and the policy lets it."""
        eligible = [ranked for ranked in plan.decision.ranking if ranked.excluded is None]
        begun = [ranked for ranked in eligible if ranked.candidate_id == candidate_id]
        if not begun:
            return plan
        others = [
            ranked if ranked.excluded else ranked._replace(reward=None, excluded="another one has begun")
            for ranked in plan.decision.ranking
            if ranked not in begun
        ]
        if plan.candidate.id != candidate_id:
            plan = self.pipeline.pin(plan, candidate_id)
        decision = replace(
            plan.decision,
            outcome="only_eligible",  # recorded as the policy's choice, not the caller's
            reason=f"'{candidate_id}' has begun to answer and goes on.",
            ranking=(*begun, *others),
            propensity=1.0,
        )
        return replace(plan, decision=decision)


def check_models(
    models: Mapping[str, BaseChatModel], *, candidates: tuple[Candidate, ...], policy: RoutingPolicy
) -> None:
    """Check that every candidate a policy can choose has a model.

    Args:
        models: Models by `Candidate.model`.
        candidates: The router's candidates.
        policy: The policy.

    Raises:
        UnknownCandidateError: If one has none; says which.
    """
    for candidate in candidates:
        is_allowed = policy.allowed is None or candidate.id in policy.allowed
        is_able = policy.required_capabilities <= candidate.capabilities
        if is_allowed and is_able and candidate.model not in models:
            raise UnknownCandidateError(_lacks_model(candidate, models))


def refuse_model_option(options: Mapping[str, object]) -> None:
    """Check that a call's options do not name another model than the router logs.

    Args:
        options: Keyword arguments of the model call.

    Raises:
        InvalidPolicyError: If they do; says how to choose who answers.
    """
    if "model" in options:
        message = (
            f"'model' cannot be set for a call of the router (got {options['model']!r}): the answer "
            "would be logged as another model's. To choose who answers, pin a candidate: "
            "config={'configurable': {'fusion_route': '<id>'}}."
        )
        raise InvalidPolicyError(message)


def _lacks_model(candidate: Candidate, models: Mapping[str, BaseChatModel]) -> str:
    if candidate.kind == "tool":
        return (
            f"Candidate '{candidate.id}' is a tool, which a chat model cannot call. "
            "Leave it out: RoutingPolicy(allowed=frozenset({...}))."
        )
    known = ", ".join(f"'{name}'" for name in models) or "the models (none)"
    return (
        f"Candidate '{candidate.id}' needs model '{candidate.model}', which is not among {known}. "
        "Add it, or leave the candidate out: RoutingPolicy(allowed=frozenset({...}))."
    )
