from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import ValidationError

from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError
from fusion_integrations.model_level.student_model import StudentModel, run_adapter
from fusion_integrations.model_level.student_network import (
    export_adapter,
    identify_base,
    lora_config,
)
from fusion_integrations.testing import ScriptedChatClient
from fusion_integrations.types import GenerationOptions, Message
from langchain_fusion import ChatClientModel, DistilledChatModel

QUESTION = "What is the capital of Portugal?"

# PEFT asks a network for a property that transformers is giving up.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a network of random weights that reads and writes single characters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<unk>", "<end>", "Ġ", "Ċ", *string.ascii_letters, *string.digits, *string.punctuation]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[], unk_token=tokens[0])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=tokens[0], eos_token=tokens[1])
    fast.chat_template = "{% for turn in messages %}{{ turn['role'] + turn['content'] }}{% endfor %}"
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.5,  # wide enough that greedy answers wander instead of repeating one character
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
    )
    folder = tmp_path_factory.mktemp("base")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a student whose adapter is random, which is all that loading and calling it needs."""
    import peft
    import torch

    network, tokenizer = load_model(base)
    identity = identify_base(base, name="tiny", tokenizer=tokenizer)
    settings = lora_config(rank=2, alpha=4.0, dropout=0.0, target_modules=["q_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = peft.get_peft_model(network, settings)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    adapter = export_adapter(adapted, base=identity)
    folder = tmp_path_factory.mktemp("student")
    StudentModel(adapter=adapter, client=run_adapter(adapter, base=base, source=base)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student(folder: Path, base: Path) -> DistilledChatModel:
    return DistilledChatModel.from_pretrained(folder, base=base, n_threads=1, max_tokens=6)


class TestDistilledChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[DistilledChatModel]:
        return DistilledChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": ScriptedChatClient("student")}


@pytest.mark.slow
class TestDistilledChatModelOverTinyStudent(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _give_student(self, student: DistilledChatModel) -> None:
        self._client = student.client

    @property
    def chat_model_class(self) -> type[DistilledChatModel]:
        return DistilledChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": self._client, "max_tokens": 6}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


@pytest.mark.slow
async def test_from_pretrained_when_loaded_then_answers_as_the_student_does(student):
    completion = student.client.complete(
        [Message(role="user", content=QUESTION)], options=GenerationOptions(max_tokens=6)
    )
    expected = completion.text

    answer = student.invoke(QUESTION)

    assert isinstance(student, ChatClientModel)
    assert isinstance(student.client, StudentModel)
    assert expected
    assert answer.content == expected == (await student.ainvoke(QUESTION)).content
    assert "".join(chunk.content for chunk in student.stream(QUESTION)) == expected
    assert "".join([chunk.content async for chunk in student.astream(QUESTION)]) == expected
    assert answer.usage_metadata["output_tokens"] == completion.output_tokens
    assert answer.response_metadata["model_name"] == "tiny-student"


@pytest.mark.slow
def test_from_pretrained_when_in_a_chain_then_streams(student):
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | student | StrOutputParser()

    assert "".join(chain.stream({"question": QUESTION})) == student.invoke(QUESTION).content


@pytest.mark.slow
def test_from_pretrained_when_named_then_is_logged_by_that_name(folder, base):
    model = DistilledChatModel.from_pretrained(folder, base=base, model_name="pupil", n_threads=1)

    assert model._get_ls_params()["ls_model_name"] == "pupil"
    assert str(folder) not in repr(model._identifying_params)


@pytest.mark.slow
def test_from_pretrained_when_digest_differs_then_refuses(folder, base):
    with pytest.raises(ArtifactFormatError):
        DistilledChatModel.from_pretrained(folder, base=base, expected_digest="0" * 64)


def test_from_pretrained_when_folder_is_empty_then_raises(tmp_path):
    with pytest.raises(ArtifactNotFoundError):
        DistilledChatModel.from_pretrained(tmp_path, base=tmp_path)


def test_model_when_a_field_is_misspelt_then_is_refused():
    with pytest.raises(ValidationError, match="max_token"):
        DistilledChatModel(client=ScriptedChatClient("student"), max_token=3)


def test_model_when_asked_for_its_type_then_tells():
    assert DistilledChatModel(client=ScriptedChatClient("student"))._llm_type == "fusion-distilled"
