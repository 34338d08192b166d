"""Let a reader of a page look at single queries: what every candidate scored and what each router chose."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fusion_integrations.evaluation.page_html import Html, element
from fusion_integrations.evaluation.query_outcomes import QueryOutcome

__all__ = ["query_explorer"]

_N_SHOWN = 200  # rows that a browser filters at once and a reader might look through
_SUMMARY = 240  # characters of a query that are shown at first
_LONGEST = 4000  # characters of a query that are in the page

_MARKS = {"": "all", "differ": "routers chose differently", "missed": "a router missed the best answer"}


def query_explorer(queries: Sequence[QueryOutcome], *, candidates: Sequence[str]) -> Html:
    """Make a table of queries that can be searched and filtered.

    Args:
        queries: What to show, most telling first; only the first 200 are shown.
        candidates: Ids of all candidates.

    Returns:
        The table and its filters.
    """
    shown = queries[:_N_SHOWN]
    tasks = sorted({query.task for query in shown if query.task})
    filters = element(
        "div",
        element("label", "Search", element("input", type="search", name="search", autocomplete="off")),
        _select("Task", "task", {"": "all"} | {task: task for task in tasks}),
        _select("LLM chosen by a router", "choice", {"": "any"} | {name: name for name in candidates}),
        _select("Queries", "which", _MARKS),
        class_="filters",
    )
    headings = ("Query", "Task", "Performance of each LLM", "Choice of each router")
    head = element(
        "tr", *(element("th", each, scope="col", role="columnheader") for each in headings), role="row"
    )
    whole = element(
        "table",
        element("thead", head, role="rowgroup"),
        element("tbody", *(_row(query) for query in shown), role="rowgroup"),
        role="table",
        aria_label="Queries",
    )
    return element(
        "div",
        filters,
        element("p", element("output", f"{len(shown)} of {len(shown)} queries", role="status")),
        whole,
        element("button", "Show more", type="button", hidden=True),
        class_="explorer",
    )


def _select(label: str, name: str, options: dict[str, str]) -> Html:
    choices = [element("option", text, value=value) for value, text in options.items()]
    return element("label", label, element("select", *choices, name=name))


def _row(query: QueryOutcome) -> Html:
    best = max(query.performance.values(), default=None)
    reached = [query.performance.get(chosen) for chosen in query.chosen.values()]
    marks = [
        *(["differ"] if len(set(query.chosen.values())) > 1 else []),
        *(
            ["missed"]
            if best is not None and any(each is not None and each < best for each in reached)
            else []
        ),
    ]
    # Roles are repeated because a phone shows the rows as blocks, which takes them from the elements.
    return element(
        "tr",
        element("th", _text(query.text), scope="row", role="rowheader"),
        element("td", query.task or "", role="cell"),
        element("td", _scores(query), role="cell"),
        element("td", _choices(query), role="cell"),
        role="row",
        data_task=query.task or "",
        data_chosen=json.dumps(sorted(set(query.chosen.values()))),
        data_marks=" ".join(marks),
    )


def _text(text: str) -> Html:
    if len(text) <= _SUMMARY:
        return element("div", text, class_="query")
    rest = f" … {len(text) - _LONGEST} more characters" if len(text) > _LONGEST else ""
    return element(
        "details",
        element("summary", f"{text[:_SUMMARY]}…"),
        element("div", f"{text[:_LONGEST]}{rest}", class_="query"),
    )


def _scores(query: QueryOutcome) -> Html:
    """List the candidates by falling performance, those of equal performance together."""
    names: dict[str, list[str]] = {}
    for name, score in sorted(query.performance.items(), key=lambda item: -item[1]):
        names.setdefault(f"{score:.2f}", []).append(name)
    return element(
        "ul",
        *(
            element(
                "li",
                element("b", score),
                f" {', '.join(equals)}",
                style=f"--score:{min(max(float(score), 0), 1)}",
            )
            for score, equals in names.items()
        ),
        class_="cells",
    )


def _choices(query: QueryOutcome) -> Html:
    routers: dict[str, list[str]] = {}
    for router, chosen in query.chosen.items():
        routers.setdefault(chosen, []).append(router)
    lines = []
    for chosen, names in routers.items():
        score = query.performance.get(chosen)
        reached = "not logged" if score is None else f"{score:.2f}"
        lines.append(element("li", f"{', '.join(names)}: ", element("b", chosen), f" ({reached})"))
    return element("ul", *lines, class_="choices")
