from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusion_integrations.clients.transformers_client import TransformersClient
from fusion_integrations.errors import ArtifactNotFoundError, CandidateCallError, InvalidPolicyError
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.types import GenerationOptions, Message

TEXTS = ("hi", "What is the capital of France?", "a much longer question, for padding", "7*6", "Name a fish.")
SHORT = GenerationOptions(max_tokens=40)


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.fixture(scope="module")
def client(tiny_folder: Path) -> TransformersClient:
    return TransformersClient.from_folder(tiny_folder, model_name="tiny", n_threads=1, default_options=SHORT)


def stream_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("stream-")]


def test_client_when_checked_satisfies_both_protocols(client):
    assert isinstance(client, ChatClient)
    assert isinstance(client, StreamingChatClient)
    assert client.model == "tiny"


def test_complete_batch_when_lengths_differ_equals_single_answers_in_order(tiny_folder, client):
    in_chunks = TransformersClient.from_folder(tiny_folder, model_name="tiny", batch_size=2, n_threads=1)
    single = [client.complete(ask(text)) for text in TEXTS]
    for batched in (
        client.complete_batch([ask(text) for text in TEXTS]),
        in_chunks.complete_batch([ask(text) for text in TEXTS], options=SHORT),
    ):
        assert [(c.text, c.input_tokens, c.output_tokens, c.finish_reason) for c in batched] == [
            (c.text, c.input_tokens, c.output_tokens, c.finish_reason) for c in single
        ]
    assert {c.finish_reason for c in single} == {"stop", "length"}  # both ways of ending are covered


def test_complete_batch_when_empty_returns_nothing(client):
    assert client.complete_batch([]) == []


def test_complete_when_run_counts_tokens_without_padding_and_end(client):
    # The template turns "hi" into <s>, "user: hi", newline, <s>, "assistant: ": 1 + 8 + 1 + 1 + 11 tokens.
    answers = client.complete_batch([ask("hi"), ask("a much longer question, for padding")])
    assert answers[0].input_tokens == 22
    assert all(1 <= (c.output_tokens or 0) <= 40 for c in answers)
    assert answers[0].latency_s is not None
    assert answers[0].latency_s > 0
    cut_off = client.complete(ask("hi"), options=GenerationOptions(max_tokens=3))
    assert (cut_off.output_tokens, cut_off.finish_reason) == (3, "length")


def test_complete_when_stop_text_appears_ends_before_it_in_every_row(client):
    texts = [client.complete(ask(text)).text for text in TEXTS]
    stop = texts[1][3:5]
    stopped = client.complete_batch(
        [ask(text) for text in TEXTS], options=GenerationOptions(max_tokens=40, stop=(stop, "\x00"))
    )
    assert [c.text for c in stopped] == [text.partition(stop)[0].strip() for text in texts]
    assert stopped[1].finish_reason == "stop"
    # Generation ended at the stop text: 3 characters and the 2 of the stop, perhaps after a leading space.
    assert (stopped[1].output_tokens or 0) <= 6


def test_complete_when_sampling_with_a_seed_repeats_and_leaves_the_random_state_alone(client):
    import torch

    options = GenerationOptions(max_tokens=30, temperature=1.5, seed=7)
    state = torch.random.get_rng_state()
    first = client.complete(ask("hi"), options=options)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert client.complete(ask("hi"), options=options).text == first.text
    other = GenerationOptions(max_tokens=30, temperature=1.5, seed=8)
    assert client.complete(ask("hi"), options=other).text != first.text


def test_complete_when_context_overflows_says_the_lengths(client):
    with pytest.raises(CandidateCallError, match=r"prompt of 320 tokens .* up to 40 exceed the 256 tokens"):
        client.complete(ask("x" * 300))


def test_complete_when_generation_fails_chains_the_cause(client):
    with pytest.raises(CandidateCallError, match="'tiny' failed on 1 conversation") as caught:
        client.complete(ask("hi"), options=GenerationOptions(max_tokens=0))
    assert isinstance(caught.value.__cause__, ValueError)
    assert client.complete(ask("hi")).text  # the lock was released


def test_complete_when_threads_share_a_client_gives_each_its_own_answer(client):
    single = [client.complete(ask(text)).text for text in TEXTS]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda text: client.complete(ask(text)).text, TEXTS))
    assert together == single


def test_complete_when_done_restores_the_number_of_threads(client):
    import torch

    before = torch.get_num_threads()
    client.complete(ask("hi"))
    assert torch.get_num_threads() == before


async def test_acomplete_when_generating_leaves_the_event_loop_free(client):
    options = GenerationOptions(max_tokens=200, stop=("\x00",))
    task = asyncio.create_task(client.acomplete(ask("a much longer"), options=options))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 1
    assert (await task).text == client.complete(ask("a much longer"), options=options).text


class SlowTokenizer:
    """A tokenizer that takes its time to decode, so that a test can act in the middle of an answer."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.has_started = threading.Event()
        self.n_decoded = 0

    def __getattr__(self, name: str):
        return getattr(self.tokenizer, name)

    def __call__(self, *args, **settings):
        return self.tokenizer(*args, **settings)

    def decode(self, *args, **settings) -> str:
        self.has_started.set()
        self.n_decoded += 1
        time.sleep(0.02)
        return self.tokenizer.decode(*args, **settings)


async def test_acomplete_when_cancelled_ends_the_generation(tiny_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = SlowTokenizer(AutoTokenizer.from_pretrained(tiny_folder))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    client = TransformersClient("tiny", model=model, tokenizer=tokenizer, n_threads=1)
    # A stop text makes the client decode at every step, and this one never comes.
    options = GenerationOptions(max_tokens=200, stop=("\x00",))
    task = asyncio.create_task(client.acomplete(ask(TEXTS[1]), options=options))
    await asyncio.to_thread(tokenizer.has_started.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    n_decoded = tokenizer.n_decoded
    answer = await client.acomplete(ask("hi"), options=GenerationOptions(max_tokens=1))
    assert answer.output_tokens == 1
    # The step under way, the end of the cancelled answer, and the new answer: nowhere near 200.
    assert tokenizer.n_decoded <= n_decoded + 4


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("stop", [(), ("4", "zz")])
def test_stream_when_joined_equals_complete(client, text, stop):
    options = GenerationOptions(max_tokens=40, stop=stop)
    pieces = list(client.stream(ask(text), options=options))
    assert "".join(pieces) == client.complete(ask(text), options=options).text
    assert all(pieces)
    assert len(pieces) > 1
    assert not stream_threads()


def test_stream_when_abandoned_ends_its_thread_early(client):
    stream = client.stream(ask(TEXTS[1]), options=GenerationOptions(max_tokens=200))
    next(stream)
    stream.close()
    assert not stream_threads()
    assert client.complete(ask("hi")).text


def test_stream_when_the_model_is_taken_can_be_abandoned_before_it_begins(client):
    with client._lock:
        stream = client.stream(ask("hi"))
        waiting = threading.Thread(target=lambda: next(stream, None))
        waiting.start()
        while not stream_threads():
            time.sleep(0.001)
        assert waiting.is_alive()
    waiting.join(10)
    stream.close()
    assert not stream_threads()


def test_stream_when_the_call_fails_raises_in_the_consumer(client):
    with pytest.raises(CandidateCallError, match="exceed the 256 tokens"):
        list(client.stream(ask("x" * 300)))
    assert not stream_threads()


def test_few_shot_when_used_shows_examples_and_ends_at_the_next_block(tiny_folder):
    client = TransformersClient.from_folder(
        tiny_folder,
        model_name="base",
        prompt_format="few_shot",
        few_shot_examples=[("1+1?", "2")],
        n_threads=1,
        default_options=SHORT,
    )
    answer = client.complete(ask("2+2?"))
    assert answer.input_tokens == len("Q: 1+1?\nA: 2\n\nQ: 2+2?\nA:")
    assert "".join(client.stream(ask("2+2?"))) == answer.text


def test_from_folder_when_weights_are_missing_says_where(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="no safetensors weights"):
        TransformersClient.from_folder(tmp_path, model_name="tiny")


def test_from_folder_when_weights_are_pickled_refuses(tmp_path, tiny_folder):
    for path in tiny_folder.iterdir():
        name = "pytorch_model.bin" if path.suffix == ".safetensors" else path.name
        (tmp_path / name).write_bytes(path.read_bytes())
    with pytest.raises(ArtifactNotFoundError):
        TransformersClient.from_folder(tmp_path, model_name="tiny")


def test_client_when_arguments_do_not_fit_raises(tiny_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    with pytest.raises(InvalidPolicyError, match="batch_size must be at least 1, got 0"):
        TransformersClient("tiny", model=model, tokenizer=tokenizer, batch_size=0)
    tokenizer.chat_template = None
    with pytest.raises(InvalidPolicyError, match="no chat template"):
        TransformersClient("tiny", model=model, tokenizer=tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    with pytest.raises(InvalidPolicyError, match="names an end token"):
        TransformersClient("tiny", model=model, tokenizer=tokenizer, prompt_format="few_shot")
