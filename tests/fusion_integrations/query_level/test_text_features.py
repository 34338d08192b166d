import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.query_level.text_features import (
    _PATTERNS,
    TEXT_FEATURES,
    text_features,
)


def feature(text, name):
    return float(text_features([text])[0, TEXT_FEATURES.index(name)])


@pytest.mark.parametrize(
    ("name", "has_it", "lacks_it"),
    [
        ("has_letter_options", "Pick one.\nA) red\nB) blue", "Vitamin A) is good"),
        ("has_letter_options", "Pick one.\n \n\t (A) red", "Aha: well"),
        ("has_number_options", "1. first\n2. second", "In 1. place"),
        ("has_code_fence", "```x```", "a < b"),
        ("has_function", "def add(a, b):", "define it"),
        ("has_math_markup", "Solve $x+1$", "it costs 5 dollars"),
        ("has_arithmetic", "12 * 4", "twelve times four"),
        ("has_money_or_percent", "5 % off", "five off"),
        ("has_year", "in 1969", "in 19690"),
        ("has_blank", "The ___ is blue", "a_b"),
        ("has_passage", "Passage: once", "a passage"),
        ("asks_how_many", "How many eggs", "however many"),
        ("asks_who", "WHO wrote it", "whole"),
        ("asks_when_or_where", "Where is it", "nowhere"),
        ("asks_why_or_how", "Explain rain", "plain rain"),
        ("asks_which", "Which one", "whichever"),
        ("asks_to_write", "Write a line", "rewritten"),
        ("asks_to_classify", "positive or not", "positively so"),
        ("is_question", "Is it? ", "Is it? Yes"),
        ("has_answer_format", "Answer with yes", "He answered it"),
    ],
)
def test_flag_when_the_text_has_it_is_one(name, has_it, lacks_it):
    assert feature(has_it, name) == 1.0
    assert feature(lacks_it, name) == 0.0


def test_counts_worked_by_hand():
    text = "AB cd? 12."
    assert feature(text, "log_characters") == pytest.approx(np.log(11) / 10)
    assert feature(text, "log_words") == pytest.approx(np.log(4) / 8)
    assert feature(text, "log_sentences") == pytest.approx(np.log(3) / 4)
    assert feature(text, "log_numbers") == pytest.approx(np.log(2) / 4)
    assert feature(text, "mean_word_length") == pytest.approx((2 + 3 + 3) / 3 / 10)
    assert feature(text, "digit_share") == pytest.approx(0.2)
    assert feature(text, "upper_share") == pytest.approx(0.2)
    assert feature(text, "punctuation_share") == pytest.approx(0.2)
    assert feature("ÄÖ aa", "non_ascii_share") == pytest.approx(0.4)
    assert feature("go Go GO stop", "distinct_word_share") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "sentences"), [("Wait... what?!", 2), ("a.b.c", 0), ("Yes.\n", 1), ("?", 1)]
)
def test_sentences_are_runs_of_marks_before_a_space_or_the_end(text, sentences):
    assert feature(text, "log_sentences") == pytest.approx(np.log1p(sentences) / 4)


def test_features_of_no_texts_are_an_empty_table():
    assert text_features([]).shape == (0, len(TEXT_FEATURES))


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_features_of_any_text_are_finite_and_each_rows_own(texts):
    features = text_features(texts)
    assert features.shape == (len(texts), len(TEXT_FEATURES))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert (features >= 0).all()
    assert (features <= 3).all()
    np.testing.assert_array_equal(features, np.concatenate([text_features([text]) for text in texts]))


@pytest.mark.parametrize(
    "text", ["a" + "\n" * 20_000 + "b", "." * 20_000 + "x", " \n" * 10_000 + "b", "<" * 20_000, "$a" * 10_000]
)
def test_time_when_a_text_is_long_and_monotonous_stays_linear(text):
    # A pattern that starts over at every character would take minutes here, and one query would be enough.
    start = time.process_time()
    text_features([text])
    assert time.process_time() - start < 2


def plainly(text):
    """Version 1 of the features as it was first written: one plain expression each, no short cut."""
    n, words = max(len(text), 1), text.split()
    n_words = max(len(words), 1)
    return [
        np.log1p(len(text)) / 10,
        np.log1p(len(words)) / 8,
        np.log1p(len(re.findall(r"[.!?](?:\s|$)", text))) / 4,
        np.log1p(text.count("\n")) / 4,
        min(sum(map(len, words)) / n_words / 10, 2.0),
        sum(map(str.isdigit, text)) / n,
        sum(map(str.isupper, text)) / n,
        len(re.findall(r"[^\w\s]", text)) / n,
        sum(ord(character) > 127 for character in text) / n,
        np.log1p(len(re.findall(r"\d+", text))) / 4,
        len({word.casefold() for word in words}) / n_words,
        *(at_line_starts(pattern).search(text) is not None for pattern, _ in _PATTERNS.values()),
    ]


def at_line_starts(pattern):
    """Undo the short cut of looking for a newline instead of the start of a line."""
    return re.compile(re.sub(r"^\\n", "(?m)^", pattern.pattern))


# Pieces that the patterns look for, and characters that fold, count or separate unlike ASCII ones.
PIECES = [
    *(hint for _, hints in _PATTERNS.values() for hint in hints),
    *("How Many", "how to", "whom", "def f", "class A", "</b>", "1 + 2", "$x$", "1999", "A) ", "\n2. ", "? "),
    *(
        "answer in",
        "yes or no",
        "10%",
        " ",
        "\n",
        "\u00a0",
        "\x1c",
        "\x00",
        "_",
        ".",
        "'",
        "\u00b2",
        "\u0663",
    ),
    *("\u0130", "\u0131", "\u017f", "\u212a", "wh\u0130ch", "wr\u0131te", "\u017fentiment", "pas\u017fage:"),
    *("i\u0307", "\u00df", "\u03a3", "\u037a", "\u01c5", "\u4eac", "\N{THUMBS UP SIGN}", "\ud83d", "\u00e9"),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_features_of_any_text_are_those_of_the_plain_definition(text):
    features = text_features([text], version=1)[0]
    np.testing.assert_array_equal(features, np.array(plainly(text), dtype=np.float32))
    np.testing.assert_array_equal(text_features([text])[0, :30], features)


def test_features_of_numbers_by_hand():
    # 9 words, two numbers, one with a decimal point; "times", "left", "more than"; two commas.
    text = "He left more than 1,250 dollars, 2.5 times his"
    found = dict(zip(TEXT_FEATURES[30:], text_features([text])[0, 30:].tolist(), strict=True))
    expected = {
        "log_largest_number": np.log1p(1250) / 10,
        "decimal_rate": 1 / 3,
        "ratio_word_rate": 1 / 3,
        "exchange_word_rate": 1 / 3,
        "comparison_rate": 1 / 3,
        "comma_rate": 2 / 3 / 2,
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("text", ["9" * 100_000, "1," * 50_000, "1.1." * 20_000, "\u0663\u0664"])
def test_numbers_of_any_length_are_finite(text):
    assert np.isfinite(text_features([text])).all()


def test_features_of_an_unknown_version_refuse():
    with pytest.raises(InvalidPolicyError, match="no version 3"):
        text_features(["any"], version=3)
