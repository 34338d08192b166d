from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fusion_integrations.embedders import HashEmbedder, MicroBatchingEmbedder, OnnxMiniLMEmbedder
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError

LIMIT_S = 20  # a deadlock fails the test instead of hanging it


class GatedEmbedder:
    """Hash vectors; holds its first run until `gate` is set, notes every run, fails on texts with "bad"."""

    def __init__(self, *, interrupt: bool = False):
        self.inner = HashEmbedder(dimensions=32)
        self.identity = self.inner.identity
        self.gate, self.started = threading.Event(), threading.Event()
        self.runs: list[list[str]] = []
        self.interrupt = interrupt

    def embed(self, texts):
        self.runs.append(list(texts))
        if len(self.runs) == 1:
            self.started.set()
            assert self.gate.wait(LIMIT_S)
        if self.interrupt and len(self.runs) == 2:
            raise KeyboardInterrupt
        if any("bad" in text for text in texts):
            raise ValueError(f"cannot embed {texts}")
        return self.inner.embed(texts)


def at_once(shared, gated, requests):
    """Let the first request start its run, queue the others behind it in their order, then open the gate."""
    with ThreadPoolExecutor(len(requests)) as pool:
        first = pool.submit(shared.embed, requests[0])
        assert gated.started.wait(LIMIT_S)
        futures = [first]
        for position, texts in enumerate(requests[1:], start=1):
            futures.append(pool.submit(shared.embed, texts))
            while len(shared._waiting) < position:
                threading.Event().wait(0.001)
        gated.gate.set()
        return [future.exception(LIMIT_S) or future.result() for future in futures]


def test_embed_when_callers_come_during_a_run_then_share_the_next_and_get_their_own_vectors():
    gated = GatedEmbedder()
    requests = [["first"], ["a b"], ["c d", "e f"], ["g h"]]
    found = at_once(MicroBatchingEmbedder(gated, n_runs=1), gated, requests)
    assert gated.runs == [["first"], ["a b", "c d", "e f", "g h"]]
    for texts, vectors in zip(requests, found, strict=True):
        np.testing.assert_array_equal(vectors, gated.inner.embed(texts))


def test_embed_when_one_caller_s_text_fails_then_only_that_caller_gets_the_error():
    gated = GatedEmbedder()
    found = at_once(MicroBatchingEmbedder(gated, n_runs=1), gated, [["first"], ["good"], ["bad"], ["fine"]])
    assert isinstance(found[2], ValueError)
    assert str(found[2]) == "cannot embed ['bad']"
    np.testing.assert_array_equal(found[1], gated.inner.embed(["good"]))
    np.testing.assert_array_equal(found[3], gated.inner.embed(["fine"]))


def test_embed_when_texts_do_not_fit_together_then_like_lengths_run_together_the_oldest_first():
    gated = GatedEmbedder()
    shared = MicroBatchingEmbedder(gated, n_runs=1, max_characters=100)
    at_once(shared, gated, [["first"], ["x" * 90], ["short"], ["y" * 300], ["brief"]])
    assert gated.runs == [["first"], ["x" * 90], ["short", "brief"], ["y" * 300]]


def test_embed_when_the_running_caller_is_interrupted_then_the_others_still_get_vectors():
    gated = GatedEmbedder(interrupt=True)
    found = at_once(MicroBatchingEmbedder(gated, n_runs=1), gated, [["first"], ["a"], ["b"], ["c"]])
    assert isinstance(found[1], KeyboardInterrupt)
    np.testing.assert_array_equal(found[2], gated.inner.embed(["b"]))
    np.testing.assert_array_equal(found[3], gated.inner.embed(["c"]))


def test_embed_when_alone_then_runs_at_once_and_again_after_an_error():
    gated = GatedEmbedder()
    gated.gate.set()
    shared = MicroBatchingEmbedder(gated, n_runs=1)
    with pytest.raises(ValueError, match="cannot embed"):
        shared.embed(["bad"])
    np.testing.assert_array_equal(shared.embed(["good"]), gated.inner.embed(["good"]))


@pytest.mark.parametrize("n_runs", [1, 2, 8])
def test_embed_when_many_callers_keep_coming_then_each_gets_its_own(n_runs):
    inner = HashEmbedder(dimensions=32)
    shared = MicroBatchingEmbedder(inner, n_runs=n_runs, max_characters=200)
    texts = [f"text {n} " + "word " * (n % 30) for n in range(300)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: shared.embed([text])[0], texts, timeout=LIMIT_S))
    np.testing.assert_array_equal(found, inner.embed(texts))


def test_embed_when_a_text_is_blank_then_raises_before_it_joins_a_run():
    gated = GatedEmbedder()
    with pytest.raises(EmptyQueryError, match="Text 1 of 2"):
        MicroBatchingEmbedder(gated).embed(["a", " "])
    assert gated.runs == []


def test_embed_when_there_are_no_texts_then_gives_no_rows():
    assert MicroBatchingEmbedder(HashEmbedder(dimensions=32)).embed([]).shape == (0, 32)


def test_identity_is_that_of_the_embedder_underneath():
    assert MicroBatchingEmbedder(HashEmbedder()).identity == HashEmbedder().identity


@pytest.mark.parametrize("settings", [{"n_runs": 0}, {"max_characters": 0}], ids=str)
def test_embedder_when_a_count_is_below_one_then_says_so(settings):
    with pytest.raises(InvalidPolicyError, match="must be at least 1, got 0"):
        MicroBatchingEmbedder(HashEmbedder(), **settings)


@pytest.mark.real_model
def test_embed_when_the_model_is_real_then_vectors_agree(varied_texts):
    inner = OnnxMiniLMEmbedder()
    shared = MicroBatchingEmbedder(inner)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: shared.embed([text])[0], varied_texts, timeout=60))
    np.testing.assert_allclose(found, inner.embed(varied_texts), atol=1e-5)
