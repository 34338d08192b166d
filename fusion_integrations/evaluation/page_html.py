"""Build HTML that cannot be broken out of: every text is escaped unless it was built here."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Html", "column_table", "content_hash", "data_block", "element", "joined", "table"]

_VOID = ("input", "link", "meta")


class Html(str):
    """Text that is HTML already; any other text is escaped when it becomes part of an element."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | int | bool | None) -> Html:
    """Make an element.

    Args:
        tag: Its name.
        *children: What it holds; escaped unless it is `Html`.
        **attributes: Its attributes. `class_` stands for `class`, an underscore within for a hyphen.
            True is an attribute without a value; None and False leave it out.

    Returns:
        The element.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Html(start if tag in _VOID else f"{start}{joined(*children)}</{tag}>")


def joined(*children: str) -> Html:
    """Put parts after one another; escaped unless they are `Html`."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, n_text_columns: int = 1
) -> Html:
    """Make a table that scrolls sideways on its own where the screen is narrow.

    Args:
        caption: What it shows.
        headings: Of the columns.
        rows: Cells, as many a row as there are headings; the first heads its row.
        n_text_columns: How many columns hold text; the others hold numbers.

    Returns:
        The table in a region that the keyboard can scroll.
    """
    kinds = ["text" if number < n_text_columns else "number" for number in range(len(headings))]
    head = element(
        "tr",
        *(
            element("th", heading, scope="col", class_=kind)
            for heading, kind in zip(headings, kinds, strict=True)
        ),
    )
    body = [
        element(
            "tr",
            element("th", cells[0], scope="row", class_="text"),
            *(element("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True)),
        )
        for cells in rows
    ]
    whole = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", joined(*body)),
    )
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)


def column_table(caption: str, columns: Mapping[str, Sequence[str]]) -> Html:
    """Make a table of columns by their heading; the first holds text, the others numbers."""
    n_rows = len(next(iter(columns.values())))
    rows = [[cells[number] for cells in columns.values()] for number in range(n_rows)]
    return table(caption, list(columns), rows)


def data_block(data: Any) -> Html:
    """Put JSON data into a page; no text in it can end the block.

    Args:
        data: JSON data without NaN and infinity.

    Returns:
        A script element that holds data and never runs.
    """
    text = json.dumps(data, allow_nan=False)  # ASCII: line separators are escaped too
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json">{text}</script>')


def content_hash(text: str) -> str:
    """Name a script by its content, for a policy that lets this script run and no other.

    Source:
        Content Security Policy Level 3, section 2.3.1, hash sources.
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
