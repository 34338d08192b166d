from __future__ import annotations

import socket
import threading
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from fusion_integrations.clients.openai_client import OpenAIClient
from fusion_integrations.errors import CandidateCallError, InvalidPolicyError
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.streaming import read_stream
from fusion_integrations.types import Completion, GenerationOptions, Message

KEY = "sk-a-key-that-nobody-may-see"
ASKED = [Message(role="system", content="Be brief."), Message(role="user", content="What is 17 * 24?")]


@pytest.fixture
def client(openai_server) -> OpenAIClient:
    return OpenAIClient(
        "tiny", served_model="served-tiny", base_url=openai_server.url, api_key=KEY, timeout_s=30
    )


def script(server, **reply) -> None:
    """Let the server answer every request alike."""
    kind = type(server).answer.__globals__["Reply"]
    server.reply = lambda _: kind(**reply)


def test_client_is_a_streaming_chat_client_that_does_not_show_its_key(client):
    assert isinstance(client, ChatClient)
    assert isinstance(client, StreamingChatClient)
    assert client.model == "tiny"
    assert KEY not in repr(client)


def test_complete_when_answered_has_text_tokens_and_reason(client, openai_server):
    answer = client.complete(ASKED)
    assert (answer.text, answer.model) == ("You asked: What is 17 * 24?", "tiny")
    assert (answer.input_tokens, answer.output_tokens, answer.finish_reason) == (7, 7, "stop")
    assert answer.latency_s > 0
    assert openai_server.requests == [
        {
            "model": "served-tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 17 * 24?"},
            ],
        }
    ]
    assert openai_server.keys == [f"Bearer {KEY}"]


def test_complete_when_options_are_given_sends_them(client, openai_server):
    client.complete(ASKED, options=GenerationOptions(max_tokens=9, temperature=0.5, stop=("\n",), seed=3))
    sent = openai_server.requests[0]
    assert {name: sent[name] for name in sent.keys() - {"model", "messages"}} == {
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["\n"],
        "seed": 3,
    }


def test_complete_when_the_model_reasons_sends_what_it_knows(openai_server):
    client = OpenAIClient(
        "o",
        base_url=openai_server.url,
        max_tokens_field="max_completion_tokens",
        sends_temperature=False,
        extra_body={"reasoning_effort": "low"},
    )
    client.complete(ASKED, options=GenerationOptions(max_tokens=9))
    sent = openai_server.requests[0]
    assert {name: sent[name] for name in sent.keys() - {"messages"}} == {
        "model": "o",
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n", "messages"])
def test_client_when_extra_fields_would_replace_its_own_refuses_them(field):
    with pytest.raises(InvalidPolicyError, match=f"extra_body of model 'tiny' sets {field}"):
        OpenAIClient("tiny", extra_body={field: 5, "reasoning_effort": "low"})


async def test_acomplete_answers_as_complete_does(client):
    answer = await client.acomplete(ASKED, options=GenerationOptions(max_tokens=9))
    assert answer.text == "You asked: What is 17 * 24?"


def test_complete_batch_keeps_the_order(client):
    conversations = [[Message(role="user", content=f"number {i}")] for i in range(20)]
    answers = client.complete_batch(conversations)
    assert [answer.text for answer in answers] == [f"You asked: number {i}" for i in range(20)]


def test_stream_gives_pieces_and_the_completion(client, openai_server):
    *pieces, completion = read_stream(client.stream(ASKED))
    assert pieces == ["You", " asked:", " What", " is", " 17", " *", " 24?"]
    assert isinstance(completion, Completion)
    assert completion.text == "".join(pieces)
    assert (completion.input_tokens, completion.output_tokens, completion.finish_reason) == (7, 7, "stop")
    assert openai_server.requests[0]["stream_options"] == {"include_usage": True}


def test_stream_when_closed_early_ends_quietly(client):
    stream = client.stream(ASKED)
    assert next(stream) == "You"
    stream.close()


@pytest.mark.parametrize("way", ["complete", "stream"])
@pytest.mark.parametrize(
    ("status", "is_transient", "may_be_billed"),
    [
        (400, False, False),
        (401, False, False),
        (404, False, False),
        (429, True, False),
        (500, True, False),
        (502, True, True),
        (503, True, False),
        (504, True, True),
    ],
)
def test_complete_when_the_server_refuses_says_whether_to_try_again(
    client, openai_server, way, status, is_transient, may_be_billed
):
    script(openai_server, status=status, text=f"no, {KEY}")
    with pytest.raises(CandidateCallError, match="Model 'tiny' failed") as caught:
        client.complete(ASKED) if way == "complete" else list(client.stream(ASKED))
    error = caught.value
    assert (error.is_transient, error.may_be_billed, error.retry_after_s) == (
        is_transient,
        may_be_billed,
        None,
    )
    assert "no, ***" in str(error)
    assert KEY not in "".join(traceback.format_exception(error))
    assert len(openai_server.requests) == 1  # retries are the caller's


def test_complete_when_told_to_wait_says_how_long(client, openai_server):
    script(openai_server, status=429, headers={"retry-after": "1.5"})
    with pytest.raises(CandidateCallError) as caught:
        client.complete(ASKED)
    assert caught.value.retry_after_s == 1.5

    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    script(openai_server, status=503, headers={"retry-after": in_an_hour})
    with pytest.raises(CandidateCallError) as caught:
        client.complete(ASKED)
    assert 3000 < caught.value.retry_after_s <= 3600

    script(openai_server, status=503, headers={"retry-after": "soon"})
    with pytest.raises(CandidateCallError) as caught:
        client.complete(ASKED)
    assert caught.value.retry_after_s is None


def test_complete_when_the_quota_is_used_up_is_not_worth_another_try(client, openai_server):
    script(openai_server, status=429, body='{"error": {"message": "pay", "code": "insufficient_quota"}}')
    with pytest.raises(CandidateCallError) as caught:
        client.complete(ASKED)
    assert caught.value.is_transient is False


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "no chat completion: reply: Invalid JSON"),
        ("<html>busy</html>", "no chat completion: reply: Invalid JSON"),
        ("", "no chat completion: reply: Invalid JSON"),
        ("{}", "no chat completion: choices: Field required"),
        (
            f'{{"error": {{"message": "no capacity for {KEY}"}}}}',
            'the server says {"message": "no capacity for ***"}',
        ),
        ('{"choices": []}', "choices: List should have at least 1 item"),
        ('{"choices": [{"message": {"content": 7}}]}', "choices.0.message.content: Input should be a valid"),
        (
            '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}}',
            "usage.prompt_tokens: Input should be greater than or equal to 0",
        ),
    ],
)
def test_complete_when_the_reply_is_broken_is_an_error_that_may_be_billed(client, openai_server, body, says):
    script(openai_server, body=body)
    with pytest.raises(CandidateCallError) as caught:
        client.complete(ASKED)
    assert says in str(caught.value)
    assert (caught.value.is_transient, caught.value.may_be_billed) == (True, True)


@pytest.mark.parametrize(
    ("message", "text"),
    [('{"content": null}', ""), ('{"content": null, "refusal": "I may not."}', "I may not.")],
)
def test_complete_when_there_is_no_content_says_what_there_is(client, openai_server, message, text):
    script(openai_server, body=f'{{"choices": [{{"message": {message}, "finish_reason": null}}]}}')
    answer = client.complete(ASKED)
    assert (answer.text, answer.finish_reason, answer.input_tokens) == (text, "unknown", None)


async def test_complete_when_the_server_is_silent_times_out(openai_server):
    release = threading.Event()
    openai_server.reply = lambda _: release.wait(timeout=30) and None
    client = OpenAIClient("tiny", base_url=openai_server.url, timeout_s=0.05)
    try:
        with pytest.raises(CandidateCallError, match="APITimeoutError") as caught:
            client.complete(ASKED)
        assert (caught.value.is_transient, caught.value.may_be_billed) == (True, True)
        with pytest.raises(CandidateCallError, match="APITimeoutError"):
            await client.acomplete(ASKED)
    finally:
        release.set()


def test_complete_when_nobody_listens_is_not_billed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(CandidateCallError, match="APIConnectionError") as caught:
        OpenAIClient("tiny", base_url=url).complete(ASKED)
    assert (caught.value.is_transient, caught.value.may_be_billed) == (True, False)


def test_stream_when_a_piece_is_broken_is_an_error(client, openai_server):
    script(openai_server, body='data: {"choices": [{"delta": {"content": 7}}]}\n\ndata: [DONE]\n\n')
    with pytest.raises(CandidateCallError, match="no chat completion"):
        list(client.stream(ASKED))


def test_call_failure_when_headers_are_odd_finds_no_time_to_wait():
    from fusion_integrations.clients.call_failure import call_failure

    class Odd(Exception):  # noqa: N818
        response = SimpleNamespace(status_code="no number", headers=None)

    error = call_failure(Odd("x"), model="tiny")
    assert (error.is_transient, error.may_be_billed, error.retry_after_s) == (False, True, None)
    assert call_failure(TimeoutError("late"), model="tiny").is_transient
    assert not call_failure(ConnectionRefusedError("no"), model="tiny").may_be_billed
