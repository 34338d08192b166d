"""Conformance table of the task metrics; expected values are worked out by reading the answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.errors import LogSchemaError
from fusion_integrations.scoring import METRICS, score

_VALID_REFERENCES = {
    "numeric_match": "7",
    "choice_match": "B",
    "label_match": "positive",
    "cover_match": "Paris",
    "exact_match": "apple",
    "token_f1": "Paris",
    "word_coverage": "Paris",
    "math_match": "7",
    "code_pass": "assert f() == 1",
}


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("7", "7", 1),
        ("7.", "7", 1),
        ("7.0", "7", 1),
        ("**7**", "7", 1),
        ("seven", "7", 1),
        ("Seven apples.", "7", 1),
        ("It has 7 apples, one more than before.", "7", 1),  # "one" is a word beside a digit
        ("3 + 4 = 7", "7", 1),
        ("3 + 4 = 7 apples, of the 9 in the shop", "7", 1),
        ("3 + 4 = 7. Then we double it, which makes 14.", "14", 1),
        ("3 + 4 = 7. Then we double it, which makes 14.", "7", 0),
        ("The answer is 7. It took 3 steps.", "7", 1),
        ("The answer is 3 + 4 = 7.", "7", 1),
        ("The answer is 3 x 4, which is 12.", "12", 1),
        ("The answer is 7 of the 9 apples.", "7", 1),
        ("Answer: Mia has 3 apples and gets 4 more, so 7.", "7", 1),
        ("Answer: Mia has 3 apples and gets 4 more, so 7.", "3", 0),
        ("Answer: the following.\nWe add 3 and 4, so 7", "7", 1),
        (r"\boxed{16{,}121} or \boxed{42}", "42", 1),
        (r"$\boxed{\frac{3}{4}}$", "0.75", 1),
        ("It costs $1,234.50.", "1234.5", 1),
        ("16,121", "16121", 1),
        ("25%", "25", 1),
        ("60 minutes", "60", 1),
        ("60km", "60", 1),
        ("-5", "-5", 1),
        ("The answer is \u22125.", "-5", 1),
        ("8-5", "5", 1),  # a minus between numbers is no sign
        ("-$5", "-5", 1),
        ("3/4", "0.75", 1),
        ("1 1/2", "1.5", 1),
        ("1/0", "7", 0),
        (".5", "0.5", 1),
        ("0.333333", "1/3", 1),
        ("0.33", "1/3", 0),
        ("5", "-5", 0),
        ("70", "7", 0),
        ("0.7", "7", 0),
        ("1,2,3", "123", 0),
        ("The answer is 5, 6, 7, 8.", "7", 0),
        ("The answer is 7, 8 or 9.", "7", 0),
        ("The answer is 7 or 8.", "7", 0),
        ("It is 7 or 8, so the answer is 8.", "7", 0),
        ("The answer is not 7.", "7", 0),
        ("twenty-one", "1", 0),
        ("one hundred", "1", 0),
        ("thirty and five", "5", 0),
        ("version7", "7", 0),
        ("many", "7", 0),
        ("7" * 5000, "7", 0),  # more digits than Python converts
    ],
)
def test_numeric_match_when_answer_is_tricky_then_reads_the_committed_number(answer, reference, expected):
    assert score(answer, metric="numeric_match", reference=reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("B", "B", 1),
        ("b", "B", 1),
        ("(B)", "B", 1),
        ("B.", "B", 1),
        ("B) cat", "B", 1),
        ("b) cat", "B", 1),
        ("B. A cat", "B", 1),
        ("B: cat", "B", 1),
        ("A", "A", 1),
        ("A) dog", "A", 1),
        ("A is correct.", "A", 1),
        ("**B) cat**", "B", 1),
        (r"\boxed{\text{B}}", "B", 1),
        ("The answer is B", "B", 1),
        ("Answer: B.", "B", 1),
        ("answer: b", "B", 1),
        ("The answer is A because dogs bark.", "A", 1),
        ("The correct answer is (B) cat. A) is a dog.", "B", 1),
        ("I choose option B", "B", 1),
        ("I would pick C here", "C", 1),
        ("A) dog\nB) cat\nC) cow\nAnswer: B", "B", 1),
        ("Not A. It is B.", "B", 1),
        ("The answer is not A. It is B.", "B", 1),
        ("The answer is not B.", "B", 0),
        ("A) dog\nB) cat\nC) cow", "A", 0),
        ("A) dog\nB) cat\nC) cow", "C", 0),
        ("A or B", "A", 0),
        ("The answer is A or B.", "A", 0),
        ("The answer is A, B.", "A", 0),
        ("Answer: A cat", "A", 0),  # the article
        ("A cat is an animal.", "A", 0),
        ("a cat", "A", 0),
        ("cat", "B", 0),
        ("e.g. a hat", "E", 0),
        ("She isn't a cook.", "A", 0),
        ("I'd say", "D", 0),
        ("C", "B", 0),
    ],
)
def test_choice_match_when_answer_is_tricky_then_reads_the_chosen_letter(answer, reference, expected):
    assert score(answer, metric="choice_match", reference=reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Paris", "Paris", 1),
        ("paris.", "Paris", 1),
        ("The capital of France is Paris, on the Seine.", "Paris", 1),
        ("Bogota", "Bogota|Bogotá", 1),
        ("It is Kyiv.", "Kyiv|Kiev", 1),
        ("Kiev", "Kyiv|Kiev", 1),
        ("Shakespeare's pen wrote it.", "Shakespeare", 1),
        ("At 4:05 it arrives.", "4:05", 1),
        ("4.05", "4:05", 1),
        ("phnom penh", "Phnom Penh", 1),
        ("I thought of Lyon. But the answer is Paris.", "Paris", 1),
        ("I thought of Paris. But the answer is Lyon.", "Paris", 0),
        ("The answer is clear. Paris.", "Paris", 1),
        ("One. Two. Three. Four. So it is Paris.", "Paris", 1),
        ("One. Two. It was Paris. Three. Four.", "Paris", 0),  # neither near the start nor near the end
        ("Not Paris", "Paris", 0),
        ("Parisian", "Paris", 0),
        ("14:05", "4:05", 0),
        ("Penh Phnom", "Phnom Penh", 0),
        ("Pa ris", "Paris", 0),
        ("America", "South America", 0),
    ],
)
def test_cover_match_when_answer_is_tricky_then_finds_whole_words(answer, reference, expected):
    assert score(answer, metric="cover_match", reference=reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("apple", "apple", 1),
        ("'Apple'.", "apple", 1),
        ("The apple", "apple", 1),
        ("Answer: apple", "apple", 1),
        ("The word that comes first is 'apple'.", "apple", 1),
        ("The longest word is apple, which has 5 letters.", "apple", 1),
        ("apple comes first in alphabetical order", "apple", 1),
        ("The last letter of 'table' is 'e'.", "e", 1),
        ("It ends with the letter e.", "e", 1),
        ("a", "a", 1),
        ("The first letter of the word is A.", "a", 1),
        ("'s'", "s", 1),
        ("The letter is b. It comes second.", "b", 1),
        ("The month is May.", "May", 1),
        ("apple, pear", "apple", 0),
        ("The first word is: apple, pear, plum", "apple", 0),
        ("apple pear", "apple", 0),
        ("Which word comes first: apple?", "apple", 0),
        ("The last letter of 'table' is 'l'.", "e", 0),
        ("It may be June.", "May", 0),
        ("banana starts with a b", "a", 0),
        ("The answer is pear, after apple", "apple", 0),
    ],
)
def test_exact_match_when_answer_is_tricky_then_reads_the_stated_result(answer, reference, expected):
    assert score(answer, metric="exact_match", reference=reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("positive", "positive", 1),
        ("Positive.", "positive", 1),
        ("The review is positive.", "positive", 1),
        ("Sentiment: positive", "positive", 1),
        ("It sounds negative at first, but the answer is positive.", "positive", 1),
        ("The answer is positive, not negative.", "positive", 1),
        ("Positive, with one negative remark.", "positive", 1),
        ("Some negative words, but overall it is positive", "positive", 1),
        ("Is it positive or negative?", "positive", 0),
        ("positive or negative", "positive", 0),
        ("Positive, negative", "positive", 0),
        ("The answer is positive or negative.", "positive", 0),
        ("It is both positive and negative.", "negative", 0),
        ("neutral", "positive", 0),
        ("not positive", "positive", 0),
        ("It isn't positive.", "positive", 0),
        ("Yes", "yes", 1),
        ("Yes, the writer has no complaint.", "yes", 1),
        ("Yes. There is no doubt.", "yes", 1),
        ("No, it says yes nowhere.", "no", 1),
        ("There is no doubt", "no", 0),  # a determiner, not an answer
        ("Yes or no.", "yes", 0),
        ("Answer yes or no.", "no", 0),
        ("The answer is no.", "no", 1),
        ("Answer: No", "no", 1),
        ("I think it's a yes", "yes", 1),
        ("Yesterday", "yes", 0),
        ("Nobody", "no", 0),
        ("True", "true", 1),
        ("This statement is false.", "false", 1),
        ("true or false: true", "true", 1),
        ("Two days after Monday is Wednesday.", "Wednesday", 1),
        ("Two days after Monday is Wednesday.", "Monday", 0),
        ("Monday, Tuesday, Wednesday", "Monday", 0),
        ("Monday, Tuesday, Wednesday", "Wednesday", 0),
        ("wednesday", "Wednesday", 1),
    ],
)
def test_label_match_when_answer_is_tricky_then_reads_the_committed_label(answer, reference, expected):
    assert score(answer, metric="label_match", reference=reference) == expected


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize(
    "answer", ["", "  \n ", "...", "**", "I'm sorry, I can't say: 7 B positive Paris apple"]
)
def test_score_when_answer_is_blank_or_a_refusal_then_zero(metric, answer):
    assert score(answer, metric=metric, reference=_VALID_REFERENCES[metric]) == 0.0


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"code_pass"}))
@pytest.mark.parametrize("form", ["{}", "{}.", "The answer is {}.", "Answer: {}", "**{}**", r"\boxed{{{}}}"])
def test_score_when_answer_declares_the_reference_then_one(metric, form):
    reference = _VALID_REFERENCES[metric]
    assert score(form.format(reference), metric=metric, reference=reference) == 1.0


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("numeric_match", "many"),
        ("numeric_match", "3 or 4"),
        ("choice_match", "K"),
        ("choice_match", "BC"),
        ("choice_match", ""),
        ("label_match", "happy"),
        ("cover_match", ""),
        ("cover_match", "Paris|"),
        ("exact_match", "?!"),
        ("token_f1", "Paris|"),
        ("word_coverage", "dog,,cat"),
        ("math_match", " "),
        ("code_pass", "x = 1"),
        ("code_pass", '{"test_list": [1]}'),
        ("code_pass", '{"test": 1}'),
        ("code_pass", "def check(candidate):\n    assert candidate(1)"),
    ],
)
@pytest.mark.parametrize("answer", ["", "I'm sorry, I can't help.", "Paris 7 B positive"])
def test_score_when_reference_is_unreadable_then_error_names_it(metric, reference, answer):
    with pytest.raises(LogSchemaError) as caught:
        score(answer, metric=metric, reference=reference)
    assert metric in str(caught.value)
    assert f"'{reference}'" in str(caught.value)


def test_score_when_metric_is_unknown_then_error_lists_the_known():
    with pytest.raises(LogSchemaError, match=r"no metric 'bleu'.*'numeric_match'.*'exact_match'"):
        score("7", metric="bleu", reference="7")


def test_metrics_when_listed_then_named_by_key_and_read_only():
    assert all(metric.name == name and metric.version for name, metric in METRICS.items())
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS["exact_match"]


@pytest.mark.parametrize("metric", sorted(METRICS))
@given(answer=st.text(max_size=200))
def test_score_when_answer_is_any_text_then_zero_or_one(metric, answer):
    assert score(answer, metric=metric, reference=_VALID_REFERENCES[metric]) in (0.0, 1.0)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize(
    "unit",
    [
        "answer ",
        "answer is ",
        " ",
        "1 ",
        "1,",
        "1/",
        "{",
        r"\boxed{",
        "not ",
        "is ",
        "A) ",
        "no ",
        "'s",
        "a.\n",
    ],
)
def test_score_when_answer_repeats_endlessly_then_fast(metric, unit):
    # A model in a loop writes such answers; a backtracking pattern would take minutes on them.
    answer = unit * (20_000 // len(unit))
    start = time.process_time()  # of this process: a busy machine is not a slow pattern
    score(answer, metric=metric, reference=_VALID_REFERENCES[metric])
    assert time.process_time() - start < 2.0
