import json
import shutil
import string
from pathlib import Path

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.embeddings.mock_embed_model import MockEmbedding

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
from llamaindex_fusion import DistilledLLM

pytestmark = pytest.mark.slow

HELLO = "Hello you"
OPTIONS = GenerationOptions(max_tokens=12)
CONTEXT = 1024


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network that reads and writes one printable character a token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    unknown, end = "<unk>", "</s>"
    tokens = [unknown, end, *string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, eos_token=end)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,  # wide enough that greedy answers wander instead of repeating one character
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
    )
    folder = tmp_path_factory.mktemp("tiny-base")
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved student, whose adapter was drawn at random instead of trained."""
    import peft
    import torch

    network, tokenizer = load_model(base)
    identity = identify_base(base, name="tiny-base", tokenizer=tokenizer)
    torch.manual_seed(5)
    settings = lora_config(rank=4, alpha=8.0, dropout=0.0, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(network, settings)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapter = export_adapter(adapted, base=identity)
    folder = tmp_path_factory.mktemp("saved") / "student"
    StudentModel(adapter=adapter, client=run_adapter(adapter, base=base, source="here")).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def llm(folder: Path, base: Path) -> DistilledLLM:
    return DistilledLLM.from_pretrained(folder, base=base, options=OPTIONS, n_threads=1)


async def test_all_eight_methods_give_the_students_answer(
    llm: DistilledLLM, folder: Path, base: Path
) -> None:
    student = StudentModel.from_pretrained(folder, base=base)
    expected = student.complete([Message(role="user", content=HELLO)], options=OPTIONS).text
    messages = [ChatMessage(content=HELLO)]

    texts = [
        llm.chat(messages).message.content,
        llm.complete(HELLO).text,
        list(llm.stream_chat(messages))[-1].message.content,
        list(llm.stream_complete(HELLO))[-1].text,
        (await llm.achat(messages)).message.content,
        (await llm.acomplete(HELLO)).text,
        [chunk async for chunk in await llm.astream_chat(messages)][-1].message.content,
        [chunk async for chunk in await llm.astream_complete(HELLO)][-1].text,
    ]

    assert expected
    assert texts == [expected] * 8


def test_stream_when_the_student_generates_then_pieces_and_usage_arrive(llm: DistilledLLM) -> None:
    chunks = list(llm.stream_complete(HELLO))

    assert len(chunks) > 3
    assert "".join(chunk.delta or "" for chunk in chunks) == chunks[-1].text
    assert chunks[-1].raw["usage"]["prompt_tokens"] == len(HELLO)


def test_metadata_tells_the_students_name_and_its_bases_context(llm: DistilledLLM) -> None:
    metadata = llm.metadata

    assert (metadata.model_name, metadata.context_window, metadata.num_output) == (
        "tiny-base-student",
        CONTEXT,
        12,
    )
    assert metadata.is_chat_model
    assert not metadata.is_function_calling_model


def test_from_pretrained_when_name_and_context_are_given_then_they_hold(folder: Path, base: Path) -> None:
    llm = DistilledLLM.from_pretrained(
        folder, base=base, model_name="pupil", context_window=100, system_prompt="Be brief."
    )

    assert (llm.metadata.model_name, llm.metadata.context_window) == ("pupil", 100)
    assert llm.metadata.num_output == GenerationOptions().max_tokens
    assert llm.system_prompt == "Be brief."


def test_metadata_when_the_bases_config_leaves_its_context_to_the_architecture_then_it_is_still_known(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    config = json.loads((other / "config.json").read_text())
    del config["max_position_embeddings"]
    (other / "config.json").write_text(json.dumps(config))

    assert DistilledLLM.from_pretrained(folder, base=other).metadata.context_window == 2048  # Llama's own


def test_payload_and_serialised_form_hold_no_path(llm: DistilledLLM, folder: Path, base: Path) -> None:
    payload, serialised = llm.to_payload(), llm.to_json()

    assert payload["class_name"] == json.loads(serialised)["class_name"] == "DistilledLLM"
    for path in (folder, base):
        assert str(path) not in f"{payload} {serialised} {llm!r}"


def test_from_pretrained_when_artifact_was_tampered_with_or_base_is_missing_then_error(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactFormatError):
        DistilledLLM.from_pretrained(folder, base=base, expected_digest="0" * 64)
    with pytest.raises(ArtifactNotFoundError):
        DistilledLLM.from_pretrained(folder, base=tmp_path)


def test_constructor_when_given_a_client_then_it_answers() -> None:
    assert DistilledLLM(client=ScriptedChatClient("served")).complete(HELLO).text == "served heard: Hello you"


async def test_query_engine_when_the_student_answers_then_sync_async_and_stream_agree(
    llm: DistilledLLM,
) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="The capital of France is Paris.")], embed_model=MockEmbedding(embed_dim=4)
    )
    question = "What is the capital of France?"

    whole = index.as_query_engine(llm=llm).query(question)
    from_async = await index.as_query_engine(llm=llm).aquery(question)
    streamed = index.as_query_engine(llm=llm, streaming=True).query(question)

    assert str(whole)
    assert str(from_async) == "".join(streamed.response_gen) == str(whole)
    assert len(whole.source_nodes) == 1
