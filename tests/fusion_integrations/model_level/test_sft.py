from __future__ import annotations

import pytest

from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.clients.transformers_client import TransformersClient
from fusion_integrations.model_level.distillation_dataset import DistillationDataset
from fusion_integrations.model_level.distillation_tokens import tokenize_pairs
from fusion_integrations.model_level.sft import make_sft_trainer
from fusion_integrations.model_level.student_network import end_tokens
from fusion_integrations.types import GenerationOptions


@pytest.fixture
def sft_of(base, echoes, quick, tmp_path):
    def make(repeats=1):
        network, tokenizer = load_model(base)
        pairs, _ = tokenize_pairs(
            DistillationDataset.from_logs(echoes, quick).pairs * repeats,
            tokenizer=tokenizer,
            end_tokens=end_tokens(network, tokenizer),
            max_tokens=quick.max_tokens,
        )
        sft = make_sft_trainer(
            quick,
            network=network,
            tokenizer=tokenizer,
            pairs=pairs,
            output_folder=str(tmp_path),
            on_step=lambda *_: None,
        )
        return sft, pairs, tokenizer

    return make


def test_collated_batch_labels_the_answer_and_its_end_and_nothing_else(base, sft_of):
    sft, pairs, tokenizer = sft_of()
    client = TransformersClient.from_folder(base, model_name="tiny")
    known = {tuple(item.prompt + item.answer): item.pair for item in pairs}
    seen = []
    for batch in sft.get_train_dataloader():
        for ids, labels, mask in zip(
            batch["input_ids"].tolist(),
            batch["labels"].tolist(),
            batch["attention_mask"].tolist(),
            strict=True,
        ):
            n_tokens = sum(mask)
            pair = known[tuple(ids[:n_tokens])]
            labelled = [i for i, label in enumerate(labels) if label != -100]
            assert mask == [1] * n_tokens + [0] * (len(ids) - n_tokens)
            assert labelled == list(range(labelled[0], n_tokens))  # one block, up to the last real token
            assert tokenizer.decode([labels[i] for i in labelled]) == f"{pair.answer}<|im_end|>"
            # What carries no label is, token for token, what the client sends.
            assert ids[: labelled[0]] == client._encode(pair.messages, GenerationOptions(max_tokens=1))
            seen.append((pair.query_id, pair.answer))
    assert sorted(seen) == sorted((item.pair.query_id, item.pair.answer) for item in pairs)


def test_batches_hold_pairs_of_similar_length_padded_to_the_longest_only(sft_of):
    sft, pairs, _ = sft_of(repeats=8)
    batches = list(sft.get_train_dataloader())
    assert all(
        int(batch["attention_mask"].sum(dim=1).max()) == batch["input_ids"].shape[1] for batch in batches
    )
    n_padded = sum(int((batch["attention_mask"] == 0).sum()) for batch in batches)
    shortest, longest = min(map(len, pairs)), max(map(len, pairs))
    assert n_padded < (longest - shortest) * len(pairs) / 4  # random batches pad about half of them


def test_trainer_tells_nobody_and_computes_in_float32(sft_of, monkeypatch):
    import torch
    from trl.trainer import base_trainer

    def tell(*_, **__):
        raise AssertionError("telemetry was sent")

    sft, *_ = sft_of()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", tell)
    sft._send_telemetry()
    assert sft.args.report_to == []
    assert (sft.args.bf16, sft.args.fp16, sft.args.gradient_checkpointing) == (False, False, False)
    assert {parameter.dtype for parameter in sft.model.parameters()} == {torch.float32}


def test_trainer_when_made_trains_the_adapter_only(sft_of):
    sft, *_ = sft_of()
    trained = {name for name, parameter in sft.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert not any("lm_head" in name for name in trained)
