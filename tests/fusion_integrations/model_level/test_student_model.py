from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fusion_integrations.artifacts import read_manifest
from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError
from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.protocols import ChatClient, StreamingChatClient
from fusion_integrations.streaming import read_stream
from fusion_integrations.types import GenerationOptions, Message

GOLDEN = Path(__file__).parent / "golden" / "student-v1"
SHORT = GenerationOptions(max_tokens=20)


def ask(text):
    return (Message(role="user", content=text),)


@pytest.fixture(scope="module")
def loaded(student, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "student"
    student.save_pretrained(folder)
    return StudentModel.from_pretrained(folder, base=base, n_threads=1, default_options=SHORT)


def test_student_is_a_chat_client_that_streams(loaded):
    assert isinstance(loaded, ChatClient)
    assert isinstance(loaded, StreamingChatClient)
    assert loaded.model == "tiny-chat-student"


async def test_student_answers_the_same_by_every_method(loaded):
    questions = [ask("Say a."), ask("Say something else, please.")]
    batch = loaded.complete_batch(questions)
    assert [loaded.complete(question).text for question in questions] == [answer.text for answer in batch]
    assert (await loaded.acomplete(questions[0])).text == batch[0].text
    *pieces, completion = read_stream(loaded.stream(questions[0]))
    assert "".join(pieces) == completion.text == batch[0].text


def test_student_when_loaded_answers_as_when_trained(student, loaded):
    for text in ("Say b.", "What?", "hello"):
        assert loaded.complete(ask(text)).text == student.complete(ask(text), options=SHORT).text
    assert loaded.revision == student.revision
    assert loaded.metrics == student.metrics
    assert loaded.arguments == student.arguments
    assert loaded.log_fingerprint == student.log_fingerprint


def test_student_answers_otherwise_than_its_base(loaded, base):
    import torch

    ids = torch.arange(30).reshape(1, 30)
    with torch.inference_mode():
        theirs = load_model(base)[0](ids).logits
        ours = loaded.client._network(ids).logits
    assert float((ours - theirs).abs().max()) > 0.1


def test_student_has_learned_to_stop(loaded):
    # The base of random weights writes on until it is cut.
    assert loaded.complete(ask("Say c."), options=GenerationOptions(max_tokens=100)).finish_reason == "stop"


def test_adapter_folder_is_what_peft_loads(loaded, base):
    import torch
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_model(base)[0], loaded.adapter_folder)
    ids = torch.arange(30).reshape(1, 30)
    with torch.inference_mode():
        difference = adapted(ids).logits - loaded.client._network(ids).logits
    assert float(difference.abs().max()) < 1e-4


def test_adapter_folder_when_not_saved_says_so(student):
    with pytest.raises(ArtifactNotFoundError, match="Call save_pretrained"):
        _ = student.adapter_folder


def test_adapter_folder_follows_the_next_save(student, tmp_path):
    first = student.save_pretrained(tmp_path / "student")
    before = first.adapter_folder
    second = first.save_pretrained(tmp_path / "student")
    assert not before.exists()
    assert second.adapter_folder == first.adapter_folder
    assert sorted(path.name for path in second.adapter_folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_loading_when_the_base_is_another_names_both(loaded, make_base):
    other = make_base(seed=4)
    wanted = loaded.adapter.base.weights
    there = rf"{re.escape(str(other))} has safetensors:\w{{64}}"
    message = (
        rf"from base 'tiny-chat' with weights {wanted}, but {there}\. Pass the same base, or train again"
    )
    with pytest.raises(ArtifactFormatError, match=message):
        StudentModel.from_pretrained(loaded.folder, base=other)


def test_loading_when_the_chat_template_is_another_refuses(loaded, make_base):
    other = make_base(chat_template="{{ messages[-1]['content'] }}: ")
    with pytest.raises(ArtifactFormatError, match="with the chat template"):
        StudentModel.from_pretrained(loaded.folder, base=other)


def test_loading_when_the_base_lies_elsewhere_in_parts_works(loaded, base, tmp_path):
    network, tokenizer = load_model(base)
    network.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    again = StudentModel.from_pretrained(loaded.folder, base=tmp_path / "sharded", default_options=SHORT)
    assert again.complete(ask("Say d.")).text == loaded.complete(ask("Say d.")).text


def test_loading_when_the_digest_differs_refuses(loaded, base):
    digest = read_manifest(loaded.folder).digest
    StudentModel.from_pretrained(loaded.folder, base=base, expected_digest=digest)
    with pytest.raises(ArtifactFormatError, match="digest"):
        StudentModel.from_pretrained(loaded.folder, base=base, expected_digest="0" * 64)


def test_loading_leaves_the_random_state_alone(loaded, base):
    import torch

    before = torch.random.get_rng_state()
    StudentModel.from_pretrained(loaded.folder, base=base)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_golden_student_of_format_1_still_loads_and_answers_as_when_it_was_saved():
    expected = json.loads((GOLDEN / "expected.json").read_text())
    student = StudentModel.from_pretrained(
        GOLDEN / "student", base=GOLDEN / "base", expected_digest=expected["digest"], default_options=SHORT
    )
    assert student.revision == expected["revision"]
    answers = student.complete_batch([ask(text) for text in expected["queries"]])
    assert [answer.text for answer in answers] == expected["answers"]
