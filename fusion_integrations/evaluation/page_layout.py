"""Put a page together: one file with its styles, scripts and data, that asks no other place for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from fusion_integrations._optional import require
from fusion_integrations.evaluation.page_figures import Figure
from fusion_integrations.evaluation.page_html import Html, content_hash, data_block, element

__all__ = ["PagePart", "figure_block", "head_choice", "render_parts", "sentences"]

_N_SHOWN_HEADS = 3  # more lines than this hide each other; the others are a click away


@dataclass(frozen=True, kw_only=True)
class PagePart:
    """What a page says about one log.

    Attributes:
        title: Name of the log.
        summary: The result in a few words.
        content: The part itself.
    """

    title: str
    summary: str
    content: Html


def render_parts(title: str, parts: Sequence[PagePart], *, remarks: Sequence[str] = ()) -> str:
    """Make the page.

    Args:
        title: What the page is.
        parts: One a log.
        remarks: What is to be said of all, before them.

    Returns:
        The whole HTML document.

    Raises:
        MissingDependencyError: If Plotly is not installed.
    """
    plotly = require("plotly.offline", extra="report")
    scripts = [str(plotly.get_plotlyjs()), _read("page.js")]
    # Even if a text of a log got through as HTML, no script but these two would run, and nothing be fetched.
    policy = (
        f"default-src 'none'; script-src {' '.join(map(content_hash, scripts))}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        Html(f"<style>{_read('page.css')}</style>"),
    )
    contents = element(
        "ul",
        *(
            element("li", element("a", part.title, href=f"#log-{number}"), f": {part.summary}")
            for number, part in enumerate(parts)
        ),
    )
    sections = [
        element(
            "section",
            element("h2", part.title, id=f"log-{number}-title"),
            part.content,
            id=f"log-{number}",
            class_="log",
            aria_labelledby=f"log-{number}-title",
        )
        for number, part in enumerate(parts)
    ]
    body = element(
        "body",
        element("a", "Skip to the results", href="#results", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("nav", contents, aria_label="Logs"),
            sentences(remarks) if remarks else Html(),
        ),
        element("main", *sections, id="results"),
        *(Html(f"<script>{script}</script>") for script in scripts),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def figure_block(caption: str, figure: Figure, *, label: str, numbers: Html) -> Html:
    """Show a plot, with what it says in words and all its numbers as a table.

    Args:
        caption: How to read it.
        figure: The plot.
        label: What it shows, in words, for those who do not see it.
        numbers: Its numbers.

    Returns:
        The figure.
    """
    height = figure["layout"]["height"]
    return element(
        "figure",
        element("div", class_="plot", role="img", aria_label=label, style=f"min-height:{height}px"),
        data_block(figure),
        element("figcaption", caption),
        element("details", element("summary", "The numbers as a table"), numbers),
    )


def head_choice(heads: Sequence[str], performances: Sequence[float]) -> Html:
    """Let the reader choose the heads to see in the plots; the best are chosen at first.

    Args:
        heads: Names of heads.
        performances: What they reached.

    Returns:
        One check box a head.
    """
    order = sorted(range(len(heads)), key=lambda number: -performances[number])[:_N_SHOWN_HEADS]
    boxes = [
        element(
            "label",
            element("input", type="checkbox", value=head, checked=number in order),
            element("span", class_="swatch", style=f"background:var(--c{number % 8})"),
            head,
        )
        for number, head in enumerate(heads)
    ]
    return element("fieldset", element("legend", "In the plots"), *boxes, class_="heads")


def sentences(lines: Sequence[str]) -> Html:
    """List sentences."""
    return element("ul", *(element("li", line) for line in lines), class_="facts")


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
