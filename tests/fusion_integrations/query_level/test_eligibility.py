import numpy as np
import pytest

from fusion_integrations.errors import NoEligibleCandidateError
from fusion_integrations.query_level.decision import choose, decide
from fusion_integrations.query_level.policy import RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.types import Candidate

NAN = np.nan


def with_latency(prediction, latency):
    values = np.broadcast_to(np.float32(latency), prediction.logged_cost_usd.shape)
    return Prediction(
        candidates=prediction.candidates,
        performance_members=prediction.performance_members,
        input_tokens=prediction.input_tokens,
        output_tokens=prediction.output_tokens,
        logged_cost_usd=prediction.logged_cost_usd,
        logged_latency_s=values,
    )


def test_latency_cap_excludes_the_slower_and_the_unknown_with_their_reasons(predict, basis):
    prediction = with_latency(predict([[0.9, 0.8, 0.7]]), [2.0, 1.0, NAN])
    policy = RoutingPolicy(max_latency_s=1.0)
    decision = decide(prediction, policy, basis=basis([0.9, 0.8, 0.7]))[0]
    assert (decision.candidate.id, decision.expected_latency_s) == ("b", 1.0)
    excluded = {ranked.candidate_id: ranked.excluded for ranked in decision.ranking}
    assert excluded == {"b": None, "a": "slower than 1 s", "c": "latency unknown: log it"}


def test_latency_cap_when_nothing_was_logged_excludes_everybody_and_says_why(predict, basis):
    with pytest.raises(NoEligibleCandidateError, match="'a': latency unknown: log it"):
        choose(predict([[0.9, 0.8]]), RoutingPolicy(max_latency_s=9.0), basis=basis([0.9, 0.8]))


def test_unknown_latency_does_not_matter_without_a_cap(predict, basis):
    prediction = with_latency(predict([[0.9, 0.8]]), [NAN, 1.0])
    decision = decide(prediction, RoutingPolicy(), basis=basis([0.9, 0.8]))[0]
    assert (decision.candidate.id, decision.expected_latency_s) == ("a", None)


def of_contexts(*context_tokens):
    return tuple(
        Candidate(id=name, model="m", context_tokens=tokens)
        for name, tokens in zip("abc", context_tokens, strict=False)
    )


def test_context_excludes_those_whose_window_prompt_and_answer_exceed(predict, basis):
    able = of_contexts(1000, 1001, None)
    prediction = predict([[0.9, 0.8, 0.7]], input_tokens=901, output_tokens=100, candidates=able)
    decision = decide(prediction, RoutingPolicy(), basis=basis([0.9, 0.8, 0.7]))[0]
    assert decision.candidate.id == "b"
    excluded = {ranked.candidate_id: ranked.excluded for ranked in decision.ranking}
    assert excluded == {"b": None, "c": None, "a": "prompt and answer exceed its 1000 tokens"}


def test_call_that_costs_or_takes_just_the_limit_is_not_out_for_a_rounding_error(predict, basis):
    above = float(np.nextafter(np.float32(0.1), np.float32(1)))
    prediction = with_latency(predict([[0.9, 0.8]], cost=[[above, above]]), above)
    policy = RoutingPolicy(max_cost_usd=0.1, max_latency_s=0.1)
    assert choose(prediction, policy, basis=basis([0.9, 0.8])).chosen.tolist() == [0]


def test_context_when_tokens_were_never_logged_is_not_checked(predict, basis):
    prediction = predict([[0.9, 0.8]], candidates=of_contexts(1, 1))
    assert choose(prediction, RoutingPolicy(), basis=basis([0.9, 0.8])).chosen.tolist() == [0]
