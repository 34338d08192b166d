from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fusion_integrations.artifacts import load_artifact, save_artifact
from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, InvalidPolicyError
from fusion_integrations.thought_level.template_library import (
    TemplateSource,
    ThoughtTemplate,
    ThoughtTemplateLibrary,
)
from fusion_integrations.types import QUERY_TEXT_VERSION

GOLDEN = Path(__file__).parent / "golden"
QUERIES = ["What is 17 * 24?", "Name the capital of France.", "Reverse the word 'lamp'.", "漢字 🙂\u2028x"]
TEMPLATE = ThoughtTemplate(id="a", query_id="q", query="What is 2 + 2?", text="Add the numbers.")

names = st.text(min_size=1).filter(lambda text: text.strip() != "" and text.isprintable())
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"a{text}")
scores = st.none() | st.floats(0, 1)
sources = st.builds(
    TemplateSource, record_id=names, candidate_id=names, performance=scores, judge_score=scores
)
templates = st.builds(
    ThoughtTemplate,
    id=names,
    query_id=names,
    query=texts,
    text=texts,
    task=st.none() | texts,
    sources=st.lists(sources, max_size=3).map(tuple),
)


@pytest.fixture
def library(make_library):
    return make_library(QUERIES)


def damaged_copy(library, folder, *, lines=lambda lines: lines, tensors=lambda tensors: tensors, **fields):
    """Save the library as somebody would who can also compute the hashes."""
    library.save_pretrained(folder)
    artifact = load_artifact(folder, kind="template_library")
    written = [json.loads(line) for line in artifact.read_bytes("templates.jsonl").splitlines()]
    arrays = tensors(load(artifact.read_bytes("vectors.safetensors")))
    save_artifact(
        folder,
        kind="template_library",
        files={
            "templates.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines(written)).encode(),
            "vectors.safetensors": save(arrays),
        },
        card="",
        **{"embedder": library.embedder, "query_text_version": QUERY_TEXT_VERSION} | fields,
    )
    return folder


@given(template=templates)
def test_template_when_written_as_json_is_read_back_equal(template):
    assert ThoughtTemplate.from_json(json.dumps(template.to_json())) == template


def test_template_when_queries_differ_in_numbers_only_has_the_same_duplicate_key():
    other = dataclasses.replace(TEMPLATE, query="what is 31.5 + 9")
    assert TEMPLATE.duplicate_key == other.duplicate_key


def test_library_when_saved_and_loaded_is_the_same(library, tmp_path):
    full = ThoughtTemplateLibrary(
        library.templates,
        vectors=library.vectors,
        embedder=library.embedder,
        arguments={"top_k": 3},
        log_fingerprint="0123456789abcdef",
        metrics={"n_kept": 4, "n_dropped": {"too_long": 1}},
    )
    assert full.save_pretrained(tmp_path / "library") is full
    loaded = ThoughtTemplateLibrary.from_pretrained(tmp_path / "library")
    assert loaded.templates == full.templates
    np.testing.assert_array_equal(loaded.vectors, full.vectors)
    assert loaded.vectors.dtype == np.float32
    for name in ("embedder", "arguments", "log_fingerprint", "metrics", "fingerprint"):
        assert getattr(loaded, name) == getattr(full, name)
    assert len(loaded) == 4


def test_library_when_saved_over_another_replaces_it(library, make_library, tmp_path):
    library.save_pretrained(tmp_path)
    make_library(["Something else"]).save_pretrained(tmp_path)
    assert [template.query for template in ThoughtTemplateLibrary.from_pretrained(tmp_path).templates] == [
        "Something else"
    ]


def test_library_when_saved_has_a_card_that_counts_and_warns(library, tmp_path):
    library.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "4 notes" in card
    assert "text of logged queries" in card


def test_vectors_when_written_to_refuse(library):
    with pytest.raises(ValueError, match="read-only"):
        library.vectors[0] = 0


def test_vectors_when_the_given_array_changes_stay(library):
    given_array = library.vectors.copy()
    copy = ThoughtTemplateLibrary(library.templates, vectors=given_array, embedder=library.embedder)
    given_array[:] = 0
    np.testing.assert_array_equal(copy.vectors, library.vectors)


@pytest.mark.parametrize(
    "change",
    [{"id": "b"}, {"query": "What is 3 + 2?"}, {"text": "Count."}, {"task": "sums"}, {"query_id": "r"}],
)
def test_fingerprint_when_a_template_differs_differs(change):
    def fingerprint_of(template):
        vectors = HashEmbedder().embed([template.query])
        return ThoughtTemplateLibrary(
            [template], vectors=vectors, embedder=HashEmbedder().identity
        ).fingerprint

    assert fingerprint_of(TEMPLATE) == fingerprint_of(dataclasses.replace(TEMPLATE))
    assert fingerprint_of(TEMPLATE) != fingerprint_of(dataclasses.replace(TEMPLATE, **change))


def test_fingerprint_when_the_embedder_differs_differs(make_library):
    other = make_library(QUERIES, embedder=HashEmbedder(dimensions=64))
    assert other.fingerprint != make_library(QUERIES).fingerprint


@pytest.mark.parametrize(
    ("templates", "vectors", "message"),
    [
        ([], np.zeros((0, 2)), "there is no template"),
        ([TEMPLATE, TEMPLATE], np.eye(2), "2 templates have 1 different ids"),
        ([TEMPLATE], np.eye(2), r"shape \(2, 2\), but 1 templates .* need \(1, 2\)"),
        ([TEMPLATE], np.ones((1, 3)), r"shape \(1, 3\)"),
        ([TEMPLATE], np.ones(2), r"shape \(2,\)"),
        ([TEMPLATE], np.array([[1.0, 0.1]]), "length 1"),
        ([TEMPLATE], np.array([[np.nan, 1.0]]), "length 1"),
        ([TEMPLATE], np.array([[np.inf, 0.0]]), "length 1"),
        ([dataclasses.replace(TEMPLATE, query=" ")], np.eye(2)[:1], "query"),
        ([dataclasses.replace(TEMPLATE, text="\ud800")], np.eye(2)[:1], "surrogates"),
    ],
)
def test_library_when_its_parts_do_not_fit_says_which(templates, vectors, message):
    with pytest.raises(InvalidPolicyError, match=message):
        ThoughtTemplateLibrary(
            templates, vectors=vectors.astype(np.float32), embedder=HashEmbedder(dimensions=2).identity
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "template-1", "4 templates have 3 different ids"),
        ("query", "  ", "line 1: .*query"),
        ("query", 7, "line 1: .*query"),
        ("text", None, "line 1: .*text"),
        ("task", ["x"], "line 1: .*task"),
        ("code", "import os", "line 1: .*code"),
        ("sources", [{"record_id": "r", "candidate_id": "c", "performance": 1.5}], "performance"),
        ("sources", [{"record_id": "r", "candidate_id": "c", "performance": "1"}], "performance"),
        ("sources", [{"record_id": "r", "candidate_id": "c", "judge_score": float("nan")}], "judge_score"),
        ("sources", [{"record_id": "r"}], "candidate_id"),
        ("sources", [{"record_id": "r", "candidate_id": "c", "x": 1}], r"sources\.0\.x"),
    ],
)
def test_library_when_a_line_is_wrong_names_line_and_field(library, tmp_path, field, value, message):
    def change(lines):
        return [lines[0] | {field: value}, *lines[1:]]

    with pytest.raises(ArtifactFormatError, match=message):
        ThoughtTemplateLibrary.from_pretrained(damaged_copy(library, tmp_path / "library", lines=change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": lambda lines: lines[:3]}, "3 templates"),
        ({"lines": lambda lines: []}, "no template"),
        ({"lines": lambda lines: [*lines[:3], "text"]}, "line 4"),
        ({"tensors": lambda tensors: {"vectors": tensors["vectors"][:, :9]}}, r"shape \(4, 9\)"),
        ({"tensors": lambda tensors: {"vectors": tensors["vectors"] * 2}}, "length 1"),
        ({"tensors": lambda tensors: {"other": tensors["vectors"]}}, "vectors"),
        ({"embedder": HashEmbedder(dimensions=8).identity}, "8 dims"),
        ({"embedder": None}, "embedder None"),
        ({"query_text_version": QUERY_TEXT_VERSION + 1}, f"version {QUERY_TEXT_VERSION + 1}"),
    ],
)
def test_library_when_files_do_not_fit_together_says_why(library, tmp_path, changes, message):
    folder = damaged_copy(library, tmp_path / "library", **changes)
    with pytest.raises(ArtifactFormatError, match=message):
        ThoughtTemplateLibrary.from_pretrained(folder)


def test_library_when_a_data_file_is_no_safetensors_says_so(library, tmp_path):
    library.save_pretrained(tmp_path)
    lines = load_artifact(tmp_path, kind="template_library").read_bytes("templates.jsonl")
    save_artifact(
        tmp_path,
        kind="template_library",
        files={"templates.jsonl": lines, "vectors.safetensors": b"not a tensor"},
        card="",
        embedder=library.embedder,
        query_text_version=QUERY_TEXT_VERSION,
    )
    with pytest.raises(ArtifactFormatError, match="holds no vectors"):
        ThoughtTemplateLibrary.from_pretrained(tmp_path)


def test_library_when_a_byte_of_its_files_changed_refuses(library, tmp_path):
    library.save_pretrained(tmp_path)
    file = load_artifact(tmp_path, kind="template_library").path("templates.jsonl")
    file.write_bytes(file.read_bytes().replace(b"steps", b"leaps", 1))
    with pytest.raises(ArtifactFormatError, match="damaged"):
        ThoughtTemplateLibrary.from_pretrained(tmp_path)


def test_library_when_it_is_not_the_expected_one_refuses(library, tmp_path):
    library.save_pretrained(tmp_path)
    with pytest.raises(ArtifactFormatError, match="digest"):
        ThoughtTemplateLibrary.from_pretrained(tmp_path, expected_digest="0" * 64)


def test_library_when_there_is_none_says_so(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match="no artifact"):
        ThoughtTemplateLibrary.from_pretrained(tmp_path)


def test_golden_library_of_format_1_still_loads_with_its_templates_and_vectors():
    expected = json.loads((GOLDEN / "template-library-v1.json").read_text(encoding="utf-8"))
    library = ThoughtTemplateLibrary.from_pretrained(
        GOLDEN / "template-library-v1", expected_digest=expected["digest"]
    )
    assert [template.to_json() for template in library.templates] == expected["templates"]
    np.testing.assert_array_equal(library.vectors, np.array(expected["vectors"], dtype=np.float32))
    assert library.embedder.to_json() == expected["embedder"]
    assert library.fingerprint == expected["fingerprint"]
    assert library.arguments == expected["arguments"]
    assert library.metrics == expected["metrics"]
    assert library.log_fingerprint == expected["log_fingerprint"]
