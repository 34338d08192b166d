import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import CandidateCallError
from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.store import LogStore
from fusion_integrations.query_level.policy import BALANCE
from fusion_integrations.testing import (
    ScriptedChatClient,
    tiny_candidates,
    tiny_logs,
    tiny_pipeline,
    tiny_prices,
    tiny_router,
)
from fusion_integrations.types import GenerationOptions, Message

ASK = (Message(role="system", content="Be kind."), Message(role="user", content="How are you?"))


def test_client_by_default_repeats_the_query():
    completion = ScriptedChatClient("m").complete(ASK)
    assert completion.text == "m heard: How are you?"
    assert (completion.model, completion.finish_reason, completion.latency_s) == ("m", "stop", 0.0)
    # Two and three words asked, five answered.
    assert (completion.input_tokens, completion.output_tokens) == (5, 5)


def test_client_when_the_answer_is_long_cuts_it():
    client = ScriptedChatClient("m", answer=lambda messages: "one two three four")
    completion = client.complete(ASK, options=GenerationOptions(max_tokens=2))
    assert (completion.text, completion.output_tokens, completion.finish_reason) == ("one two", 2, "length")
    whole = client.complete(ASK, options=GenerationOptions(max_tokens=4))
    assert (whole.output_tokens, whole.finish_reason) == (4, "stop")


async def test_client_answers_alike_in_every_way():
    client = ScriptedChatClient("m", answer=lambda messages: messages[-1].content.upper())
    expected = client.complete(ASK)
    assert await client.acomplete(ASK) == expected
    assert client.complete_batch([ASK, ASK]) == [expected, expected]
    assert "".join(client.stream(ASK)) == expected.text
    assert client.calls == [ASK] * 5


@pytest.mark.parametrize("text", ["", " ", " two  spaces ", "line\nbreak", "one"])
def test_stream_gives_non_empty_pieces_that_make_the_text_and_returns_the_completion(text):
    client = ScriptedChatClient("m", answer=lambda messages: text)
    pieces, stream = [], client.stream(ASK)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            completion = end.value
            break
    assert all(pieces)
    assert "".join(pieces) == text == completion.text
    assert completion == client.complete(ASK)


def test_client_when_its_script_fails_fails_and_remembers_the_call():
    def fail(messages):
        raise CandidateCallError("overloaded")

    client = ScriptedChatClient("m", answer=fail)
    with pytest.raises(CandidateCallError, match="overloaded"):
        client.complete(ASK)
    with pytest.raises(CandidateCallError):
        next(client.stream(ASK))
    assert client.calls == [ASK, ASK]


def test_logs_hold_every_answer_of_every_candidate_in_the_schema_of_logs():
    frame = tiny_logs()
    assert frame.schema == LOG_SCHEMA
    assert frame.height == 120
    assert set(frame["candidate_id"]) == {candidate.id for candidate in tiny_candidates()}
    assert frame["query_id"].n_unique() == 40
    assert frame["performance"].null_count() == frame["cost_usd"].null_count() == 0
    assert frame.equals(tiny_logs())


def test_prices_cover_every_candidate():
    for candidate in tiny_candidates():
        assert tiny_prices().cost_usd(candidate, input_tokens=1, output_tokens=1) > 0


def test_router_is_the_same_every_time(trained_router):
    again = tiny_router()
    assert again.embedder.identity == HashEmbedder().identity
    assert again.route("What is 1 plus 2?") == trained_router.route("What is 1 plus 2?")


def test_pipeline_passes_its_settings_on():
    with LogStore.open(":memory:") as store:
        pipeline = tiny_pipeline(policy=BALANCE, prices=tiny_prices(), store=store)
        assert (pipeline.policy, pipeline.prices, pipeline.store) == (BALANCE, tiny_prices(), store)
        assert pipeline.plan("Write a line about rivers.").candidate in tiny_candidates()
