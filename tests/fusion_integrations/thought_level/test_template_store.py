"""What every store promises, on all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fusion_integrations.embedders import HashEmbedder, load_embedder
from fusion_integrations.errors import EmbedderMismatchError, EmptyQueryError, InvalidPolicyError
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.thought_level.chroma_store import ChromaThoughtTemplateStore
from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore

KINDS = ["memory", "chroma-path", "chroma-client"]
N_TEMPLATES = 300


@pytest.fixture(scope="session")
def open_store(tmp_path_factory):
    """Return what makes a store of a kind; every store has an index of its own."""
    chromadb = pytest.importorskip("chromadb")
    folder = tmp_path_factory.mktemp("chroma")
    numbers = itertools.count()

    def make(kind, library, embedder=None):
        embedder = embedder or HashEmbedder()
        if kind == "memory":
            return InMemoryThoughtTemplateStore(library, embedder=embedder)
        if kind == "chroma-path":
            return ChromaThoughtTemplateStore.from_library(
                library, embedder=embedder, path=folder, name=f"store-{next(numbers)}"
            )
        client = chromadb.EphemeralClient(chromadb.config.Settings(anonymized_telemetry=False))
        return ChromaThoughtTemplateStore.from_library(
            library, embedder=embedder, client=client, name=f"contract-{next(numbers)}"
        )

    return make


@pytest.fixture(scope="session")
def queries(demo_queries):
    """Every fourth demo query: some hundred of each family's templates, many near-duplicates."""
    return demo_queries[::4][:N_TEMPLATES]


@pytest.fixture(scope="session")
def library(make_library, queries):
    return make_library(queries)


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def store(kind, open_store, library):
    return open_store(kind, library)


def assert_best(found, library, query, *, k, excluded_key=None):
    """Compare with the definition, cosines in double precision; among equals any may come first."""
    cosines = library.vectors.astype(np.float64) @ HashEmbedder().embed([query])[0].astype(np.float64)
    by_id = {
        template.id: cosine
        for template, cosine in zip(library.templates, cosines, strict=True)
        if template.duplicate_key != excluded_key
    }
    similarities = [each.similarity for each in found]
    assert similarities == pytest.approx(sorted(by_id.values(), reverse=True)[:k], abs=2e-6)
    assert similarities == pytest.approx([by_id[each.template.id] for each in found], abs=2e-6)
    assert len(set(ids(found))) == len(found)


def ids(found):
    return [each.template.id for each in found]


def test_search_when_a_query_is_in_the_library_finds_its_whole_template_first(store, library):
    for number in (0, 1, 2, 5):  # with and without task, with 0, 1 and 2 sources
        template = library.templates[number]
        (found,) = store.search([template.query], k=1)
        assert found[0].template == template
        assert found[0].similarity == 1.0


def test_search_when_compared_with_the_definition_agrees(store, library, demo_queries):
    new = demo_queries[1::40]
    for query, found in zip(new, store.search(new, k=5, min_similarity=-1), strict=True):
        assert_best(found, library, query, k=5)


def test_search_when_near_duplicates_are_excluded_drops_all_of_them_and_still_finds_k(store, library):
    keys = [template.duplicate_key for template in library.templates]
    key = max(set(keys), key=keys.count)
    assert keys.count(key) >= 5
    query = next(template.query for template in library.templates if template.duplicate_key == key)
    (found,) = store.search([query], k=4, min_similarity=-1, near_duplicates="exclude")
    assert_best(found, library, query, k=4, excluded_key=key)
    assert all(duplicate_key(each.template.query) != key for each in found)
    (kept,) = store.search([query], k=4, min_similarity=-1)
    assert all(each.template.duplicate_key == key for each in kept)


def test_search_when_several_queries_exclude_their_own_near_duplicates_keeps_those_of_others(store, library):
    first, second = library.templates[0], library.templates[-1]
    both = store.search([first.query, second.query], k=300, min_similarity=-1, near_duplicates="exclude")
    assert first.id not in ids(both[0])
    assert second.id not in ids(both[1])
    assert second.id in ids(both[0])
    assert first.id in ids(both[1])


def test_search_when_all_are_near_duplicates_finds_nothing(kind, open_store, make_library):
    store = open_store(kind, make_library(["What is 2 + 3?", "what is 14 + 9"]))
    assert store.search(["What is 7 + 7?"], min_similarity=-1, near_duplicates="exclude") == [[]]


def test_search_when_k_exceeds_the_templates_returns_all_sorted(store):
    (found,) = store.search(["How many legs have 3 spiders?"], k=1000, min_similarity=-1)
    assert len(found) == len(set(ids(found))) == N_TEMPLATES
    similarities = [each.similarity for each in found]
    assert similarities == sorted(similarities, reverse=True)


def test_search_when_nothing_is_similar_enough_returns_an_empty_list_for_that_query(store, library):
    known = library.templates[3].query
    found = store.search(["zzz qqq xxx", known], k=2, min_similarity=0.9)
    assert found[0] == []
    assert all(each.similarity >= 0.9 for each in found[1])
    assert ids(found[1])[0] == library.templates[3].id


def test_search_when_only_the_same_text_is_wanted_finds_it(store, library):
    query = library.templates[7].query
    (found,) = store.search([query], min_similarity=1.0)
    assert ids(found) == [library.templates[7].id]


def test_search_when_templates_are_equally_similar_takes_the_first_of_the_library(
    kind, open_store, make_library
):
    store = open_store(kind, make_library([*["Name a river."] * 12, "Something else"]))
    for k in (1, 5, 12):
        (found,) = store.search(["Name a long river."], k=k, min_similarity=-1)
        assert ids(found) == [f"template-{number}" for number in range(k)]


def test_search_when_asked_in_one_call_or_several_answers_the_same(store, demo_queries):
    new = demo_queries[2:40:6]
    assert store.search(new) == [store.search([query])[0] for query in new]


def test_search_when_there_are_no_queries_returns_nothing(store):
    assert store.search([]) == []


@pytest.mark.parametrize("query", ["", "  \n"])
def test_search_when_a_query_is_blank_says_which(store, query):
    with pytest.raises(EmptyQueryError, match="Query 1 of 2 is blank"):
        store.search(["ok", query])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"min_similarity": 1.1}, r"min_similarity must lie in \[-1, 1\], got 1.1"),
        ({"min_similarity": -2}, "min_similarity"),
        ({"min_similarity": float("nan")}, "min_similarity"),
        ({"near_duplicates": "drop"}, "near_duplicates must be one of keep, exclude, got 'drop'"),
    ],
)
def test_search_when_an_argument_is_out_of_range_says_so(store, arguments, message):
    with pytest.raises(InvalidPolicyError, match=message):
        store.search(["ok"], **arguments)
    with pytest.raises(InvalidPolicyError, match=message):
        store.search([], **arguments)


def test_search_when_given_one_text_refuses_to_search_its_letters(store):
    with pytest.raises(InvalidPolicyError, match=r"Pass \[text\]"):
        store.search("What is 2 + 2?")


def test_store_when_asked_names_its_library_and_embedder(store, library):
    assert store.library_fingerprint == library.fingerprint
    assert store.embedder.identity == library.embedder
    assert len(store) == N_TEMPLATES


def test_store_when_the_embedder_is_another_names_both(kind, open_store, library):
    with pytest.raises(EmbedderMismatchError, match=r"256 dims.*64 dims"):
        open_store(kind, library, HashEmbedder(dimensions=64))


@pytest.mark.slow
@pytest.mark.real_model
def test_chroma_when_compared_with_exact_search_on_real_vectors_finds_the_same(
    open_store, make_library, demo_queries
):
    embedder = load_embedder("minilm")
    library = make_library(demo_queries[:780:2], embedder=embedder)
    memory, chroma = (open_store(kind, library, embedder) for kind in ("memory", "chroma-path"))
    new = demo_queries[780::10]
    for near_duplicates in ("keep", "exclude"):
        wanted = memory.search(new, k=3, near_duplicates=near_duplicates)
        found = chroma.search(new, k=3, near_duplicates=near_duplicates)
        n_wanted = sum(map(len, wanted))
        n_shared = sum(len({*ids(a)} & {*ids(b)}) for a, b in zip(wanted, found, strict=True))
        assert n_wanted > len(new)
        assert n_shared == n_wanted
        assert [len(each) for each in found] == [len(each) for each in wanted]
