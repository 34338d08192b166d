"""What makes a written text no template, by hand-worked texts."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusion_integrations.thought_level.template_checks import find_rejection, own_answers, shorten
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments

SENTIMENT = "Is the review positive or negative?"
CHOICE = "What keeps off the rain?\nA) a spoon\nB) an umbrella\nAnswer with the letter."


def rejection(text, *, reference, query="What is it?", **arguments):
    return find_rejection(
        text,
        query=query,
        answers=own_answers(reference, []),
        arguments=ThoughtTemplateTrainingArguments(**{"min_words": 1, **arguments}),
    )


# Leaks


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Add both, which gives 23.", "23"),
        ("It costs $23 in the end.", "23"),
        ("The rope is 23cm long.", "23"),
        ("That is **23** or so.", "23"),
        ("We get 23.0 by adding.", "23"),
        ("We get 3.50 by adding.", "3.5"),
        (r"We get \boxed{23} by adding.", "23"),
        ("Look for a sum of 1,200 dollars.", "1200"),
        ("Look for a sum of 1200 dollars.", "1,200"),
        ("It has 1,234,567 people.", "1234567"),
        ("It has 1\u202f234\u00a0567 people.", "1234567"),
        ("It has 1'200 people.", "1200"),
        ("It is 1,200cm long.", "1200"),
        ("Add them up, then stop. 23. That is all.", "23"),
        ("It is \uff12\uff13 in wide digits.", "23"),
        ("The time is 10:05 then.", "10:05"),
        ("The city is Bogota.", "Bogotá"),
        ("The city is BOGOTÁ.", "Bogotá"),
        ("The city is Bogota\u0301.", "Bogotá"),
        ("It is called Netherlands.", "The Netherlands"),
        ("Think of the\nSouth   Pole.", "south pole"),
        ("It was written by Ulan-Bator's people.", "Ulaanbaatar|Ulan Bator"),
        ("Think of a cat.", "A cat"),
        ("The language is C and its kin.", "C and its kin (C++)|C and its kin"),
        ("Match it with a.*b? by a pattern.", "a.*b?"),
        ("1. Read it.\n2. Write down 7.", "7"),
        ("Add them. The total is 2. Check it.", "2"),
    ],
)
def test_template_when_it_holds_the_answer_is_rejected(text, reference):
    assert rejection(text, reference=reference) == "leaked"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Add both numbers.", "23"),
        ("Add 123 and 230 to 2300.", "23"),
        ("The factor is 1.23 here.", "23"),
        ("Multiply by 1.5 each time.", "5"),
        ("Think of Parisian habits.", "Paris"),
        ("1. Read the question.\n2. Add the numbers.\n3. Give the sum.", "2"),
        ("Follow these steps: 1. Read it. 2. Add them. 3. Stop.", "3"),
        ("Step 1: Read it.\nStep 2: Add them.", "2"),
        ("There is no trick. Say yes if it is true, no if it is not.", "no"),
        ("Anything goes.", None),
        ("Anything goes.", "|"),
        ("Anything goes.", "???"),
    ],
)
def test_template_when_it_holds_something_else_is_kept(text, reference):
    assert rejection(text, reference=reference) is None


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("The answer should be either positive or negative.", "positive"),
        ("The answer should be either positive or negative.", "negative"),
        ("Answer positive/negative after weighing the words.", "positive"),
        ("Choose positive if the reviewer is pleased, and negative otherwise.", "positive"),
        ("Positive words make a positive review.", "positive"),
    ],
)
def test_template_when_it_names_what_the_query_offers_is_kept(text, reference):
    assert rejection(text, reference=reference, query=SENTIMENT) is None


@pytest.mark.parametrize(
    "text",
    [
        "The answer is positive.",
        "Look at the words. The correct answer would be: positive. If in doubt, read again.",
        "So choose POSITIVE because of the praise.",
    ],
)
def test_template_when_it_declares_what_the_query_offers_is_rejected(text):
    assert rejection(text, reference="positive", query=SENTIMENT) == "leaked"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer should be a letter.", "A"),
        ("Choose the option with a fitting use.", "A"),
        ("Answer with the letter A, B, C or D.", "A"),
        ("Answer with the letter A, B, C or D.", "B"),
        ("Answer with the letter A, B, C or D.", "D"),
        ("Choose A/B/C/D.", "A"),
        ("A question of this kind asks what a thing is for.", "A"),
        ("Find the last letter, as in e-mail.", "m"),
    ],
)
def test_template_when_a_letter_is_a_word_or_an_offer_is_kept(text, letter):
    assert rejection(text, reference=letter, query=CHOICE) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is A.", "A"),
        ("The answer is (A), since a spoon is too small.", "A"),
        ("Choose (B) since it is wide.", "B"),
        ("The right option is **B**", "B"),
        ("So the last letter is e.", "e"),
    ],
)
def test_template_when_a_letter_is_declared_is_rejected(text, letter):
    assert rejection(text, reference=letter, query=CHOICE) == "leaked"


@pytest.mark.parametrize("answer", ["yes", "no", "true", "false"])
def test_template_when_a_verdict_is_declared_is_rejected(answer):
    assert rejection(f"Look it up. The answer is {answer}.", reference=answer) == "leaked"


def test_template_when_a_number_stands_in_the_query_may_hold_it_undeclared():
    query = "What is 12 times 1?"
    assert rejection("Multiply 12 by the other number.", reference="12", query=query) is None
    assert rejection("The result is 12.", reference="12", query=query) == "leaked"


@example(answer="/A", before="")
@given(
    answer=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12),
    before=st.sampled_from(["", "(", '"', "**"]),
)
def test_template_when_it_quotes_the_answer_is_rejected_whatever_its_letters(answer, before):
    # One letter is no leak unless declared, so the answer is declared.
    if own_answers(answer, []) and "|" not in answer and not re.search(r"\w\W+\w", answer):
        assert rejection(f"The answer is {before}{answer}.", reference=answer) == "leaked"


@given(st.text(), st.text(), st.text())
def test_checks_when_given_any_text_do_not_fail(text, query, reference):
    answers = own_answers(reference, [text])
    arguments = ThoughtTemplateTrainingArguments(min_words=1)
    assert find_rejection(text, query=query, answers=answers, arguments=arguments) in (
        None,
        "too_short",
        "too_long",
        "leaked",
    )
    assert shorten(shorten(text, max_sentences=3), max_sentences=3) == shorten(text, max_sentences=3)


@pytest.mark.parametrize(
    "unit",
    [
        "word ",
        "x",
        "answer ",
        "answer is not ",
        " ",
        "\n",
        ". ",
        "1,",
        "1. ",
        "1,234",
        "a ",
        "<",
        "|",
        "the answer: ",
    ],
)
def test_checks_when_texts_are_huge_take_time_in_proportion(unit):
    # 100 kB; what grows with the square of the length would take minutes.
    text = (unit * 100_000)[:100_000]
    arguments = ThoughtTemplateTrainingArguments(min_words=1, max_words=10**6)
    for answers in (own_answers(text, []), own_answers(None, [text]), ("a", "1")):
        find_rejection(f"end {text} end", query=text, answers=answers, arguments=arguments)
    shorten(text, max_sentences=5)


# Length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Add both numbers.", "too_short"),
        ("", "too_short"),
        ("Add both of the numbers.", None),
        ("Add " * 10, None),
        ("Add " * 11, "too_long"),
    ],
)
def test_template_when_its_length_is_outside_the_limits_is_rejected(text, expected):
    assert rejection(text, reference="23", min_words=5, max_words=10) == expected


# Own answers


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("23", ("23",)),
        (" -1,200.50 ", ("1200.5",)),
        ("pound|pounds| |pound.", ("pound", "pounds")),
        ("Ulaanbaatar|Ulan Bator", ("ulaanbaatar", "ulan bator")),
        ("A", ("a",)),
        ("The Beatles", ("beatles",)),
    ],
)
def test_own_answers_when_there_is_a_reference_are_its_forms(reference, expected):
    assert own_answers(reference, ["something else"]) == expected


@pytest.mark.parametrize("reference", [None, "", "  ", "|", "++"])
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("23", "23"),
        ("It is 23.", "23"),
        ("The answer is **23** because 20 + 3 is 23.", "23"),
        ("Answer: 23\nExplanation: we add both of the numbers and carry the one.", "23"),
        (r"We add and carry and so on, one by one, until we have \boxed{23} in the end.", "23"),
        ("The answer is (B) an umbrella.", "b"),
        ("Paris is the capital of France.", "paris"),
    ],
)
def test_own_answers_when_there_is_no_reference_are_what_the_responses_state(reference, response, expected):
    assert expected in own_answers(reference, [response])


def test_own_answers_when_responses_are_texts_without_a_result_are_none():
    assert (
        own_answers(None, ["Rivers run from the hills to the sea and carry sand along their way.", ""]) == ()
    )


def test_own_answers_when_responses_agree_are_told_once():
    assert own_answers(None, ["23", "23.", "24"]) == ("23", "24")


# Shortening


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four.", "One. Two! Three?"),
        ("One.  Two.\n\nOne. Two. Four.", "One. Two. Four."),
        ("Same.\nSame.\nSame.", "Same."),
        ("1. Find it.\n2. Add it.\n3. Check it.", "1. Find it. 2. Add it. 3. Check it."),
        ("Steps: 1. Find it. 2. Add it. 3. Check it.", "Steps: 1. Find it. 2. Add it. 3. Check it."),
        ("9. Nine\n10. Ten\n  11. Eleven", "9. Nine 10. Ten 11. Eleven"),
        ("- find it\n- add it\n- find it", "- find it - add it"),
        ("Look for words, e.g. names. Look for signs, e.g. commas.",) * 2,
        ("Round to 3.5 m. Then stop.",) * 2,
        ("***\n---\nOne.\n***", "One."),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_shorten_keeps_the_first_sentences_without_repeats(text, expected):
    assert shorten(text, max_sentences=3) == expected
