from __future__ import annotations

import pytest

from fusion_integrations.cli.inputs import read_candidates, read_logs, read_queries
from fusion_integrations.demo.candidates import BASE_CANDIDATES, LEVEL_CANDIDATES
from fusion_integrations.demo.demo_log import load_demo_logs
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.errors import (
    CandidatesFileError,
    EmptyQueryError,
    LogSchemaError,
    LogStoreError,
)
from fusion_integrations.logs.frame import load_logs
from fusion_integrations.types import Message, Query

EXPECTED = [
    Query.from_text("What is 3 + 4?", reference="7", metric="numeric_match"),
    Query.from_text("Name a fish."),
]
FILES = {
    "queries.jsonl": """\ufeff{"text": "What is 3 + 4?", "reference": 7, "metric": "numeric_match"}

{"messages": [{"role": "user", "content": "Name a fish."}]}
""",
    "queries.yaml": """
- text: What is 3 + 4?
  reference: 7
  metric: numeric_match
- text: Name a fish.
""",
    "queries.csv": "text,task,reference,metric\nWhat is 3 + 4?,,7,numeric_match\nName a fish.,,,\n",
    "queries.TSV": "text\treference\tmetric\nWhat is 3 + 4?\t7\tnumeric_match\nName a fish.\t\t\n",
}


@pytest.mark.parametrize("name", FILES)
def test_read_queries_when_the_file_is_of_any_kind_gives_its_queries(name, tmp_path):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    assert read_queries(str(path)) == EXPECTED


def test_read_queries_when_a_conversation_is_given_keeps_its_turns(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}'
    )
    assert read_queries(str(path))[0].messages == (
        Message(role="system", content="Be kind."),
        Message(role="user", content="Hi"),
    )


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("q.jsonl", '{"text": "a"}\n{"text": " "}', EmptyQueryError, "line 2: The query has no text"),
        ("q.jsonl", '{"text": "a"}\n{oops', LogSchemaError, "line 2: not JSON"),
        ("q.jsonl", "[" * 100_000, LogSchemaError, "line 1: not JSON"),
        ("q.jsonl", '["a"]', LogSchemaError, "line 1: Input should be"),
        ("q.jsonl", '{"text": "a", "refrence": "b"}', LogSchemaError, "line 1: refrence: Extra inputs"),
        ("q.jsonl", '{"task": "a"}', LogSchemaError, "line 1: Value error, give either text or messages"),
        ("q.jsonl", '{"text": "a", "messages": []}', LogSchemaError, "give either text or messages"),
        ("q.jsonl", '{"messages": []}', EmptyQueryError, "line 1: The query has no text"),
        ("q.jsonl", '{"messages": [{"role": "pope", "content": "a"}]}', LogSchemaError, "messages.0.role"),
        ("q.jsonl", "\n", LogSchemaError, "holds no query"),
        ("q.yaml", "text: a", LogSchemaError, "must be a YAML list"),
        ("q.yaml", "- {", LogSchemaError, "cannot be read"),
        ("q.yaml", "- !!python/object/apply:os.getpid []", LogSchemaError, "cannot be read"),
        ("q.csv", "text,task\na,b,c\n", LogSchemaError, "row 1"),
        ("q.csv", "text\n\n \n", EmptyQueryError, "row 1"),
        ("q.txt", "a", LogSchemaError, "of no known kind. Use one of .jsonl"),
        ("q.txt", "a", LogSchemaError, "or the word demo or demo-levels."),
    ],
)
def test_read_queries_when_the_file_is_malformed_says_where_and_what(name, content, error, says, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(error) as caught:
        read_queries(str(path))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"text": "\xff"}'])
def test_read_queries_when_the_file_is_not_utf8_says_it_cannot_be_read(content, tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(LogSchemaError, match="cannot be read"):
        read_queries(str(path))


@pytest.mark.parametrize("name", ["none.jsonl", "none.yaml", "none.csv"])
def test_read_queries_when_the_file_is_missing_says_it_cannot_be_read(name, tmp_path):
    with pytest.raises(LogSchemaError, match="cannot be read"):
        read_queries(str(tmp_path / name))


def test_read_queries_when_the_demo_is_named_gives_all_its_queries():
    assert len(read_queries("demo")) == 1280


def test_read_queries_when_the_levels_of_the_demo_are_named_gives_those_that_taught_them_nothing():
    tasks = generate_tasks()
    queries = read_queries("demo-levels")
    assert queries == [*tasks.routing, *tasks.test]
    assert not {query.query_id for query in queries} & {query.query_id for query in tasks.teaching}


def test_read_candidates_when_the_demo_is_named_loads_no_model_to_list_them():
    found = read_candidates("demo")
    assert found.candidates == BASE_CANDIDATES
    assert set(found.options) == {candidate.id for candidate in BASE_CANDIDATES}
    assert found.thoughts is None
    assert len(found.clients) == 2
    assert all(candidate.model in found.clients for candidate in found.candidates)
    assert set(found.clients) == {candidate.model for candidate in found.candidates}
    assert "other" not in found.clients
    with pytest.raises(KeyError):
        found.clients["other"]


@pytest.mark.real_model
def test_read_candidates_when_the_levels_of_the_demo_are_named_gives_them_with_their_guidance():
    found = read_candidates("demo-levels")
    assert found.candidates == LEVEL_CANDIDATES
    assert set(found.options) == {candidate.id for candidate in LEVEL_CANDIDATES}
    assert set(found.clients) == {candidate.model for candidate in LEVEL_CANDIDATES}
    assert found.thoughts is not None
    assert found.thoughts.revision == LEVEL_CANDIDATES[0].revision


def test_read_logs_when_the_demo_is_named_gives_the_part_that_the_verb_needs():
    tasks = generate_tasks()
    queries = {"teaching": tasks.teaching, "routing": tasks.routing, "train": tasks.train, "test": tasks.test}
    assert read_logs("demo", demo_part="all").equals(load_demo_logs())
    for part, expected in queries.items():
        found = read_logs("demo", demo_part=part)
        assert set(found["query_id"]) == {query.query_id for query in expected}, part
    bases = {candidate.id for candidate in BASE_CANDIDATES}
    assert set(read_logs("demo", demo_part="teaching")["candidate_id"]) == bases
    assert set(read_logs("demo", demo_part="routing")["candidate_id"]) == bases


def test_read_logs_when_a_file_is_named_reads_it(logs_path, tmp_path):
    assert read_logs(str(logs_path), demo_part="teaching").equals(load_logs(logs_path))
    with pytest.raises(LogStoreError, match="There is no log store"):
        read_logs(str(tmp_path / "demo"), demo_part="all")


def test_read_candidates_when_a_file_uses_the_demo_models_accepts_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\nmodels: {smollm2-135m: {client: demo}}\ncandidates: [{id: s, model: smollm2-135m}]\n"
    )
    assert [candidate.id for candidate in read_candidates(str(path)).candidates] == ["s"]


def test_read_candidates_when_the_file_is_missing_raises(tmp_path):
    with pytest.raises(CandidatesFileError, match="cannot be read"):
        read_candidates(str(tmp_path / "none.yaml"))
