import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError, UnknownCandidateError
from fusion_integrations.types import (
    Candidate,
    Message,
    Price,
    PriceTable,
    Query,
    canonical_json,
    context_characters,
    find_candidate,
    fingerprint,
    query_text,
)


def said(*turns):
    return tuple(Message(role=role, content=content) for role, content in turns)


# Query text


def test_query_text_of_one_message_is_its_text_without_surrounding_space():
    assert query_text(said(("user", "  Hello\nthere \n"))) == "Hello\nthere"


def test_query_text_of_a_conversation_starts_with_the_last_question_then_goes_back():
    messages = said(
        ("system", "Be brief."),
        ("user", "Who was Ada?"),
        ("assistant", "A mathematician."),
        ("tool", "{}"),
        ("user", "When was she born?"),
    )
    assert query_text(messages) == "When was she born?\n\nassistant: A mathematician.\n\nuser: Who was Ada?"


def test_query_text_leaves_out_what_follows_the_last_question():
    messages = said(("user", "Look it up."), ("assistant", "Calling a tool."), ("tool", "42"))
    assert query_text(messages) == "Look it up."


def test_query_text_leaves_out_blank_turns():
    assert query_text(said(("user", " "), ("assistant", ""), ("user", "Hi"))) == "Hi"


def test_context_is_what_the_query_text_leaves_out():
    asked = said(("system", "12345"), ("user", "Hi"), ("assistant", "Ho"), ("tool", "123"), ("user", "Well?"))
    assert context_characters(asked) == 8
    assert context_characters((*asked, *said(("assistant", "1234"), ("tool", "1")))) == 13
    assert context_characters(said(("user", "  Hi  "))) == 0


@pytest.mark.parametrize(
    "messages",
    [
        (),
        said(("system", "Be brief.")),
        said(("assistant", "Hello")),
        said(("user", " \n\t\u3000")),
        said(("user", "Hello"), ("assistant", "Hi"), ("user", "")),
    ],
)
def test_query_text_when_the_last_question_is_blank_refuses(messages):
    with pytest.raises(EmptyQueryError, match="last user message"):
        query_text(messages)
    with pytest.raises(EmptyQueryError):
        Query(messages=messages)


# Query


def test_query_from_text_keeps_the_text_as_it_is():
    query = Query.from_text(" 2 + 2? ", task="sums", reference="4", metric="numeric_match")
    assert query.messages == said(("user", " 2 + 2? "))
    assert query.text == "2 + 2?"
    assert (query.task, query.reference, query.metric) == ("sums", "4", "numeric_match")


def test_query_id_depends_on_the_conversation_alone():
    plain = Query.from_text("Hi")
    assert Query.from_text("Hi", task="greeting", reference="Hello").query_id == plain.query_id
    assert Query.from_text("Hi ").query_id != plain.query_id
    assert Query(messages=said(("system", "x"), ("user", "Hi"))).query_id != plain.query_id


def test_query_id_is_the_same_in_every_release():
    # Stores hold these: a changed rule would split every query in two. SHA-256 of [["user","Hi ü"]].
    assert Query.from_text("Hi ü").query_id == fingerprint([["user", "Hi ü"]]) == "e7dbcf01c163d486"


def test_query_id_when_roles_and_texts_could_be_confused_differs():
    first = Query(messages=said(("user", "a"), ("user", "b")))
    second = Query(messages=said(("user", 'a"],["user","b')))
    assert first.query_id != second.query_id


def test_query_id_of_a_lone_surrogate_exists():
    assert len(Query.from_text("cut \ud83d").query_id) == 16


# JSON


def test_canonical_json_when_keys_are_ordered_differently_is_equal():
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == canonical_json({"a": [1.5, "ü"], "b": 1})
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == '{"a":[1.5,"ü"],"b":1}'


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_canonical_json_when_a_number_is_not_finite_refuses(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([value])


# Candidates


def test_candidate_when_saved_as_json_comes_back():
    candidate = Candidate(
        id="a:think",
        model="a",
        prompt_mode="reasoning",
        revision="v2",
        capabilities=frozenset({"tools", "vision"}),
        description="Thinks.",
    )
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
    tool = Candidate(id="search", kind="tool")
    assert Candidate.from_json(tool.to_json()) == tool
    assert candidate.to_json()["capabilities"] == ["tools", "vision"]


def test_candidate_as_json_names_its_context_only_where_known():
    assert "context_tokens" not in Candidate(id="a", model="m").to_json()
    known = Candidate(id="a", model="m", context_tokens=4096)
    assert Candidate.from_json(json.loads(json.dumps(known.to_json()))) == known
    with pytest.raises(InvalidPolicyError, match="'a' takes 0 tokens"):
        Candidate(id="a", model="m", context_tokens=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "id"),
        ({"id": " "}, "non-blank"),
        ({"kind": "weapon"}, "kind"),
        ({"prompt_mode": "loud"}, "prompt_mode"),
        ({"capabilities": "tools"}, "capabilities"),
        ({"capabilities": [1]}, "capabilities"),
        ({"colour": "red"}, "colour"),
        ({"model": ""}, "names its model"),
    ],
)
def test_candidate_from_json_when_malformed_refuses(change, words):
    data = {**Candidate(id="a", model="m").to_json(), **change}
    with pytest.raises(InvalidPolicyError, match=words):
        Candidate.from_json(data)


def test_candidate_from_json_when_it_is_no_candidate_refuses():
    for data in ({}, [], None, "a"):
        with pytest.raises(InvalidPolicyError):
            Candidate.from_json(data)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": " ", "model": "m"}, "non-blank id"),
        ({"id": "a"}, "'a' of kind 'model' has model ''"),
        ({"id": "a", "kind": "tool", "model": "m"}, "'a' of kind 'tool' has model 'm'"),
        ({"id": "a", "kind": "tool", "prompt_mode": "thought"}, "tools are not prompted"),
    ],
)
def test_candidate_when_its_fields_disagree_refuses(fields, words):
    with pytest.raises(InvalidPolicyError, match=words):
        Candidate(**fields)


def test_price_key_is_the_model_or_the_tools_id():
    assert Candidate(id="a:think", model="a").price_key == "a"
    assert Candidate(id="search", kind="tool").price_key == "search"


def test_find_candidate_when_unknown_lists_the_known():
    known = [Candidate(id=name, model="m") for name in "ab"]
    assert find_candidate(known, "b") is known[1]
    with pytest.raises(UnknownCandidateError, match=r"no candidate 'c'\. Known: 'a', 'b'"):
        find_candidate(known, "c")


# Prices


@pytest.mark.parametrize("field", ["input_usd_per_mtok", "output_usd_per_mtok", "usd_per_call"])
@pytest.mark.parametrize("amount", [-0.1, math.nan, math.inf, 1e300, None])
def test_price_when_an_amount_makes_no_sense_refuses(field, amount):
    with pytest.raises(InvalidPolicyError, match=f"Price.{field}"):
        Price(**{field: amount})


MODEL = Candidate(id="a", model="m")
TABLE = PriceTable(prices={"m": Price(input_usd_per_mtok=3, output_usd_per_mtok=15, usd_per_call=0.001)})


def test_cost_worked_by_hand():
    # 2000 * 3e-6 + 100 * 15e-6 + 0.001 = 0.006 + 0.0015 + 0.001.
    assert TABLE.cost_usd(MODEL, input_tokens=2000, output_tokens=100) == pytest.approx(0.0085)
    assert TABLE.cost_usd(MODEL, input_tokens=0, output_tokens=0) == pytest.approx(0.001)


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(None, 1), (1, None), (None, None)])
def test_cost_when_a_needed_count_is_unknown_is_unknown(input_tokens, output_tokens):
    assert TABLE.cost_usd(MODEL, input_tokens=input_tokens, output_tokens=output_tokens) is None


def test_cost_when_the_price_is_unknown_is_unknown_and_when_free_is_zero():
    tool = Candidate(id="search", kind="tool")
    assert PriceTable().cost_usd(tool, input_tokens=1, output_tokens=1) is None
    free = PriceTable(prices={"search": Price()})
    assert free.cost_usd(tool, input_tokens=None, output_tokens=None) == 0.0


def test_cost_when_a_direction_is_free_needs_no_count():
    prices = PriceTable(prices={"m": Price(output_usd_per_mtok=1.0)})
    assert prices.cost_usd(MODEL, input_tokens=None, output_tokens=1_000_000) == pytest.approx(1.0)


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**6)), min_size=1, max_size=6))
def test_costs_of_many_calls_are_those_of_each(counts):
    tokens = np.array([np.nan if count is None else count for count in counts])
    many = TABLE.costs_usd(MODEL, input_tokens=tokens, output_tokens=tokens)
    for count, cost in zip(counts, many, strict=True):
        alone = TABLE.cost_usd(MODEL, input_tokens=count, output_tokens=count)
        assert (alone is None and np.isnan(cost)) or alone == cost
