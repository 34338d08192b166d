import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fusion_integrations.errors import MissingDependencyError
from fusion_integrations.evaluation import render_page
from fusion_integrations.evaluation.page_html import content_hash
from fusion_integrations.evaluation.query_outcomes import QueryOutcome

HOSTILE = (
    "</script><script>alert(1)</script>",
    '<img src="https://example.org" onerror="alert(1)">',
    '"><svg onload=alert(1)>',
    "<!--<script>",
)


class Reader(HTMLParser):
    """Collects elements with their attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._texts = [("", {})], [[]]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._texts.append([])

    def handle_data(self, data):
        self._texts[-1].append(data)

    def handle_endtag(self, tag):
        self.elements.append(("", {}))  # what follows is no longer the element's
        self._texts.append([])

    def all(self, tag):
        """Attributes and direct leading text of each element of a tag."""
        return [
            (attributes, "".join(text))
            for (found, attributes), text in zip(self.elements, self._texts, strict=True)
            if found == tag
        ]

    @property
    def text(self):
        """All texts but those of scripts that run."""
        running = set(scripts(self))
        return "\n".join(text for text in map("".join, self._texts) if text not in running)


def scripts(page):
    return [text for attributes, text in page.all("script") if attributes.get("type") != "application/json"]


def figures(page):
    blocks = [text for attributes, text in page.all("script") if attributes.get("type") == "application/json"]
    return [json.loads(text) for text in blocks]


def kinds(page):
    return [figure["data"][-1]["type"] for figure in figures(page)]


def test_page_needs_no_other_file_and_no_network(make_benchmark):
    page = Reader(render_page([make_benchmark()]))
    addresses = [
        (tag, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster", "data")
    ]
    assert addresses
    assert all(value.startswith(("#", "data:,")) for _, value in addresses)
    style = page.all("style")[0][1]
    assert "url(" not in style
    assert "@import" not in style


def test_page_lets_only_its_own_scripts_run(make_benchmark):
    page = Reader(render_page([make_benchmark()]))
    policies = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    (policy,) = policies
    assert policy.startswith("default-src 'none'; ")
    assert re.search("script-src ([^;]*);", policy)[1].split() == [
        content_hash(text) for text in scripts(page)
    ]


def test_page_of_hostile_names_and_texts_has_no_element_from_them(make_benchmark):
    queries = [
        QueryOutcome(
            query_id=text,
            text=text,
            task=HOSTILE[0],
            performance=dict.fromkeys(HOSTILE, 0.5),
            chosen={"cluster": HOSTILE[0], "stack": HOSTILE[1]},
        )
        for text in HOSTILE
    ]
    tasks = [*HOSTILE, "math"]
    hostile = Reader(render_page([make_benchmark(names=HOSTILE, tasks=tasks, queries=queries)]))
    harmless_names = ("a", "b", "c", "d")
    harmless_queries = [
        QueryOutcome(
            query_id=text,
            text=text,
            task="a",
            performance=dict.fromkeys(harmless_names, 0.5),
            chosen={"cluster": "a", "stack": "b"},
        )
        for text in harmless_names
    ]
    harmless = Reader(
        render_page(
            [make_benchmark(names=harmless_names, tasks=[*harmless_names, "math"], queries=harmless_queries)]
        )
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert all(text in hostile.text for text in HOSTILE)


def test_page_shows_gains_and_verdicts(make_benchmark):
    text = Reader(render_page([make_benchmark()])).text
    assert "+0.040 [+0.020, +0.060]" in text
    assert "better" in text
    assert "best: stack, performance 0.540" in text


def test_page_of_a_log_with_costs_shows_them(make_benchmark):
    page = Reader(render_page([make_benchmark()]))
    assert kinds(page) == ["scatter", "scatter", "scatterpolar", "scatter"]
    assert "50.00" in page.text  # 0.05 USD a call
    assert "0.438" in page.text  # AIQ
    assert "Cost weights: balance 0.5." in page.text


def test_page_of_a_log_without_costs_says_so_and_has_no_column_of_unknowns(make_benchmark):
    page = Reader(render_page([make_benchmark(has_costs=False)]))
    assert kinds(page) == ["scatter", "scatterpolar", "scatter"]
    assert "The log has no costs." in page.text
    assert "unknown" not in page.text


def test_page_of_two_llms_shows_which_queries_need_the_stronger_one(make_benchmark):
    assert "0.625" in Reader(render_page([make_benchmark()])).text
    more = make_benchmark(names=("small", "large", "third"))
    assert "Which queries need the stronger model" not in Reader(render_page([more])).text


def test_page_of_a_log_without_tasks_and_queries_says_so(make_benchmark):
    report = make_benchmark(queries=())
    unnamed = replace(report, tasks={}, candidate_tasks={name: {} for name in report.candidates})
    text = Reader(render_page([unnamed])).text
    assert "The report holds no queries." in text
    assert "The log names no tasks." in text


def test_page_of_estimates_says_so(make_benchmark):
    assert "doubly robust" in Reader(render_page([make_benchmark(is_estimated=True)])).text
    assert "doubly robust" not in Reader(render_page([make_benchmark()])).text


def test_page_shows_at_most_200_queries_and_cuts_long_ones(make_benchmark):
    queries = [
        QueryOutcome(
            query_id=str(i),
            text=f"{i} " + "x" * 5000,
            task="math",
            performance={"small": 1.0},
            chosen={"stack": "small"},
        )
        for i in range(250)
    ]
    page = Reader(render_page([make_benchmark(queries=queries)]))
    assert "199 xxx" in page.text
    assert "200 xxx" not in page.text
    assert "more characters" in page.text
    assert "x" * 4001 not in page.text


def test_page_of_an_unlogged_choice_says_that_it_was_not_logged(make_benchmark):
    query = QueryOutcome(
        query_id="q",
        text="t",
        task=None,
        performance={"small": 0.5},
        chosen={"cluster": "small", "stack": "large"},
    )
    assert "(not logged)" in Reader(render_page([make_benchmark(queries=[query], is_estimated=True)])).text


def test_page_of_an_llm_that_has_a_strategys_name_keeps_both(make_benchmark):
    page = Reader(render_page([make_benchmark(names=("Oracle", "large"))]))
    headings = [text for attributes, text in page.all("th") if attributes.get("scope") == "col"]
    assert "Oracle" in headings
    assert "Oracle (LLM)" in headings


def test_page_has_a_part_and_a_link_a_log(make_benchmark):
    page = Reader(render_page([make_benchmark(), make_benchmark(name="second")]))
    targets = {attributes["href"] for attributes, _ in page.all("a")}
    assert {"#log-0", "#log-1"} <= targets
    assert {attributes["id"] for attributes, _ in page.all("section")} == {"log-0", "log-1"}


def test_page_without_plotly_names_the_extra(make_benchmark, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[report\]"):
        render_page([make_benchmark()])
