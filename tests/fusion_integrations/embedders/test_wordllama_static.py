from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fusion_integrations.embedders import WordLlamaEmbedder
from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.protocols import EmbedderIdentity

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def embedder() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


def test_identity_when_made_then_says_what_must_match(embedder):
    assert embedder.identity == EmbedderIdentity(
        name="wordllama-l2-supercat", engine="static", precision="fp32", dimensions=256, max_tokens=0
    )


def test_embed_when_compared_with_the_library_itself_then_vectors_are_the_same(embedder, varied_texts):
    import wordllama

    # Its own folder as cache: there it finds the tokenizer that it looks for in the wrong place.
    library = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    expected = library.embed(varied_texts, norm=True)
    np.testing.assert_allclose(embedder.embed(varied_texts), expected, atol=1e-6)


def test_embed_when_texts_vary_then_rows_have_unit_length(embedder, varied_texts):
    vectors = embedder.embed([*varied_texts, "\ud83d", "\N{ZERO WIDTH SPACE}"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_embed_when_meaning_is_near_then_vectors_are_near(embedder):
    query, near, far = embedder.embed(["the cat sleeps", "a kitten is napping", "quarterly tax report"])
    assert query @ near > query @ far + 0.1


def test_embed_when_there_are_no_texts_then_gives_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 256)


def test_embed_when_a_text_is_blank_then_raises(embedder):
    with pytest.raises(EmptyQueryError):
        embedder.embed([" "])


def test_embedder_when_made_then_leaves_logging_and_the_library_alone():
    script = (
        "import logging, sys; from fusion_integrations.embedders import WordLlamaEmbedder; "
        "WordLlamaEmbedder().embed(['x']); "
        "assert not logging.root.handlers; assert 'wordllama' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
