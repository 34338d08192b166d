import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_integrations.logs.importers import _json_rows
from fusion_integrations.logs.importers._json_rows import json_rows

OBJECTS = st.lists(
    st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers() | st.lists(st.text(max_size=3))),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50)
@given(
    objects=OBJECTS,
    chunk=st.integers(1, 7),
    indent=st.sampled_from([None, 1]),
    form=st.sampled_from(["array", "one after another", "lines"]),
)
def test_rows_when_objects_are_written_then_they_come_back(tmp_path_factory, objects, chunk, indent, form):
    path = tmp_path_factory.mktemp("json") / "log.json"
    if form == "array":
        path.write_text(json.dumps(objects, indent=indent))
    else:
        separator = "\n" if form == "lines" else " "
        texts = (json.dumps(each, indent=indent if form != "lines" else None) for each in objects)
        path.write_text(separator.join(texts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_rows, "_CHUNK", chunk)
        rows = list(json_rows(path))

    assert [row.values for row in rows] == objects
    assert not any(row.problem for row in rows)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('[{"a": 1}, {"a": nonsense}, {"a": 2}]', ["", "not JSON", ""]),
        ('[{"a": 1}, 7, {"a": 2}]', ["", "not a JSON object", ""]),
        ('[{"a": 1}, {"a": "cut', ["", "the file ends inside of it"]),
        ('{"a": 1} {"a":', ["", "the file ends inside of it"]),
        ("", []),
        ("  \n ", []),
        ("[]", []),
    ],
)
def test_rows_when_a_part_is_broken_then_the_rest_is_read(tmp_path, text, problems):
    path = tmp_path / "log.json"
    path.write_text(text)

    rows = list(json_rows(path))

    assert len(rows) == len(problems)
    assert all(problem in row.problem for row, problem in zip(rows, problems, strict=True))


def test_rows_when_a_value_does_not_end_then_reading_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(_json_rows, "_CHUNK", 10)
    monkeypatch.setattr(_json_rows, "_MAX_VALUE", 50)
    path = tmp_path / "log.json"
    path.write_text('[{"a": "' + "x" * 500)

    (row,) = json_rows(path)

    assert "does not end within 50 characters" in row.problem
