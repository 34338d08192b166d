"""Saving and loading routers; the folder itself is tested with `fusion_integrations.artifacts`."""

from __future__ import annotations

import io
import json
import math
import pickletools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fusion_integrations.artifacts import load_artifact, save_artifact
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    EmbedderMismatchError,
    InvalidPolicyError,
    NoEligibleCandidateError,
)
from fusion_integrations.query_level.policy import BALANCE, RoutingPolicy
from fusion_integrations.query_level.router_artifact import WEIGHTS_FILE
from fusion_integrations.query_level.router_features import router_features
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.types import Candidate, Message, Query

TEXTS = ["What is 17 plus 4?", "Write a line about rivers.", "漢字 🙂", "x" * 5000]
PREDICTIONS = ("performance_members", "input_tokens", "output_tokens", "logged_cost_usd")
GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "router-v1"


def damaged_copy(router, folder, *, tensors=lambda arrays: arrays, **fields):
    """Save the router as somebody would who can also compute the hashes."""
    router.save_pretrained(folder)
    artifact = load_artifact(folder, kind="router")
    manifest = artifact.manifest
    weights = folder.parent / "weights"
    save_file(tensors(load_file(artifact.path(WEIGHTS_FILE))), weights)
    changed = {
        "candidates": manifest.candidates,
        "embedder": manifest.embedder,
        "query_text_version": manifest.query_text_version,
        "details": manifest.details,
        **fields,
    }
    save_artifact(folder, kind="router", files={WEIGHTS_FILE: weights.read_bytes()}, card="", **changed)
    return folder


def test_router_when_loaded_predicts_and_decides_bit_equal(router_of_each_head, tmp_path):
    saved = router_of_each_head.save_pretrained(tmp_path / "router")
    loaded = RouterModel.from_pretrained(tmp_path / "router")
    before, after = saved.predict(TEXTS), loaded.predict(TEXTS)
    for name in PREDICTIONS:
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert loaded.candidates == saved.candidates
    assert loaded.route_batch(TEXTS, policy=BALANCE) == saved.route_batch(TEXTS, policy=BALANCE)
    assert loaded.basis.margin_z == saved.basis.margin_z
    assert loaded.basis.se_scale == saved.basis.se_scale >= 1
    assert loaded.basis.cost_scale_usd == saved.basis.cost_scale_usd
    np.testing.assert_array_equal(loaded.basis.quality.loss, saved.basis.quality.loss)
    assert loaded.arguments == saved.arguments
    assert loaded.metrics == saved.metrics
    assert loaded.log_fingerprint == saved.log_fingerprint != ""


def test_router_when_saved_twice_has_the_same_weights(trained_router, tmp_path):
    contents = []
    for name in ("one", "two"):
        trained_router.save_pretrained(tmp_path / name)
        contents.append(load_artifact(tmp_path / name, kind="router").contents)
    assert contents[0] == contents[1]


def test_saving_returns_the_router_with_the_digest_that_decisions_carry(trained_router, tmp_path):
    assert trained_router.route(TEXTS[0]).artifact == ""
    saved = trained_router.save_pretrained(tmp_path / "router")
    digest = load_artifact(tmp_path / "router", kind="router").manifest.digest
    assert saved.route(TEXTS[0]).artifact == digest
    assert RouterModel.from_pretrained(tmp_path / "router", expected_digest=digest).basis.artifact == digest
    with pytest.raises(ArtifactFormatError, match="digest"):
        RouterModel.from_pretrained(tmp_path / "router", expected_digest="0" * 64)


def test_margins_that_are_infinite_survive(trained_router, tmp_path):
    margins = dict(trained_router.basis.margin_z)
    assert math.inf in margins.values()
    trained_router.save_pretrained(tmp_path / "router")
    assert RouterModel.from_pretrained(tmp_path / "router").basis.margin_z == margins


def test_artifact_holds_data_only(router_of_each_head, tmp_path):
    router_of_each_head.save_pretrained(tmp_path / "router")
    files = [path for path in (tmp_path / "router").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["README.md", "manifest.json", "weights.safetensors"]
    for path in files:
        with pytest.raises(ValueError, match=r"opcode|pickle|exhausted|stack|expected"):
            pickletools.dis(path.read_bytes(), out=io.StringIO())
    for name, tensor in load_file(next(path for path in files if path.suffix == ".safetensors")).items():
        assert tensor.dtype in (np.float16, np.float32, np.int64, np.uint8), name


def test_card_lists_every_candidate(trained_router, tmp_path):
    trained_router.save_pretrained(tmp_path / "router")
    card = (tmp_path / "router" / "README.md").read_text()
    assert "| calculator | tiny-math | direct | 0.500 |" in card
    assert "trained on 40 logged queries" in card


def test_loading_when_nothing_is_there_says_so(tmp_path):
    with pytest.raises(ArtifactNotFoundError):
        RouterModel.from_pretrained(tmp_path / "nowhere")


def test_loading_when_the_embedder_differs_refuses(trained_router, tmp_path):
    trained_router.save_pretrained(tmp_path / "router")
    with pytest.raises(EmbedderMismatchError, match="256"):
        RouterModel.from_pretrained(tmp_path / "router", embedder=HashEmbedder(dimensions=64))
    RouterModel.from_pretrained(tmp_path / "router", embedder=HashEmbedder())


def test_loading_when_it_is_of_another_kind_refuses(tmp_path):
    save_artifact(tmp_path / "student", kind="student", files={WEIGHTS_FILE: b""}, card="")
    with pytest.raises(ArtifactFormatError, match="student"):
        RouterModel.from_pretrained(tmp_path / "student")


def test_saving_over_another_kind_refuses(trained_router, tmp_path):
    save_artifact(tmp_path / "student", kind="student", files={WEIGHTS_FILE: b""}, card="")
    with pytest.raises(ArtifactWriteError, match="student"):
        trained_router.save_pretrained(tmp_path / "student")


def test_loading_when_a_byte_flipped_refuses(router_of_each_head, tmp_path):
    router_of_each_head.save_pretrained(tmp_path / "router")
    (weights,) = (tmp_path / "router").rglob(WEIGHTS_FILE)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactFormatError, match="damaged"):
        RouterModel.from_pretrained(tmp_path / "router")


def test_loading_when_weights_are_no_safetensors_refuses(trained_router, tmp_path):
    damaged_copy(trained_router, tmp_path / "router")
    manifest = load_artifact(tmp_path / "router", kind="router").manifest
    save_artifact(
        tmp_path / "router",
        kind="router",
        files={WEIGHTS_FILE: b"not tensors"},
        card="",
        candidates=manifest.candidates,
        embedder=manifest.embedder,
        query_text_version=1,
        details=manifest.details,
    )
    with pytest.raises(ArtifactFormatError, match="not a router this release can read"):
        RouterModel.from_pretrained(tmp_path / "router")


@pytest.mark.parametrize("missing", ["average.performance_members", "usage.scale", "member.0.means"])
def test_loading_when_an_array_is_missing_refuses(trained_router, tmp_path, missing):
    folder = damaged_copy(
        trained_router,
        tmp_path / "router",
        tensors=lambda arrays: {name: array for name, array in arrays.items() if name != missing},
    )
    with pytest.raises(ArtifactFormatError, match=missing.rsplit(".", 1)[1]):
        RouterModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("average.performance_members", np.zeros((1, 1, 2), dtype=np.float32)),
        ("average.logged_cost_usd", np.zeros((1, 4), dtype=np.float32)),
        ("member.0.means", np.zeros((2, 2), dtype=np.float32)),
        ("usage.scale", np.zeros(5, dtype=np.float32)),
        ("usage.input_fit", np.zeros((2, 2), dtype=np.float32)),
        ("usage.latency_s", np.zeros((2, 2), dtype=np.float32)),
        ("quality.loss", np.zeros((2, 20), dtype=np.float32)),
        ("quality.rates", np.zeros(20, dtype=np.float32)),
    ],
)
def test_loading_when_an_array_fits_other_candidates_refuses(trained_router, tmp_path, name, array):
    # Broadcasting would otherwise turn it into wrong answers instead of an error.
    folder = damaged_copy(trained_router, tmp_path / "router", tensors=lambda arrays: {**arrays, name: array})
    with pytest.raises(ArtifactFormatError, match=name.rsplit(".", 1)[1]):
        RouterModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "candidate",
    [
        {},
        {"id": "a"},
        {"id": None, "model": "m"},
        {"id": 5, "model": "m"},
        {"id": "a", "model": "m", "kind": "weapon"},
        {"id": "a", "model": "m", "prompt_mode": "shouting"},
        {"id": "a", "model": "m", "capabilities": 3},
        {"id": "a", "model": "m", "capabilities": "tools"},
        {"id": "a", "model": "m", "colour": "red"},
        {"id": " ", "model": "m"},
    ],
)
def test_loading_when_a_candidate_is_malformed_refuses(trained_router, tmp_path, candidate):
    whole = [c.to_json() for c in trained_router.candidates]
    folder = damaged_copy(trained_router, tmp_path / "router", candidates=[*whole[:2], candidate])
    with pytest.raises(ArtifactFormatError, match="not a router this release can read"):
        RouterModel.from_pretrained(folder)


def test_loading_when_a_candidate_repeats_or_is_missing_refuses(trained_router, tmp_path):
    first, second, third = (c.to_json() for c in trained_router.candidates)
    for number, wrong in enumerate(([first, second, second], [first, second], [first, second, third, third])):
        folder = damaged_copy(trained_router, tmp_path / str(number), candidates=wrong)
        with pytest.raises(ArtifactFormatError):
            RouterModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_features_version": 3}, "version 3 of the text features"),
        ({"head": "oracle"}, "oracle"),
        ({"n_members": 0}, "n_members"),
        ({"n_members": 99}, "lacks the array"),
        ({"cost_scale_usd": "much"}, "cost_scale_usd"),
        ({"cost_scale_usd": 0.0}, "cost_scale_usd"),
        ({"cost_scale_usd": -1.0}, "cost_scale_usd"),
        ({"margins": [[0.0, -1.0]]}, "margins"),
        ({"margins": "none"}, "margins"),
        ({"se_scale": 0.5}, "se_scale"),
        ({"pool": {"n_trained": 3}}, "kept"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_loading_when_the_details_do_not_fit_this_release_refuses(trained_router, tmp_path, change, words):
    router = trained_router.save_pretrained(tmp_path / "whole")
    details = load_artifact(tmp_path / "whole", kind="router").manifest.details
    folder = damaged_copy(router, tmp_path / "router", details={**details, **change})
    with pytest.raises(ArtifactFormatError, match=words):
        RouterModel.from_pretrained(folder)


@pytest.mark.parametrize("version", [None, 2])
def test_loading_when_the_query_text_version_differs_refuses(trained_router, tmp_path, version):
    folder = damaged_copy(trained_router, tmp_path / "router", query_text_version=version)
    with pytest.raises(ArtifactFormatError, match="query text"):
        RouterModel.from_pretrained(folder)


def test_loading_when_no_embedder_is_named_refuses(trained_router, tmp_path):
    folder = damaged_copy(trained_router, tmp_path / "router", embedder=None)
    with pytest.raises(ArtifactFormatError, match="embedder"):
        RouterModel.from_pretrained(folder)


@pytest.mark.parametrize("head", ["cluster", "xgboost"])
def test_golden_router_of_format_1_still_loads_and_predicts_as_when_it_was_saved(head):
    expected = json.loads((GOLDEN / f"{head}.json").read_text())
    router = RouterModel.from_pretrained(GOLDEN / head, expected_digest=expected["digest"])
    # It was saved when the white space around a text was read too, which one of these has.
    texts, version = expected["texts"], router.weights.text_features_version
    features = router_features(texts, embedder=router.embedder, version=version)
    as_read_then = router.weights.predict(texts, features)
    bare = np.flatnonzero([text == text.strip() for text in texts])
    predicted = router.predict([texts[row] for row in bare])
    for name in PREDICTIONS:
        stored = np.array(expected[name], dtype=np.float32)
        np.testing.assert_allclose(getattr(as_read_then, name), stored, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(getattr(predicted, name), stored[..., bare, :], rtol=1e-5, atol=1e-5)
    assert len(bare) == len(texts) - 1
    decisions = router.route_batch(expected["texts"], policy=RoutingPolicy(margin_z=0.0))
    assert [decision.candidate.id for decision in decisions] == expected["chosen"]


def test_golden_router_has_no_validated_quality_and_says_so():
    router = RouterModel.from_pretrained(GOLDEN / "cluster")
    policy = RoutingPolicy(quality_of=router.candidates[0].id)
    with pytest.raises(InvalidPolicyError, match="saved by an older release"):
        router.route(TEXTS[0], policy=policy)
    router.route(TEXTS[0], policy=replace(policy, margin_z=1.0))


def test_latency_and_context_survive(logs, two_tasks, tmp_path):
    rows = [row | {"latency_s": 2.0 if row["c"] == "a" else 0.5} for row in two_tasks()]
    known = tuple(Candidate(id=name, model=f"m-{name}", context_tokens=200) for name in "ab")
    router = RouterTrainer(embedder=HashEmbedder()).train(logs(*rows), candidates=known)
    router.save_pretrained(tmp_path / "router")
    loaded = RouterModel.from_pretrained(tmp_path / "router")
    np.testing.assert_allclose(loaded.predict(TEXTS[:1]).latency_s, [[2.0, 0.5]], rtol=1e-4)
    assert loaded.candidates == known
    assert loaded.route(TEXTS[0], policy=RoutingPolicy(max_latency_s=1.0)).candidate.id == "b"
    with pytest.raises(NoEligibleCandidateError, match="exceed its 200 tokens"):
        loaded.route("x" * 5000)
    retrieved = (Message(role="system", content="x" * 5000), Message(role="user", content=TEXTS[0]))
    with pytest.raises(NoEligibleCandidateError, match="exceed its 200 tokens"):
        loaded.route(Query(messages=retrieved))
