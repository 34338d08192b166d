import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import InvalidPolicyError, NotEnoughLogsError
from fusion_integrations.logs.splits import (
    duplicate_key,
    grouped_folds,
    holdout_mask,
    query_groups,
    split_by_query,
)
from fusion_integrations.logs.store import LogStore
from fusion_integrations.types import Message

KEYS = st.lists(st.sampled_from("abcdefghijkl"), min_size=12, max_size=60)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 17 * 24?", "what is  3.5 + 2"),
        ("Straße!", "STRASSE"),
        ("ﬁnd x", "Find X."),  # the ligature is two letters
        ("Sum 1,000 and 2", "sum 7 and 80000"),
        ("snake_case name", "Snake Case (name)"),
    ],
)
def test_duplicate_key_when_texts_differ_in_form_only_then_is_equal(first, second):
    assert duplicate_key(first) == duplicate_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Name a river", "Name a city"), ("+++", "---"), ("日本", "中国"), ("", "?")],
)
def test_duplicate_key_when_words_or_bare_symbols_differ_then_differs(first, second):
    assert duplicate_key(first) != duplicate_key(second)


def test_duplicate_key_when_computed_then_is_this():
    assert duplicate_key("  What's 12.5% of 80?\n") == "what s 0 of 0"


@given(text=st.text())
def test_duplicate_key_when_applied_twice_then_changes_nothing_more(text):
    key = duplicate_key(text)

    assert duplicate_key(key) == key


@given(keys=KEYS, seed=st.integers(0, 99))
def test_grouped_folds_when_groups_repeat_then_no_group_is_in_two_folds(keys, seed):
    keys = [*"ab", *keys]

    folds = grouped_folds(keys, n_folds=2, seed=seed)

    assert len(dict.fromkeys(zip(keys, folds, strict=True))) == len(set(keys))
    assert set(folds) == {0, 1}


@given(keys=KEYS, seed=st.integers(0, 99))
def test_grouped_folds_when_rows_change_places_then_groups_keep_their_folds(keys, seed):
    keys = [*"abc", *keys]
    order = np.random.default_rng(seed).permutation(len(keys))

    folds = grouped_folds(keys, n_folds=3, seed=7)
    moved = grouped_folds([keys[i] for i in order], n_folds=3, seed=7)

    assert np.array_equal(folds[order], moved)


def test_grouped_folds_when_sizes_differ_then_are_balanced():
    keys = [*"aaaaaa", *"bbb", *"cc", "d", *"eeee", "f"]

    folds = grouped_folds(keys, n_folds=3, seed=0)

    # 17 rows: a (6) | e (4), then c (2) | b (3), then d and f fill to 6, 6, 5 in some order.
    assert sorted(np.bincount(folds)) == [5, 6, 6]


def test_grouped_folds_when_the_seed_changes_then_the_folds_change():
    keys = [str(i) for i in range(50)]

    assert not np.array_equal(grouped_folds(keys, n_folds=5, seed=0), grouped_folds(keys, n_folds=5, seed=1))


def test_grouped_folds_when_fewer_groups_than_folds_then_raises():
    with pytest.raises(NotEnoughLogsError, match="2 groups cannot fill 3 folds"):
        grouped_folds(["a", "a", "b"], n_folds=3, seed=0)


def test_grouped_folds_when_one_fold_then_raises():
    with pytest.raises(InvalidPolicyError, match="n_folds must be at least 2, got 1"):
        grouped_folds(["a", "b"], n_folds=1, seed=0)


@given(keys=KEYS, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_holdout_mask_when_groups_repeat_then_no_group_is_split(keys, fraction, seed):
    keys = [*"ab", *keys]

    mask = holdout_mask(keys, fraction=fraction, seed=seed)

    held_out = {key for key, is_held in zip(keys, mask, strict=True) if is_held}
    assert all((key in held_out) == is_held for key, is_held in zip(keys, mask, strict=True))
    assert 0 < mask.sum() < len(keys)


def test_holdout_mask_when_groups_are_single_rows_then_holds_out_exactly_the_share():
    mask = holdout_mask([str(i) for i in range(200)], fraction=0.2, seed=0)

    assert mask.sum() == 40


def test_holdout_mask_when_one_group_is_huge_then_stays_below_the_share():
    keys = ["huge"] * 90 + [str(i) for i in range(10)]

    masks = [holdout_mask(keys, fraction=0.1, seed=seed) for seed in range(10)]

    assert all(mask.sum() == 10 and not mask[0] for mask in masks)


def test_holdout_mask_when_rows_change_places_then_groups_stay_held_out():
    keys = [f"k{i % 13}" for i in range(100)]
    order = np.random.default_rng(3).permutation(100)

    mask = holdout_mask(keys, fraction=0.3, seed=1)

    assert np.array_equal(mask[order], holdout_mask([keys[i] for i in order], fraction=0.3, seed=1))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_holdout_mask_when_fraction_is_out_of_range_then_raises(fraction):
    with pytest.raises(InvalidPolicyError, match="fraction must lie strictly between 0 and 1"):
        holdout_mask(["a", "b"], fraction=fraction, seed=0)


def test_holdout_mask_when_one_group_then_raises():
    with pytest.raises(NotEnoughLogsError, match="1 groups cannot be split"):
        holdout_mask(["a", "a"], fraction=0.5, seed=0)


def test_queries_of_a_session_belong_together_but_not_what_many_begin_with():
    texts = ["Hello", "more of one", "still one", "hello!", "more of two", "no session 1", "No session: 2"]
    duplicate_keys = [duplicate_key(text) for text in texts]
    sessions = ["one", "one", "one", "two", "two", None, None]
    keys = query_groups(duplicate_keys, sessions, max_share=0.5)
    assert [keys.index(key) for key in keys] == [0, 1, 1, 0, 4, 5, 5]
    # A session that holds much of everything is none.
    assert len(set(query_groups(duplicate_keys, sessions, max_share=0.4))) == 5
    assert len(set(query_groups(duplicate_keys, ["all"] * 7))) == 5


def test_split_by_query_keeps_the_turns_of_a_conversation_on_one_side(make_record):
    turns = [
        (word, f"{word} {'and more ' * turn}")
        for word in ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kiwi")
        for turn in range(3)
    ]
    records = [
        make_record(number, messages=(Message(role="user", content=text),), session_id=word)
        for number, (word, text) in enumerate(turns)
    ]
    with LogStore.open(":memory:") as store:
        store.add(records)
        train, test = split_by_query(store.to_frame(), fraction=0.4, seed=0)
    assert not set(train["session_id"]) & set(test["session_id"])
    assert test.height == 12


def test_split_by_query_when_queries_repeat_then_all_their_records_are_on_one_side(make_record):
    def ask(number, candidate, text):
        return make_record(number, candidate_id=candidate, messages=(Message(role="user", content=text),))

    texts = ["What is 1 + 1?", "What is 2 + 5?", "Name a fish.", "Name a bird."]
    with LogStore.open(":memory:") as store:
        store.add([ask(2 * i + j, who, text) for i, text in enumerate(texts) for j, who in enumerate("ab")])
        frame = store.to_frame()

    train, test = split_by_query(frame, fraction=0.5, seed=0)

    assert sorted([*train["record_id"], *test["record_id"]]) == [f"r{i}" for i in range(8)]
    sides = [{duplicate_key(text) for text in part["query_text"]} for part in (train, test)]
    assert not sides[0] & sides[1]
    assert test["query_id"].n_unique() == 2
    assert train.schema == test.schema == frame.schema
