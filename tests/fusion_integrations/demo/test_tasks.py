"""The demo's queries: how many, how split, how different, and whether their references are right."""

from __future__ import annotations

import operator
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from fusion_integrations.demo.tasks import FAMILIES, generate_tasks
from fusion_integrations.demo.tasks.family import load_data
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.logs.splits import duplicate_key
from fusion_integrations.scoring import METRICS, score
from fusion_integrations.types import fingerprint

# The shipped logs were collected for these very queries; a change here orphans them.
_DEFAULT_FINGERPRINT = "26c779035da1fc36"
# The shipped templates and student were made from these halves; a change here mixes what they were taught
# with what shows their worth.
_TEACHING_FINGERPRINT = "aba93224c76989e6"

_FAMILY_NAMES = [family.name for family in FAMILIES]


@pytest.fixture(scope="module")
def tasks():
    return generate_tasks()


@pytest.fixture(scope="module")
def queries(tasks):
    return tasks.train + tasks.test


def _fingerprint(tasks):
    """Hash the training and the test queries, however the training queries are divided."""
    return fingerprint(
        [
            sorted([query.text, query.reference, query.metric] for query in part)
            for part in (tasks.train, tasks.test)
        ]
    )


def test_tasks_when_default_then_780_train_and_500_test(tasks):
    assert (len(tasks.train), len(tasks.test)) == (780, 500)
    assert (len(tasks.teaching), len(tasks.routing)) == (392, 388)
    assert tasks.train == tasks.teaching + tasks.routing
    # 160 a family: 62 or 63 for the test, so that they add up to 500.
    assert set(Counter(query.task for query in tasks.test).values()) == {62, 63}
    assert Counter(query.task for query in tasks.train + tasks.test) == dict.fromkeys(_FAMILY_NAMES, 160)


def test_tasks_when_default_then_all_queries_differ(queries):
    assert len({query.query_id for query in queries}) == len(queries) == 1280


def test_tasks_when_default_then_the_queries_of_the_shipped_logs(tasks):
    assert _fingerprint(tasks) == _DEFAULT_FINGERPRINT


def test_tasks_when_default_then_the_teaching_half_of_the_shipped_templates(tasks):
    assert fingerprint(sorted(query.query_id for query in tasks.teaching)) == _TEACHING_FINGERPRINT


def test_tasks_when_hash_seed_differs_then_same_queries():
    code = (
        "from fusion_integrations.demo.tasks import generate_tasks; tasks = generate_tasks(); "
        "print(''.join(query.query_id for query in tasks.train + tasks.test))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_tasks_when_seed_differs_then_other_queries(tasks):
    assert _fingerprint(generate_tasks(seed=8)) != _fingerprint(tasks)


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("queries_per_family", [16, 17, 200])
def test_tasks_when_size_differs_then_all_parts_of_every_family_are_filled(queries_per_family, seed):
    tasks = generate_tasks(queries_per_family=queries_per_family, seed=seed)
    assert len(tasks.train + tasks.test) == 8 * queries_per_family
    for part in (tasks.teaching, tasks.routing, tasks.test):
        assert list(dict.fromkeys(query.task for query in part)) == _FAMILY_NAMES


def test_tasks_when_too_few_are_asked_for_then_error_says_the_least():
    with pytest.raises(InvalidPolicyError, match=r"at least 16 .* got 15"):
        generate_tasks(queries_per_family=15)


def test_tasks_when_more_are_asked_for_than_exist_then_error_names_the_family():
    with pytest.raises(InvalidPolicyError, match=r"'facts' make \d+ different queries, not"):
        generate_tasks(queries_per_family=2000)


@pytest.mark.parametrize("family", FAMILIES, ids=_FAMILY_NAMES)
def test_family_when_listed_then_has_enough_templates_of_its_own_in_each_split(family):
    train = {template.text for template in family.train_templates}
    test = {template.text for template in family.test_templates}
    assert len(train) >= 6
    assert len(test) >= 4
    assert not train & test
    names = [template.name for template in family.train_templates + family.test_templates]
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{family.name}/") for name in names)


def test_splits_when_compared_then_share_no_near_duplicate(tasks):
    train = {duplicate_key(query.text) for query in tasks.train}
    assert not train & {duplicate_key(query.text) for query in tasks.test}


def test_halves_when_compared_then_share_no_near_duplicate(tasks):
    # The key leaves out signs, and the two halves ask for sums and for differences in the same words.
    teaching, routing = (
        {duplicate_key(query.text.replace(" + ", " plus ").replace(" - ", " minus ")) for query in half}
        for half in (tasks.teaching, tasks.routing)
    )
    assert not teaching & routing


def test_halves_when_compared_then_share_no_topic():
    # A topic is known by the queries that its templates make.
    tasks = generate_tasks()
    halves = {
        query.query_id: name
        for name, half in (("teaching", tasks.teaching), ("routing", tasks.routing))
        for query in half
    }
    for i, family in enumerate(FAMILIES):
        n_train = sum(query.task == family.name for query in tasks.train)
        generated = family.generate(np.random.default_rng([7, i]), n_train, "train")
        halves_of_topics: dict[str, set[str]] = {}
        for query, topic in generated:
            halves_of_topics.setdefault(topic, set()).add(halves[query.query_id])
        assert all(len(names) == 1 for names in halves_of_topics.values()), halves_of_topics
        assert set().union(*halves_of_topics.values()) == {"teaching", "routing"}


def test_templates_when_they_ask_about_the_same_items_then_share_a_topic():
    for family in FAMILIES:
        for templates in (family.train_templates, family.test_templates):
            topics = [template.topic for template in templates]
            if family.name in ("facts", "reading"):
                assert all(topic.startswith(f"{family.name}/") for topic in topics)
                assert len(set(topics)) < len(topics)
            else:
                assert set(topics) == {""}


@pytest.mark.parametrize("seed", [7, 8])
def test_halves_when_about_facts_then_share_no_fact(seed):
    tasks = generate_tasks(seed=seed)
    facts = [
        (topic, thing, answer.split("|")[0])
        for topic, pairs in load_data("facts")["train"].items()
        for thing, answer in pairs
    ]
    asked = [
        {
            (topic, thing)
            for topic, thing, answer in facts
            for query in half
            if query.task == "facts" and _asks(query, thing, answer)
        }
        for half in (tasks.teaching, tasks.routing)
    ]
    assert all(asked)
    assert not asked[0] & asked[1]
    assert not {topic for topic, _ in asked[0]} & {topic for topic, _ in asked[1]}


def _asks(query, thing, answer):
    """Tell whether a query asks for a fact, forwards or backwards."""
    return any(
        re.search(rf"(?<!\w){re.escape(given)}(?!\w)", query.text) and query.reference.split("|")[0] == wanted
        for given, wanted in ((thing, answer), (answer, thing))
    )


@pytest.mark.parametrize("seed", [7, 8])
def test_halves_when_about_reading_then_share_no_passage(seed):
    tasks = generate_tasks(seed=seed)
    used = [
        {
            entry["name"]
            for entry in load_data("passages")["train"]
            for query in half
            if query.task == "reading" and _fits(entry["passage"], query.text)
        }
        for half in (tasks.teaching, tasks.routing)
    ]
    assert sum(map(len, used)) == len(load_data("passages")["train"])
    assert all(used)
    assert not used[0] & used[1]


def _fits(passage, text):
    pattern = ".+?".join(re.escape(part) for part in re.split(r"\{\w+\}", passage))
    return re.search(pattern, text) is not None


def test_arithmetic_when_split_then_no_calculation_is_in_both(tasks):
    operands = {
        split: {
            (*sorted(re.findall(r"\d+", query.text)), query.reference)
            for query in queries
            if query.task == "arithmetic"
        }
        for split, queries in (("train", tasks.train), ("test", tasks.test))
    }
    assert not operands["train"] & operands["test"]


@pytest.mark.parametrize("topic", ["capitals", "continents", "elements", "authors", "counts"])
def test_facts_when_split_then_no_thing_is_in_both(topic):
    data = load_data("facts")
    things = {split: [thing for thing, _ in data[split][topic]] for split in data}
    assert not set(things["train"]) & set(things["test"])
    assert all(len(set(names)) == len(names) for names in things.values())


def test_facts_when_about_countries_then_no_country_is_in_both_splits():
    data = load_data("facts")
    countries = {
        split: {thing for topic in ("capitals", "continents") for thing, _ in data[split][topic]}
        for split in data
    }
    assert not countries["train"] & countries["test"]


@pytest.mark.parametrize("words", ["people", "words"])
def test_words_when_split_then_none_is_in_both(words):
    data = load_data(words)
    assert not set(data["train"]) & set(data["test"])


def test_passages_when_listed_then_short_and_of_one_split():
    data = load_data("passages")
    passages = [entry["passage"] for entries in data.values() for entry in entries]
    assert len(set(passages)) == len(passages) == 20
    assert all(40 <= len(passage.split()) <= 90 for passage in passages)


def test_reading_when_generated_then_the_passage_contains_the_answer(queries):
    for query in queries:
        if query.task == "reading" and query.metric != "label_match":
            assert any(form.casefold() in query.text.casefold() for form in query.reference.split("|")), query


def test_commonsense_when_generated_then_options_differ_and_letters_are_spread(queries):
    letters = Counter()
    for query in queries:
        if query.task == "commonsense":
            options = dict(re.findall(r"^([A-D])\) (.+)$", query.text, re.MULTILINE))
            assert query.reference in options
            assert len(set(options.values())) == len(options) >= 3
            letters[query.reference] += 1
    # Three to four options: no letter is right in nearly half of the 160 queries.
    assert max(letters.values()) < 70


def test_labels_when_generated_then_both_answers_are_common(queries):
    labels = Counter(query.reference for query in queries if query.task == "sentiment")
    positive, negative = labels["positive"], labels["negative"]
    assert min(positive, negative) > 0.35 * (positive + negative)


@pytest.mark.parametrize(
    ("pattern", "operation"),
    [
        (r"What is (\d+) \+ (\d+)\?", operator.add),
        (r"Add (\d+) and (\d+)\.", operator.add),
        (r"How much is (\d+) plus (\d+)\?", operator.add),
        (r"What is (\d+) - (\d+)\?", operator.sub),
        (r"Calculate (\d+) minus (\d+)\.", operator.sub),
        (r"take (?P<b>\d+) away from (?P<a>\d+),", operator.sub),
        (r"What is (\d+) times (\d+)\?", operator.mul),
        (r"Work out (\d+) x (\d+)\.", operator.mul),
        (r"the product of (\d+) and (\d+)\.", operator.mul),
        (r"Divide (\d+) by (\d+)\.", operator.truediv),
        (r"does (?P<b>\d+) go into (?P<a>\d+)\?", operator.truediv),
    ],
)
def test_arithmetic_when_calculated_again_then_reference_is_right(queries, pattern, operation):
    found = [(re.search(pattern, query.text), query) for query in queries if query.task == "arithmetic"]
    found = [(match, query) for match, query in found if match]
    assert found
    for match, query in found:
        groups = match.groupdict()
        a, b = (groups["a"], groups["b"]) if groups else match.groups()
        assert operation(int(a), int(b)) == int(query.reference), query


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        # Worked by hand from the default set, a few per family.
        ("Compute (11 + 17) * 3. Answer with the final number.", "84"),  # 28 * 3
        ("Start with 11, multiply it by 3, then add 6. Which number do you reach?", "39"),  # 33 + 6
        ("Carl shares 36 coins equally among 9 friends. How many coins does each friend get?", "4"),
        ("A coat costs 140 dollars. It is now 20 percent cheaper. What is the new price in dollars?", "112"),
        ("Today is Wednesday. What day of the week will it be in 3 days?", "Saturday"),
        ("What weekday was it 6 days before a Sunday? Name the day only.", "Monday"),
        ("If today is Sunday, what was the day before called?", "Saturday"),
        ("It is 9:00 now. What time will it be in 70 minutes? Answer as hour:minutes.", "10:10"),
        ("A film lasts 3 hours and 20 minutes. How many minutes is that in total?", "200"),
        ("Express 120 years in decades.", "12"),
        ("August is month number what of the year?", "8"),
        ('Spell the word "house" backwards.', "esuoh"),
        ('How many times does the letter "o" appear in "monkey"? Give the number only.', "1"),
    ],
)
def test_tasks_when_worked_by_hand_then_reference_is_right(queries, text, reference):
    assert [query.reference for query in queries if query.text == text] == [reference]


@pytest.mark.parametrize("form", ["{}", "{}.", "The answer is {}.", "Answer: {}", r"\boxed{{{}}}"])
def test_reference_when_answered_then_scores_one(queries, form):
    for query in queries:
        assert query.metric in METRICS
        for accepted in query.reference.split("|"):
            answer = form.format(accepted)
            assert score(answer, metric=query.metric, reference=query.reference) == 1.0, (answer, query)


def test_query_when_repeated_as_answer_then_scores_zero(queries):
    # A passage may hold its answer near its start or end, where a cover match looks.
    for query in queries:
        if (query.task, query.metric) != ("reading", "cover_match"):
            assert score(query.text, metric=query.metric, reference=query.reference) == 0.0, query
