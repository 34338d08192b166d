"""What an answer commits to, by hand-worked examples."""

from __future__ import annotations

import pytest

from fusion_integrations.scoring.answer_extraction import (
    clean_answer,
    declared_answer,
    is_refusal,
    normalise,
    split_sentences,
    stated_results,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  **7** ", "7"),
        (r"\(\frac{3}{4}\)", "3/4"),
        (r"\boxed{\text{B}}", r"\boxed{B}"),
        ("\u22125 \u2013 it\u2019s \u201ccold\u201d", '-5 - it\'s "cold"'),
        ("1\u00a0000", "1 000"),
        ("It is not Paris.", "It is  ."),
        ("It isn't (B).", "It is )."),
        ("I cannot say.", "I cannot say."),
        ("I don't know.", "I don't know."),
        ("", ""),
    ],
)
def test_clean_answer_when_marked_up_then_shows_plain_text(text, expected):
    assert clean_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles!", "beatles"),
        ("  Bogotá,\tColombia ", "bogota colombia"),
        ("Jane Austen's book", "jane austen book"),
        ("'s'", "s"),
        ("a", "a"),
        ("A.", "a"),
        ("10:05", "10 05"),
        ("Łódź", "łodz"),  # the barred l is a letter of its own, not an accented one
        ("?!", ""),
    ],
)
def test_normalise_when_forms_differ_then_agrees(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.50 euros. Good.", ["It costs 3.50 euros.", "Good."]),
        ("1. Rome\n2. Paris", ["1. Rome", "2. Paris"]),
        ("B. a hat", ["B. a hat"]),
        ("It is b. It follows a.", ["It is b.", "It follows a."]),
        (". ... \n -", []),
    ],
)
def test_split_sentences_when_dots_have_other_uses_then_keeps_them(text, expected):
    assert split_sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 4.", "4."),
        ("Final answer: B", "B"),
        ("ANSWER = 12", "12"),
        ("The answer to the question would be: Rome", "Rome"),
        ("The answer is 3. No, the answer is 4", "4"),
        ("Answer:\n\nyes", "yes"),
        ("2 + 2\n#### 4", "4"),
        (r"so \boxed{7} is the answer: seven", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("The answer is 5. Answer:", "5. Answer:"),
        ("Answer:", None),
        ("I have no answer", None),
        ("It is answered", None),
        ("", None),
    ],
)
def test_declared_answer_when_declared_then_returns_what_follows(text, expected):
    assert declared_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("blanket", "blanket"),
        ("The first letter of 'apple' is 'a'", "'a'"),
        ("It starts with the letter b", "b"),
        ("December comes after November", "December"),
        ("'b' is the first letter", "'b'"),
        ("The longest word is grasshopper with 11 letters", "grasshopper"),
        ("Let me see. So it is: stone", "stone"),
    ],
)
def test_stated_results_when_in_a_sentence_then_includes_the_result(text, result):
    assert result in stated_results(text)


@pytest.mark.parametrize("text", ["", "Which word comes first: apple, pear?", "Is it b?"])
def test_stated_results_when_nothing_is_stated_then_empty(text):
    assert stated_results(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI, I have no opinion on 7.", True),
        ("I do not know.", True),
        ("I cannot determine it from the text.", True),
        ("Sorry, I was wrong before. The answer is 7.", False),
        ("I know: 7", False),
        ("He was sorry.", False),
    ],
)
def test_is_refusal_when_it_declines_then_true(text, expected):
    assert is_refusal(text) is expected
