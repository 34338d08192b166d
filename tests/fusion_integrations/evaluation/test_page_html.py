import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.evaluation.page_html import (
    Html,
    column_table,
    content_hash,
    data_block,
    element,
    joined,
    table,
)

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "&lt;",
    "'",
)


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.attributes = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_element_with_a_text_holds_it_as_text(text):
    found = Reader(element("p", text, title=text))
    assert found.tags == ["p"]
    assert "".join(found.texts) == text
    assert found.attributes == {"title": text}


def test_element_with_html_nests_it():
    assert element("ul", element("li", "a < b"), class_="x") == '<ul class="x"><li>a &lt; b</li></ul>'


def test_element_attributes_true_stand_alone_and_none_and_false_are_left_out():
    made = element("input", type="checkbox", checked=True, disabled=False, title=None, data_x=1)
    assert made == '<input type="checkbox" checked data-x="1">'


def test_joined_escapes_only_what_is_no_html():
    assert joined(Html("<b>"), "<b>") == "<b>&lt;b&gt;"


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_data_block_whatever_the_data_is_one_element_and_reads_back(data):
    found = Reader(data_block(data))
    assert found.tags == ["script"]
    assert found.attributes == {"type": "application/json"}
    assert json.loads("".join(found.texts)) == data


@pytest.mark.parametrize("text", HOSTILE)
def test_data_block_holds_no_character_that_could_end_it(text):
    inside = data_block([text]).removeprefix('<script type="application/json">').removesuffix("</script>")
    assert not set("<>&") & set(inside)


def test_data_block_of_nan_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        data_block([float("nan")])


def test_table_scrolls_by_keyboard_and_heads_rows_and_columns():
    made = table("Fruit", ("name", "n"), [("pear", "2")])
    assert 'role="region" aria-label="Fruit" tabindex="0"' in made
    assert '<th scope="row" class="text">pear</th><td class="number">2</td>' in made
    assert '<th scope="col" class="text">name</th><th scope="col" class="number">n</th>' in made


def test_column_table_turns_columns_into_rows():
    columns = {"name": ["pear", "fig"], "n": ["2", "3"]}
    assert column_table("Fruit", columns) == table("Fruit", ("name", "n"), [("pear", "2"), ("fig", "3")])


def test_content_hash_is_that_of_the_specification():
    # Content Security Policy Level 3, section 8.2, of the script alert('Hello, world.');
    assert content_hash("alert('Hello, world.');") == "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
