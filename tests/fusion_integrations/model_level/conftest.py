"""A tiny network with a real chat template, and logs that teach it."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fusion_integrations.logs.frame import LOG_SCHEMA
from fusion_integrations.logs.rows import messages_to_json
from fusion_integrations.model_level.distillation_config import DistillationTrainingArguments
from fusion_integrations.model_level.distillation_trainer import DistillationTrainer
from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.types import Query

# SmolLM2's, with a shorter system prompt: the kind most small models use.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_base(folder: Path, *, seed: int = 3, chat_template: str = CHAT_TEMPLATE) -> Path:
    """Save a network of random weights and one token a printable character."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=special[0], bos_token=special[1], eos_token=special[2]
    )
    fast.chat_template = chat_template
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_logs(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return a log frame; a row gives `query` (a text or messages) and whatever else differs."""
    filled = []
    for number, row in enumerate(rows):
        fields = dict(row)
        query = fields.pop("query")
        query = Query.from_text(query) if isinstance(query, str) else Query(messages=query)
        blank = dict.fromkeys(LOG_SCHEMA)
        own = {
            "record_id": f"r{number}",
            "query_id": query.query_id,
            "messages": messages_to_json(query.messages),
            "query_text": query.text,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            "candidate_id": "big",
        }
        filled.append(blank | own | fields)
    return pl.DataFrame(filled, schema=LOG_SCHEMA, orient="row")


def echo_logs() -> pl.DataFrame:
    """Return logs of 12 queries: `big` is right and short, `small` wrong, and a reference is known."""
    rows = []
    for letter in "abcdefghijkl":
        query = {"query": f"Say {letter}.", "reference": letter, "metric": "exact_match", "task": "echo"}
        rows += [
            query | {"candidate_id": "big", "response": f"It is {letter}.", "performance": 1.0},
            query | {"candidate_id": "small", "response": "What?", "performance": 0.0},
        ]
    return make_logs(rows)


QUICK = DistillationTrainingArguments(
    n_epochs=4, learning_rate=1e-2, batch_size=4, n_threads=1, lora_rank=2, lora_alpha=4.0, max_tokens=128
)


@pytest.fixture(scope="session")
def logs_of() -> Callable[[Sequence[Mapping[str, Any]]], pl.DataFrame]:
    return make_logs


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(**differences: Any) -> Path:
        return build_base(tmp_path_factory.mktemp("tiny-chat"), **differences)

    return make


@pytest.fixture(scope="session")
def base(make_base: Callable[..., Path]) -> Path:
    return make_base()


@pytest.fixture(scope="session")
def echoes() -> pl.DataFrame:
    return echo_logs()


@pytest.fixture(scope="session")
def quick() -> DistillationTrainingArguments:
    return QUICK


@pytest.fixture(scope="session")
def student(base: Path, echoes: pl.DataFrame) -> StudentModel:
    return DistillationTrainer(QUICK, base=base, base_name="tiny-chat").train(echoes)
