from __future__ import annotations

from dataclasses import replace

import pytest

from fusion_integrations.clients.model_folder import load_model
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError
from fusion_integrations.model_level.student_network import attach_adapter, end_tokens

LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def logits(network):
    import torch

    with torch.inference_mode():
        return network(torch.arange(60).reshape(2, 30)).logits


def changed(adapter, change):
    """Return the adapter after `change` edited its tensors."""
    from safetensors.torch import load, save

    tensors = load(adapter.weights)
    change(tensors)
    return replace(adapter, weights=save({name: tensor.clone() for name, tensor in tensors.items()}))


def test_merged_and_unmerged_adapter_give_the_same_logits_and_not_those_of_the_base(base, student):
    plain = logits(load_model(base)[0])
    adapted = attach_adapter(load_model(base)[0], student.adapter, source="test")
    unmerged = logits(adapted)
    merged = logits(adapted.merge_and_unload())
    assert float((merged - unmerged).abs().max()) < 1e-4
    assert float((merged - plain).abs().max()) > 0.1
    assert float((merged - logits(student.client._network)).abs().max()) == 0


def test_adapter_names_its_layers_by_their_last_part(student):
    names = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert student.adapter.config.target_modules == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.popitem(), "not those that its layers need"),
        (lambda tensors: tensors.clear(), "not those that its layers need"),
        (lambda tensors: tensors.update({LAYER: tensors[LAYER][:1]}), r"shape \(1, 32\) is not of rank 2"),
        (lambda tensors: next(iter(tensors.values())).fill_(float("nan")), "finite"),
        (lambda tensors: tensors.update({"x.lora_A.weight": tensors[LAYER]}), "not those"),
    ],
)
def test_attaching_when_the_weights_do_not_fit_refuses(base, student, change, message):
    with pytest.raises(ArtifactFormatError, match=f"adapter_model.safetensors of here .*{message}"):
        attach_adapter(load_model(base)[0], changed(student.adapter, change), source="here")


def test_attaching_when_the_weights_are_no_safetensors_refuses(base, student):
    with pytest.raises(ArtifactFormatError, match="does not fit the base 'tiny-chat'"):
        attach_adapter(
            load_model(base)[0], replace(student.adapter, weights=b"\x80\x04pickle"), source="here"
        )


def test_attaching_when_the_rank_is_a_lie_refuses_before_making_room(base, student):
    config = student.adapter.config.model_copy(update={"r": 1024})
    with pytest.raises(ArtifactFormatError, match="not of rank 1024"):
        attach_adapter(load_model(base)[0], replace(student.adapter, config=config), source="here")


def test_attaching_when_the_base_has_no_such_layers_refuses(base, student):
    config = student.adapter.config.model_copy(update={"target_modules": ("c_attn",)})
    with pytest.raises(ArtifactFormatError, match="c_attn"):
        attach_adapter(load_model(base)[0], replace(student.adapter, config=config), source="here")


def test_end_tokens_are_those_of_the_generation_config_else_of_the_tokenizer(base):
    network, tokenizer = load_model(base)
    network.generation_config.eos_token_id = [7, 2]
    assert end_tokens(network, tokenizer) == (7, 2)
    network.generation_config.eos_token_id = None
    assert end_tokens(network, tokenizer) == (2,)
    tokenizer.eos_token = None
    with pytest.raises(InvalidPolicyError, match="names an end token"):
        end_tokens(network, tokenizer)
