from __future__ import annotations

import numpy as np
import pytest

from fusion_integrations.embedders import SentenceTransformerEmbedder
from fusion_integrations.embedders.minilm_layers import MINILM_LAYERS, MiniLMLayers
from fusion_integrations.errors import EmptyQueryError

pytestmark = pytest.mark.real_model


def embed(layers, texts, *, n_lower):
    hidden, mask = layers.run_lower(layers.tokenize(texts), n_layers=n_lower)
    for number in range(n_lower, MINILM_LAYERS):
        hidden = layers.run_layer(hidden, mask, layers.layer_weights(number))
    return layers.pool(hidden, mask).numpy()


@pytest.mark.parametrize("n_lower", [0, 5, 6])
def test_layers_when_all_are_run_then_give_what_sentence_transformers_gives(varied_texts, n_lower):
    expected = SentenceTransformerEmbedder(device="cpu").embed(varied_texts[:20])
    layers = MiniLMLayers(max_tokens=256)
    np.testing.assert_allclose(embed(layers, varied_texts[:20], n_lower=n_lower), expected, atol=2e-6)


def test_layers_when_a_text_is_long_then_read_its_first_tokens():
    layers = MiniLMLayers(max_tokens=8)
    assert len(layers.tokenize(["one two three four five six seven eight nine"])[0]) == 8


def test_layers_when_a_text_is_blank_then_refuse():
    with pytest.raises(EmptyQueryError):
        MiniLMLayers(max_tokens=8).tokenize(["a", " "])
