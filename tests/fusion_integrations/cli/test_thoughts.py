from __future__ import annotations

import json

import pytest


def test_list_when_run_shows_every_template_without_what_terminals_obey(fusion, library_path):
    result = fusion("thoughts", "list", library_path)
    assert result.exit_code == 0, result.stderr
    for template_id in ("ab12", "ab34", "cd56"):
        assert template_id in result.stdout
    assert "0.750" in result.stdout
    assert "\x1b" not in result.stdout
    assert f"3 of 3 templates. One in full: fusion thoughts show '{library_path}' ID" in result.stdout


def test_list_when_limited_to_a_task_gives_its_first_templates(fusion, library_path):
    command = ("thoughts", "list", library_path, "--task", "sums", "--limit", "1", "--json")
    document = json.loads(fusion(*command).stdout)
    assert [template["id"] for template in document["templates"]] == ["ab12"]
    assert document["n_templates"] == 3


def test_list_when_no_template_is_of_the_task_exits_1_with_those_there_are(fusion, library_path):
    result = fusion("thoughts", "list", library_path, "--task", "prose")
    assert result.exit_code == 1
    assert result.stderr == "Error: No template is of task 'prose'. Known tasks: sums.\n"


def test_show_when_the_beginning_of_an_id_is_unique_shows_the_template_and_its_origin(fusion, library_path):
    text = fusion("thoughts", "show", library_path, "cd").stdout
    assert "template: cd56\nquery: query-cd56\ntask: unknown\nsummariser: echo\n" in text
    assert "log fingerprint: 0123456789abcdef" in text
    assert "Template\nRecall animals of this kind.\\x1b[2J\n" in text
    assert "r-cd56" in text
    document = json.loads(fusion("thoughts", "show", library_path, "cd56", "--json").stdout)
    assert document["query"] == "Name a fish.\x1b[31m"
    assert document["sources"][0]["performance"] == 0.75
    assert document["library"]["summary_prompt_version"] == 1


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("ab", "2 templates have an id that begins with 'ab', for example 'ab12', 'ab34'. Give more of it."),
        ("x", "No template has an id that begins with 'x'."),
    ],
)
def test_show_when_the_id_is_not_unique_or_unknown_exits_1(wanted, says, fusion, library_path):
    result = fusion("thoughts", "show", library_path, wanted)
    assert result.exit_code == 1
    assert says in result.stderr


def test_search_when_templates_are_similar_shows_them_and_the_prompt(fusion, library_path):
    command = ("thoughts", "search", library_path, "What is 3 + 4?", "--k", "1")
    text = fusion(*command).stdout
    assert "ab12" in text
    assert "1.000" in text
    assert "How to solve it: Add the two numbers and give the sum." in text
    assert text.rstrip().endswith("What is 3 + 4?")
    document = json.loads(fusion(*command, "--json").stdout)
    assert [each["template"]["id"] for each in document["found"]] == ["ab12"]
    assert "+k1+s0.3" in document["revision"]
    assert document["prompt"].startswith("These notes come from similar questions")


def test_search_when_templates_are_to_be_shown_in_part_cuts_them(fusion, library_path):
    command = ("thoughts", "search", library_path, "What is 3 + 4?", "--k", "1", "--max-chars", "7")
    assert "How to solve it: Add the ..." in fusion(*command).stdout


def test_search_when_nothing_is_similar_leaves_the_query_as_it_is(fusion, library_path):
    command = ("thoughts", "search", library_path, "Zebras?", "--min-similarity", "0.99")
    assert "No template has a similarity of 0.99 or more" in fusion(*command).stdout
    document = json.loads(fusion(*command, "--json").stdout)
    assert (document["found"], document["prompt"]) == ([], "Zebras?")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((" ",), "The query is blank. Pass at least one word."),
        (("Hi", "--k", "0"), "k must be at least 1, got 0."),
        (("Hi", "--min-similarity", "2"), "min_similarity must lie in [-1, 1], got 2.0."),
    ],
)
def test_search_when_an_input_is_bad_exits_1_with_the_message(more, says, fusion, library_path):
    result = fusion("thoughts", "search", library_path, *more)
    assert result.exit_code == 1
    assert says in result.stderr


@pytest.mark.parametrize("verb", ["list", "show", "search"])
def test_thoughts_when_the_folder_holds_a_router_exits_1(verb, fusion, router_path):
    result = fusion("thoughts", verb, router_path, *(() if verb == "list" else ("x",)))
    assert result.exit_code == 1
    assert "holds a router, not a template_library" in result.stderr


def test_inspect_when_it_is_a_library_shows_count_and_fingerprint(fusion, library_path):
    document = json.loads(fusion("inspect", library_path, "--json").stdout)
    assert document["kind"] == "template_library"
    assert document["particulars"]["templates"] == 3
    text = fusion("inspect", library_path).stdout
    assert f"fingerprint: {document['particulars']['fingerprint']}\n" in text
    assert "templates.jsonl" in text
    assert "Candidates" not in text
